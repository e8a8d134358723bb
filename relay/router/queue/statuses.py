"""What follows from what a device answers: an object is delivered, tried again, or a person's.

DESIGN §6, "Statuses". Storage's own statuses are in PS3.4 §B.2.3 (Table B.2-1), those that all
services share in PS3.7 Annex C; `judge` has an answer to each of the 65,536 that fit the element.
The rest is about associations: one that is rejected (PS3.8 Table 9-21), one that the device aborts.
What never came about because the network or the far Router is away is tried again for as long as it
takes (relay.router.queue.lane).
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

import attrs

from relay.dicom.atoms import AAssociateRJ
from relay.dicom.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    PERMANENT,
    in_words,
)
from relay.dicom.status import Status, is_warning

# How often an object is tried alone that a device answers with a failure of its own. With the
# pauses for that (relay.router.queue.pauses.ALONE) the fifth comes an hour after the first: a PACS
# whose database was away for a while has it again, and what it cannot take it has refused often
# enough to say so.
MAXIMUM_ALONE_ATTEMPTS = 5

# How often an object is tried alone during whose transfer the device aborts. More often, since a
# device that restarts aborts as well; with the same pauses, over some hours.
MAXIMUM_ALONE_ABORTS = 8


class Verdict(Enum):
    """What to do with an object after an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    """It is the device's or the network's trouble, or passes: again, for as long as it takes."""
    RETRY_ALONE = "retry alone"
    """It may be this object's trouble: a few times, with no other on the association."""
    FAILED = "failed"
    """It will never be taken as it is: a dead letter, for a person."""
    PAUSE = "pause"
    """Nothing of ours will be taken: the device pauses until a person resumes it."""


@attrs.frozen(slots=True)
class Judgement:
    """A verdict, and why in words for people: without an object's name, without patient data.

    `attempts` is how many times in all RETRY_ALONE is worth it; 0: the verdict has no such limit.
    """

    verdict: Verdict
    reason: str
    attempts: int = 0

    def after(self, attempts: int) -> "Judgement":
        """What it comes to once the object has been tried alone so many times, this one included.

        RETRY_ALONE becomes FAILED; all others stay what they are.
        """
        if self.verdict is not Verdict.RETRY_ALONE or attempts < self.attempts:
            return self
        return Judgement(Verdict.FAILED, f"tried alone {attempts} times; {self.reason}")


@attrs.frozen(slots=True)
class _Row:
    verdict: Verdict
    name: str  # the standard's
    words: str


_FIRST_DUPLICATE = _Row(
    Verdict.FAILED,
    "duplicate SOP instance",
    "the device already has an object of this name, and not from Relay: a person has to compare",
)
_LATER_DUPLICATE = _Row(
    Verdict.DELIVERED, "duplicate SOP instance", "the device has it from an earlier attempt"
)

_ALONE = "it is tried again a few times, alone"

_EXACT: Mapping[int, _Row] = MappingProxyType(
    {
        Status.SUCCESS: _Row(Verdict.DELIVERED, "success", "stored"),
        # PS3.7 §C.4, warnings
        Status.REQUESTED_OPTIONAL_ATTRIBUTES_NOT_SUPPORTED: _Row(
            Verdict.DELIVERED, "requested optional attributes are not supported", "stored"
        ),
        Status.ATTRIBUTE_LIST_ERROR: _Row(
            Verdict.DELIVERED, "attribute list error", "stored, but not every attribute"
        ),
        Status.ATTRIBUTE_VALUE_OUT_OF_RANGE: _Row(
            Verdict.DELIVERED, "attribute value out of range", "stored"
        ),
        # PS3.4 Table B.2-1, warnings
        0xB000: _Row(
            Verdict.DELIVERED, "coercion of data elements", "stored, with values that it changed"
        ),
        0xB006: _Row(
            Verdict.DELIVERED, "elements discarded", "stored, without elements that it left out"
        ),
        0xB007: _Row(
            Verdict.DELIVERED,
            "data set does not match SOP class",
            "stored, though it does not like the data set",
        ),
        # PS3.7 §C.5, failures: those that say whose trouble it is
        Status.PROCESSING_FAILURE: _Row(Verdict.RETRY_ALONE, "processing failure", _ALONE),
        Status.INVALID_OBJECT_INSTANCE: _Row(
            Verdict.FAILED, "invalid object instance", "the device refuses its SOP Instance UID"
        ),
        Status.SOP_CLASS_NOT_SUPPORTED: _Row(
            Verdict.FAILED,
            "SOP class not supported",
            "the device does not take this kind of object",
        ),
        Status.NOT_AUTHORIZED: _Row(
            Verdict.PAUSE,
            "not authorized",
            "the device takes nothing from this calling AE title: allow it there",
        ),
        # The one of Annex C's that means what A7xx does.
        Status.RESOURCE_LIMITATION: _Row(
            Verdict.RETRY, "resource limitation", "the device has no room for it now"
        ),
        # ... and those that name what is wrong without saying whether it stays so.
        0x0105: _Row(Verdict.RETRY_ALONE, "no such attribute", _ALONE),
        0x0106: _Row(Verdict.RETRY_ALONE, "invalid attribute value", _ALONE),
        0x0112: _Row(Verdict.RETRY_ALONE, "no such SOP instance", _ALONE),
        0x0113: _Row(Verdict.RETRY_ALONE, "no such event type", _ALONE),
        0x0114: _Row(Verdict.RETRY_ALONE, "no such argument", _ALONE),
        0x0115: _Row(Verdict.RETRY_ALONE, "invalid argument value", _ALONE),
        0x0118: _Row(Verdict.RETRY_ALONE, "no such SOP class", _ALONE),
        0x0119: _Row(Verdict.RETRY_ALONE, "class-instance conflict", _ALONE),
        0x0120: _Row(Verdict.RETRY_ALONE, "missing attribute", _ALONE),
        0x0121: _Row(Verdict.RETRY_ALONE, "missing attribute value", _ALONE),
        0x0123: _Row(Verdict.RETRY_ALONE, "no such action type", _ALONE),
        0x0210: _Row(Verdict.RETRY_ALONE, "duplicate invocation", _ALONE),
        Status.UNRECOGNIZED_OPERATION: _Row(Verdict.RETRY_ALONE, "unrecognized operation", _ALONE),
        0x0212: _Row(Verdict.RETRY_ALONE, "mistyped argument", _ALONE),
        # PS3.7 §C.2, §C.3: no answers to a C-STORE
        Status.CANCEL: _Row(Verdict.RETRY_ALONE, "cancel", _ALONE),
        Status.PENDING: _Row(Verdict.RETRY_ALONE, "pending", _ALONE),
        Status.PENDING_WITHOUT_OPTIONAL_KEYS: _Row(Verdict.RETRY_ALONE, "pending", _ALONE),
    }
)

