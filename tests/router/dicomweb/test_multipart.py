"""Bodies of several parts, written here and read again in pieces of every size."""

import pytest

from relay.errors import Refused
from relay.router.dicomweb.media import parse_type
from relay.router.dicomweb.multipart import (
    MAXIMUM_HEADER,
    Event,
    PartBegun,
    PartEnded,
    Reader,
    Writer,
)

PARTS = [
    ("application/dicom", b"first\r\n--almost a boundary"),
    ("image/jpeg", b""),
    ("application/dicom; transfer-syntax=1.2", b"\r\n\r\n--" * 100),
]


def written() -> tuple[Writer, bytes]:
    writer = Writer("application/dicom")
    body = b"".join(writer.begin(kind) + data for kind, data in PARTS)
    return writer, body + writer.end()


def parts(events: list[Event]) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    ended = True
    for event in events:
        if isinstance(event, PartBegun):
            assert ended
            found.append((event.content_type, b""))
        elif isinstance(event, bytes):
            assert not ended
            found[-1] = (found[-1][0], found[-1][1] + event)
        ended = event is PartEnded.PART_ENDED
    return found


def read(boundary: str, body: bytes, size: int) -> tuple[list[Event], Reader]:
    reader = Reader(boundary)
    events: list[Event] = []
    for at in range(0, len(body), size):
        events += reader.feed(body[at : at + size])
    return events, reader


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_what_is_written_is_read(size: int) -> None:
    writer, body = written()
    kind, parameters = parse_type(writer.content_type)
    assert kind == "multipart/related"
    assert parameters == {"type": "application/dicom", "boundary": writer.boundary}
    events, reader = read(writer.boundary, b"a preamble\r\n" + body + b"an epilogue", size)
    assert parts(events) == PARTS
    assert reader.whole


def test_a_part_says_where_it_is_from() -> None:
    assert b"\r\nContent-Location: /a/b\r\n" in Writer("a/b").begin("a/b", "/a/b")


def test_a_body_that_is_cut_short_is_not_whole() -> None:
    writer, body = written()
    _, reader = read(writer.boundary, body[:-6], 16)
    assert not reader.whole


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_part_without_a_header(size: int) -> None:
    events, _ = read("x", b"--x\r\n\r\nabc\r\n--x--", size)
    assert parts(events) == [("", b"abc")]


@pytest.mark.parametrize(
    "body",
    [
        b"--x and more\r\n\r\n",
        b"--x\r\n" + b"A: " + b"a" * MAXIMUM_HEADER,
        b"--x" + b" " * MAXIMUM_HEADER,
    ],
    ids=["text behind a boundary", "an endless header", "an endless boundary"],
)
def test_what_is_no_multipart_body_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read("x", body, 1000)
    assert refused.value.status == 400


@pytest.mark.parametrize("boundary", ["", "x" * 71, "ä"])
def test_what_is_no_boundary_is_refused(boundary: str) -> None:
    with pytest.raises(Refused):
        Reader(boundary)


@pytest.mark.parametrize("size", [1, 100_000])
def test_what_begins_as_a_boundary_and_is_none_ends_no_part(size: int) -> None:
    """What stands before it must not be taken for the whole part."""
    reader, events = Reader("x"), list[Event]()
    body = b"--x\r\n\r\nabc\r\n--x-ray\r\ndef\r\n--x--"
    sound = body.index(b"-ray")
    for at in range(0, sound, size):
        events += reader.feed(body[at : min(at + size, sound)])
    with pytest.raises(Refused, match="more than a boundary"):
        reader.feed(body[sound:])
    assert PartEnded.PART_ENDED not in events
