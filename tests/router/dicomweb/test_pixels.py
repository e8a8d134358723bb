"""Frames and bulk data as they come: their order, what waits for it, and what is too much."""

import attrs
import pytest

from relay.dicom.dimse import Status
from relay.errors import Refused
from relay.router.dicomweb import media, pixels
from relay.router.dicomweb.pixels import BulkSink, EnoughError, FrameSink, bulk_path, frame_list
from tests.router.dicomweb.fakes import Sent, give
from tests.router.dicomweb.objects_made import STREAMS, jpeg, plain, report
from tests.router.federation.archives import Stored

ANYTHING = media.parse_accept("*/*")
ONE = plain("1.2", "1.2.1", "1.2.1.1", frames=4)
FRAMES = [bytes(range(at, at + 6)) for at in range(0, 24, 6)]


def numbers(sent: Sent) -> list[int]:
    """The first byte of each part."""
    boundary = sent.content_type.partition("boundary=")[2].encode()
    found = sent.body.split(b"--" + boundary)[1:-1]
    return [part.partition(b"\r\n\r\n")[2][0] for part in found]


async def frames_of(one: Stored, wanted: tuple[int, ...], size: int = 7) -> Sent:
    sent = Sent()
    sink = FrameSink(sent.answer, ANYTHING, [], wanted)
    assert await give(sink, one, size=size) == Status.SUCCESS
    assert sink.whole
    assert sent.ended
    return sent


@pytest.mark.parametrize("size", [1, 5, 6, 7, 1000])
@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 3, 2, 1), (2, 4, 1), (3, 1, 4, 2)])
async def test_frames_come_in_the_order_in_which_they_were_asked_for(
    order: tuple[int, ...], size: int
) -> None:
    sent = await frames_of(ONE, order, size)
    assert numbers(sent) == [6 * (number - 1) for number in order]
    for number in order:
        assert b"\r\n\r\n" + FRAMES[number - 1] + b"\r\n--" in sent.body


async def test_all_pixel_data_is_one_value_where_it_is_uncompressed() -> None:
    assert b"\r\n\r\n" + b"".join(FRAMES) + b"\r\n--" in (await frames_of(ONE, ())).body
    compressed = await frames_of(jpeg("1.2", "1.2.1", "1.2.1.1"), ())
    assert numbers(compressed) == [0xFF] * len(STREAMS)


@pytest.mark.parametrize("size", [1, 50, 1000])
async def test_compressed_ones_too(size: int) -> None:
    sent = await frames_of(jpeg("1.2", "1.2.1", "1.2.1.1"), (3, 1), size)
    at = [sent.body.index(STREAMS[number]) for number in (2, 0)]
    assert at == sorted(at)
    assert STREAMS[1] not in sent.body


@pytest.mark.parametrize("kind", ["frames", "bulk"])
async def test_nothing_is_taken_of_others_nor_of_one_that_comes_again(kind: str) -> None:
    """There are archives that send all of a series."""
    sent, wanted = Sent(), ["1.2.1.1"]
    sink: FrameSink | BulkSink = FrameSink(sent.answer, ANYTHING, [], (1,), wanted=wanted)
    if kind == "bulk":
        sink = BulkSink(sent.answer, (0x7FE0_0010,), True, [], wanted=wanted)
    for one in (plain("1.2", "1.2.1", "1.2.1.2"), ONE, ONE):
        assert await give(sink, one) == Status.SUCCESS
    assert sink.sent == set(wanted)
    assert sent.body.count(FRAMES[0]) == 1


async def test_what_waits_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAXIMUM_WAITING", 6)
    sent = Sent()
    await frames_of(ONE, (2, 1))
    with pytest.raises(Refused, match="in another order") as refused:
        await give(FrameSink(sent.answer, ANYTHING, [], (3, 2, 1)), ONE)
    assert refused.value.status == 413


async def test_of_what_nobody_asked_for_not_much_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pixels, "MAXIMUM_DRAINED", 64)
    sent = Sent()
    sink = FrameSink(sent.answer, ANYTHING, [], (1,))
    with pytest.raises(EnoughError):
        await give(sink, plain("1.2", "1", "1.1", frames=100))
    assert sink.whole
    assert sent.ended


async def test_what_has_no_frames_is_taken_and_has_none() -> None:
    sent = Sent()
    sink = FrameSink(sent.answer, ANYTHING, [], (1,))
    assert await give(sink, report("1.2", "1.2.1", "1.2.1.1")) == Status.SUCCESS
    assert not sink.whole
    assert not sink.found
    assert not sent.messages


async def test_pixel_data_that_is_too_short_is_said_by_its_status() -> None:
    sent = Sent()
    sink = FrameSink(sent.answer, ANYTHING, [], (4,))
    short = plain("1.2", "1.2.1", "1.2.1.1", frames=3)
    data = short.data.replace(b"IS\x02\x003 ", b"IS\x02\x004 ")
    assert data != short.data
    assert await give(sink, attrs.evolve(short, data=data)) == Status.PROCESSING_FAILURE
    assert not sent.messages


async def test_frames_that_are_lost_are_not_whole() -> None:
    sent = Sent()
    sink = FrameSink(sent.answer, ANYTHING, [], (1, 4))
    await give(sink, ONE, cut=len(ONE.data) - 3)
    assert not sink.whole
    assert not sent.ended
    with pytest.raises(Refused, match="another device"):
        await give(sink, ONE)


@pytest.mark.parametrize("text", ["0", "1,1", "", "a", "1;2", "1,,2", "99999999999"])
def test_what_is_no_list_of_frames(text: str) -> None:
    with pytest.raises(Refused) as refused:
        frame_list(text)
    assert refused.value.status == 400


def test_a_list_of_frames() -> None:
    assert frame_list("3,1") == (3, 1)


def test_a_path_of_bulk_data() -> None:
    assert bulk_path("7FE00010") == (0x7FE0_0010,)
    assert bulk_path("54000100/0/54001010") == (0x5400_0100, 0, 0x5400_1010)
    for wrong in ("", "PixelData", "54000100/0", "54000100/x/54001010", "/".join(["1"] * 33)):
        with pytest.raises(Refused):
            bulk_path(wrong)


@pytest.mark.parametrize("alone", [True, False])
async def test_bulk_data_of_the_top_pass_by_and_others_are_picked(alone: bool) -> None:
    sent = Sent()
    sink = BulkSink(sent.answer, (0x7FE0_0010,), alone, [])
    assert await give(sink, ONE) == Status.SUCCESS
    assert (sent.body == b"".join(FRAMES)) == alone
    assert b"".join(FRAMES) in sent.body
    sent = Sent()
    sink = BulkSink(sent.answer, (0x0040_A730, 0, 0x0040_A160), alone, [])
    await give(sink, report("1.2", "1.2.1", "1.2.1.1"))
    assert b"nothing to be seen" in sent.body
    assert (sink.whole, sent.ended) == (True, True)


@pytest.mark.parametrize("path", [(0x0042_0011,), (0x0040_A730, 1, 0x0040_A160)])
async def test_bulk_data_that_is_not_there(path: tuple[int, ...]) -> None:
    with pytest.raises(Refused) as refused:
        await give(BulkSink(Sent().answer, path, True, []), report("1.2", "1.2.1", "1.2.1.1"))
    assert refused.value.status == 404
