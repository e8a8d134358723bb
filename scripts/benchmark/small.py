"""Objects of a few hundred bytes, by the thousand, and what sends them: Relay's own DICOM side."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import trio

from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from scripts.benchmark import work
from tests.faults.senders import Ledger, own_way
from tests.faults.specimens import Source, Specimen
from tests.images import Image
from tests.interop.peers import Address

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"

SENDERS = 4
WINDOW = 16  # operations that a sender proposes to have outstanding
GROUP = 1000  # objects of one association
STUDY = 100  # objects of one study


def _element(group: int, element: int, value: bytes) -> bytes:
    """A data element in Implicit VR Little Endian (PS3.5 §7.1.3), padded to even length."""
    value += b"\x00" * (len(value) % 2)
    tag = group.to_bytes(2, "little") + element.to_bytes(2, "little")
    return tag + len(value).to_bytes(4, "little") + value


def uid(*of: object) -> str:
    return f"2.25.{int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:16])}"


def small(number: int) -> Specimen:
    """Object `number`: a CT image's data set without an image."""
    study = uid("study", number // STUDY)
    image = Image(Path(), CT_IMAGE, "", IMPLICIT_VR_LITTLE_ENDIAN, 0)
    head = _element(0x0008, 0x0016, CT_IMAGE.encode())
    tail = (
        _element(0x0008, 0x0060, b"CT")
        + _element(0x0010, 0x0020, b"BENCHMARK")
        + _element(0x0020, 0x000D, study.encode())
        + _element(0x0020, 0x000E, f"{study}.1".encode())
        + _element(0x0020, 0x0013, str(number).encode())
        + _element(0x0020, 0x4000, b"an object without an image".ljust(100))
    )
    return Specimen(Source(image, head, tail), uid("instance", number))


async def send(target: Address, first: int, count: int) -> None:
    """Send objects from `first` on, from all senders at once."""
    groups = _groups(first, first + count)
    way = own_way(target, work.CALLING, window=WINDOW)

    async def sender() -> None:
        for group in groups:
            ledger = Ledger()
            await way([small(number) for number in group], ledger)
            if len(ledger.answered) != len(group):
                raise RuntimeError(f"not all accepted: {ledger.words()}")

    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(sender)


def _groups(first: int, end: int) -> Iterator[range]:
    """What goes over one association each; of few objects as many as there are senders."""
    size = max(1, min(GROUP, (end - first + SENDERS - 1) // SENDERS))
    for begin in range(first, end, size):
        yield range(begin, min(begin + size, end))