# By the first digits, where _EXACT has no row; the longest prefix first.
_RANGES: tuple[tuple[int, int, _Row], ...] = (
    # PS3.4 Table B.2-1
    (
        0xA7,
        8,
        _Row(Verdict.RETRY, "refused: out of resources", "the device has no room for it now"),
    ),
    (
        0xA9,
        8,
        _Row(
            Verdict.FAILED,
            "data set does not match SOP class",
            "the device refuses what the object holds",
        ),
    ),
    (0xC, 4, _Row(Verdict.RETRY_ALONE, "cannot understand", _ALONE)),
    # PS3.7 §C.4
    (0xB, 4, _Row(Verdict.DELIVERED, "warning", "stored, with a warning of the device's own")),
)

_UNKNOWN = _Row(Verdict.RETRY_ALONE, "not a status that DICOM knows for storage", _ALONE)


def judge(status: int, *, attempted_before: bool) -> Judgement:
    """What follows from the Status (0000,0900) of a device's C-STORE-RSP, 0 to FFFF.

    `attempted_before`: this object was sent to this device before, in an attempt whose answer we do
    not have. Only then does 0111 mean that the device has it from us.
    """
    row = _row(status, attempted_before)
    attempts = MAXIMUM_ALONE_ATTEMPTS if row.verdict is Verdict.RETRY_ALONE else 0
    return Judgement(row.verdict, f"{status:04X}, {row.name}: {row.words}", attempts)


def _row(status: int, attempted_before: bool) -> _Row:
    if status == Status.DUPLICATE_SOP_INSTANCE:
        return _LATER_DUPLICATE if attempted_before else _FIRST_DUPLICATE
    if (exact := _EXACT.get(status)) is not None:
        return exact
    for prefix, bits, row in _RANGES:
        if status >> (16 - bits) == prefix:
            return row
    assert not is_warning(status), "each warning has its row"
    return _UNKNOWN


# Who can mend what a device rejects for good.
_AT_THE_DEVICE = "the far hospital has to mend that at its device"
_TO_MEND = {
    CALLED_AE_TITLE_NOT_RECOGNIZED: "the device's own AE title is another than the far hospital's"
    " Router has for it: its entry of the device has to be mended there",
    CALLING_AE_TITLE_NOT_RECOGNIZED: "the device does not know the calling AE title: the far"
    " hospital has to enter it there",
}


def judge_rejection(result: int, source: int, reason: int) -> Judgement:
    """What follows from an A-ASSOCIATE-RJ (PS3.8 Table 9-21), the device's or its Router's.

    It is about everything that waits for the device, not about one object.
    """
    rejection = AAssociateRJ(result, source, reason)
    words = f"the association was {in_words(rejection)}"
    if result == PERMANENT:
        return Judgement(Verdict.PAUSE, f"{words}; {_TO_MEND.get(rejection, _AT_THE_DEVICE)}")
    return Judgement(Verdict.RETRY, words)


def judge_abort() -> Judgement:
    """What follows for an object during whose transfer the device aborts, or before its answer.

    It may be what the device stumbled over, and must not be the first of the next association, and
    the next, for ever.
    """
    return Judgement(
        Verdict.RETRY_ALONE,
        f"the device aborted while it was sent this object: {_ALONE}",
        MAXIMUM_ALONE_ABORTS,
    )
