"""What kind of cause a call was refused for, so that a page can offer what mends it.

The words of a refusal (relay.router.refusals) are for people and say all; this is for whoever must
choose between a handful of remedies.
"""

import re
from enum import Enum

from relay.router import refusals


class Cause(Enum):
    """Why a call of this hospital did not come about, or not to its end."""

    NO_DEVICE = "no_device"
    """The calling AE title is no device of this Router."""
    OTHER_ADDRESS = "other_address"
    """The device calls from another address than its host's."""
    NOT_ENROLLED = "not_enrolled"
    NO_CONNECTION = "no_connection"
    NOT_PUBLISHED = "not_published"
    """No hospital publishes the called AE title."""
    NOT_GRANTED = "not_granted"
    """Its hospital has granted this one nothing of it, or not what was asked."""
    PEER_OFFLINE = "peer_offline"
    UNTRUSTED = "untrusted"
    """The other hospital has not verified this Router, or this one has not verified it."""
    DEVICE_BUSY = "device_busy"
    """The far device is switched off, or full."""
    DESTINATION = "destination"
    """A C-MOVE was refused for its Move Destination."""
    ABORTED = "aborted"
    OTHER = "other"


_FROM_ELSEWHERE = re.compile(r"calls from \S+, which is not its host")

# The first whose words are there is the cause.
_WORDS = (
    (refusals.NO_DEVICE, Cause.NO_DEVICE),
    (refusals.NOT_ENROLLED, Cause.NOT_ENROLLED),
    (refusals.NO_CONNECTION, Cause.NO_CONNECTION),
    (refusals.NOTHING_GRANTED, Cause.NOT_GRANTED),
    (refusals.NOT_PUBLISHED, Cause.NOT_PUBLISHED),
    (refusals.PEER_OFFLINE, Cause.PEER_OFFLINE),
    ("has not verified this Router", Cause.UNTRUSTED),
    ("whose contact was never verified", Cause.UNTRUSTED),
    (refusals.DEVICE_BUSY, Cause.DEVICE_BUSY),
)


def cause_of(why: str, destination: str = "") -> Cause:
    """The kind of cause that `why` tells; `destination`: the Move Destination it is about."""
    if destination:
        return Cause.DESTINATION
    if why.startswith(refusals.ABORTED):
        return Cause.ABORTED
    if _FROM_ELSEWHERE.search(why):
        return Cause.OTHER_ADDRESS
    return next((cause for words, cause in _WORDS if words in why), Cause.OTHER)
