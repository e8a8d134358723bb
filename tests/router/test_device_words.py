"""Why a device does not answer, in words; what of it needs a device is tested by who calls one."""

import pytest

from relay.errors import AssociationAborted, AssociationRejected
from relay.router import device_words
from relay.router.device_words import Own
from relay.router.devices import Device

PACS = Device("PACS", "192.0.2.1", 104)


def test_the_cause_is_found_behind_what_wraps_it() -> None:
    refused = ConnectionRefusedError(111, "refused")
    error = AssociationAborted(2, 0, "x")
    error.__cause__ = OSError("all failed")
    error.__cause__.__cause__ = ExceptionGroup("several", [refused])
    assert device_words.first(error) is refused
    assert "nothing listens on port 104" in device_words.no_connection(PACS, error)


@pytest.mark.parametrize(
    ("own", "entry"),
    [
        (Own("NORTH", (104, 2762)), "AE title NORTH, this machine's address, port 104, 2762;"),
        (Own("NORTH"), "AE title NORTH, this machine's address;"),
    ],
)
def test_what_is_to_be_entered_at_a_device_that_does_not_know_us(own: Own, entry: str) -> None:
    error = AssociationRejected(1, 1, 3, "calling AE title not recognized")
    assert entry in device_words.rejected(PACS, own, error)


async def test_web_pages_are_told_from_a_device() -> None:
    error = AssociationAborted(2, 0, "it answers in HTTP")
    words = await device_words.no_association(PACS, Own("NORTH"), error)
    assert "port 104 is that of web pages there" in words
