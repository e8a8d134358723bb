"""The statuses of DIMSE responses (0000,0900), and what a requestor may conclude from one.

PS3.7 Annex C has those that all services share; a service's own are in PS3.4.
"""

from enum import IntEnum


class Status(IntEnum):
    """The statuses that Relay itself gives or must understand."""

    SUCCESS = 0x0000
    PENDING = 0xFF00  # PS3.4 §C.4.1
    PENDING_WITHOUT_OPTIONAL_KEYS = 0xFF01  # PS3.4 §C.4.1
    CANCEL = 0xFE00

    # PS3.7 Annex C
    REQUESTED_OPTIONAL_ATTRIBUTES_NOT_SUPPORTED = 0x0001
    ATTRIBUTE_LIST_ERROR = 0x0107
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    ATTRIBUTE_VALUE_OUT_OF_RANGE = 0x0116
    INVALID_OBJECT_INSTANCE = 0x0117
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    UNRECOGNIZED_OPERATION = 0x0211
    RESOURCE_LIMITATION = 0x0213

    # PS3.4 Annexes B and C
    OUT_OF_RESOURCES = 0xA700
    UNABLE_TO_PERFORM_SUBOPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    UNABLE_TO_PROCESS = 0xC000


def is_pending(status: int) -> bool:
    """Whether more responses to the same request follow."""
    return status in (Status.PENDING, Status.PENDING_WITHOUT_OPTIONAL_KEYS)


def is_warning(status: int) -> bool:
    """Whether the operation was done, but not quite as asked (PS3.7 §C.4)."""
    return status >> 12 == 0xB or status in (
        Status.REQUESTED_OPTIONAL_ATTRIBUTES_NOT_SUPPORTED,
        Status.ATTRIBUTE_LIST_ERROR,
        Status.ATTRIBUTE_VALUE_OUT_OF_RANGE,
    )


def means_stored(status: int, *, sent_before: bool = False) -> bool:
    """Whether a C-STORE with this status leaves the instance with the receiver.

    A warning (Bxxx) says that it does (PS3.4 §B.2.3). That it is there already (0111) says so only
    of an object that was sent before: it is a failure the first time.
    """
    if status == Status.DUPLICATE_SOP_INSTANCE:
        return sent_before
    return status == Status.SUCCESS or is_warning(status)
