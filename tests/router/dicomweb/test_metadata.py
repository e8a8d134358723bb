"""Metadata of objects as they come: in order, each once, and what cannot be read is refused."""

import json

import attrs
import pytest

from relay.dicom.dimse import Status
from relay.dicom.elements import Encoding
from relay.errors import Refused
from relay.router.dicomweb import metadata
from relay.router.dicomweb.classes import KnownClasses, Seen
from relay.router.dicomweb.metadata import MetadataSink, scan
from relay.router.dicomweb.scanning import Scanner
from tests.router.dicomweb.fakes import Sent, give
from tests.router.dicomweb.objects_made import plain, report
from tests.router.federation.archives import CT


def sink_of(sent: Sent) -> MetadataSink:
    return MetadataSink(
        sent.answer,
        "application/dicom+json",
        [],
        lambda study, series, instance: f"/{study}/{series}/{instance}",
        KnownClasses(),
    )


@pytest.mark.parametrize("large", [0, 10**6])
async def test_objects_become_one_array(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread, where they are large."""
    monkeypatch.setattr(metadata, "LARGE", large)
    sent = Sent()
    sink = sink_of(sent)
    image, text = plain("1.2", "1.2.1", "1.2.1.1"), report("1.2", "1.2.2", "1.2.2.1")
    for one in (image, text, image):
        assert await give(sink, one, size=50) == Status.SUCCESS
    await sink.end()
    first, second = json.loads(sent.body)
    assert first["7FE00010"]["BulkDataURI"] == "/1.2/1.2.1/1.2.1.1/bulkdata/7FE00010"
    assert second["00080018"]["Value"] == ["1.2.2.1"]
    assert sink.known.of("1.2.1") == Seen(frozenset({CT}), frozenset("A"))
    assert sent.content_type == "application/dicom+json"


async def test_what_is_lost_and_comes_again_stands_there_once() -> None:
    sent = Sent()
    sink = sink_of(sent)
    one = plain("1.2", "1.2.1", "1.2.1.1")
    await give(sink, one, cut=40)
    assert not sent.messages
    await give(sink, one)
    await sink.end()
    assert len(json.loads(sent.body)) == 1


async def test_what_is_deflated_is_not_taken() -> None:
    one = attrs.evolve(plain("1.2", "1", "1.2.3"), transfer_syntax="1.2.840.10008.1.2.1.99")
    assert await give(sink_of(Sent()), one) == Status.SOP_CLASS_NOT_SUPPORTED


async def test_what_cannot_be_read_is_refused() -> None:
    one = attrs.evolve(plain("1.2", "1", "1.2.3"), data=b"Doe^John " * 100)
    with pytest.raises(Refused) as refused:
        await give(sink_of(Sent()), one)
    assert refused.value.status == 502
    assert "Doe" not in str(refused.value)
    twice = plain("1.2", "1", "1.2.3").data[:30]
    one = attrs.evolve(one, data=twice + twice)
    with pytest.raises(Refused):
        await give(sink_of(Sent()), one)


def test_a_head_that_is_too_large_is_refused() -> None:
    one = plain("1.2", "1", "1.2.3")
    with pytest.raises(Refused) as refused:
        scan(Scanner(Encoding(), maximum=10), one.data)
    assert refused.value.status == 413
