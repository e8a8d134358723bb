"""Whole objects: DICOM files around what comes, each once, and nothing that is not accepted."""

import pytest

from relay.dicom.dimse import Status
from relay.router.dicomweb import media, part10
from relay.router.dicomweb.objects import ObjectSink
from relay.router.dicomweb.part10 import Meta
from tests.router.dicomweb.fakes import Sent, give
from tests.router.dicomweb.objects_made import EXPLICIT, jpeg, plain

ANYTHING = media.objects(media.parse_accept("*/*"))
ONE = plain("1.2", "1.2.1", "1.2.1.1")


@pytest.mark.parametrize("size", [1, 100, 100_000])
async def test_the_data_set_is_not_touched(size: int) -> None:
    assert ANYTHING is not None
    sent = Sent()
    sink = ObjectSink(sent.answer, ANYTHING, [], alone=True)
    assert await give(sink, ONE, size=size) == Status.SUCCESS
    await sink.end()
    file = part10.write(Meta(ONE.sop_class, ONE.uid, EXPLICIT))
    assert sent.body == file + ONE.data
    assert sent.content_type == f"application/dicom; transfer-syntax={EXPLICIT}"
    assert sent.ended


async def test_each_object_is_sent_once() -> None:
    assert ANYTHING is not None
    sent = Sent()
    sink = ObjectSink(sent.answer, ANYTHING, [])
    for _ in range(2):
        assert await give(sink, ONE) == Status.SUCCESS
    await sink.end()
    assert sent.body.count(b"DICM") == 1
    assert not sink.broken


async def test_what_is_not_accepted_is_not_sent() -> None:
    accepted = media.objects(media.parse_accept('multipart/related; type="application/dicom"'))
    assert accepted is not None
    sent = Sent()
    sink = ObjectSink(sent.answer, accepted, [])
    assert await give(sink, jpeg("1.2", "1.2.1", "1.2.1.1")) == Status.SOP_CLASS_NOT_SUPPORTED
    assert not sent.messages


async def test_what_was_begun_and_is_lost_is_broken() -> None:
    assert ANYTHING is not None
    sent = Sent()
    sink = ObjectSink(sent.answer, ANYTHING, [])
    await give(sink, ONE, cut=20)
    assert sink.broken
    assert not sent.ended
