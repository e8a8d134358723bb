"""The row of an object that has come whole."""

import pytest

from relay.dicom.negotiation import AcceptedContext
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from relay.router.queue.keeping import item_of, study_of
from relay.spool.items import State
from relay.spool.segments import StoredObject
from tests.router.fakes import CT, IMPLICIT, store_rq
from tests.router.queue.queues import batch_of

IMPLICIT_STUDY = b"\x20\x00\x0d\x00\x06\x00\x00\x001.2.3\x00"
EXPLICIT_STUDY = b"\x20\x00\x0d\x00UI\x06\x001.2.3\x00"


def test_an_item_has_what_its_file_and_its_command_say() -> None:
    stored = StoredObject(
        item=b"i" * 16,
        folder=3,
        length=14,
        size=30,
        digest=b"h" * 32,
        key=b"key",
        key_name=b"name",
        prefix=IMPLICIT_STUDY,
    )
    context = AcceptedContext(1, CT, IMPLICIT)
    item = item_of(batch_of(), context, store_rq(7), stored, accepted=12.0)
    assert (item.id, item.folder, item.length, item.size) == (b"i" * 16, 3, 14, 30)
    assert (item.state, item.called, item.accepted) == (State.WAITING, "PACS", 12.0)
    assert (item.pair, item.sop_instance, item.study) == ((CT, IMPLICIT), "1.2.3", "1.2.3")
    assert item.command == store_rq(7).encode()
    assert not item.attempted


@pytest.mark.parametrize(
    ("prefix", "syntax", "study"),
    [
        (IMPLICIT_STUDY, IMPLICIT, "1.2.3"),
        (EXPLICIT_STUDY, EXPLICIT_VR_LITTLE_ENDIAN, "1.2.3"),
        (EXPLICIT_STUDY, "1.2.3.4.5", "1.2.3"),
        (EXPLICIT_STUDY, "1.2.840.10008.1.2.1.99", ""),  # deflated
        (b"", IMPLICIT, ""),
        (IMPLICIT_STUDY[:10], IMPLICIT, ""),
        (b"\xff" * 100, IMPLICIT, ""),
        (b"\x20\x00\x0d\x00\x06\x00\x00\x00study\x00", IMPLICIT, ""),
    ],
)
def test_the_study_is_read_where_it_can_be(prefix: bytes, syntax: str, study: str) -> None:
    assert study_of(prefix, syntax) == study
