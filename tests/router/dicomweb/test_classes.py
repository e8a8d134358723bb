"""Which SOP classes are proposed: what devices say, what was seen, and in which order."""

from pathlib import Path

import pytest

from relay.dicom.dimse import Status
from relay.errors import Refused
from relay.router.dicomweb.classes import Held, KnownClasses, Seen, contexts, held_of
from relay.router.federation.identifiers import Level
from relay.router.federation.targets import Target
from tests.router.dicomweb.objects_made import SR, plain, report
from tests.router.federation.archives import CT, Archive, site

EXPLICIT, IMPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50"
STUDY = Target(level=Level.STUDY, studies=("1.2",))


async def test_devices_say_which_there_are(tmp_path: Path) -> None:
    archives = {
        "A": Archive([plain("1.2", "1.2.1", "1.2.1.1")]),
        "B": Archive([report("1.2", "1.2.2", "1.2.2.1")]),
    }
    known = KnownClasses()
    async with site(tmp_path, archives) as made:
        found = await held_of(made.federation, made.caller, STUDY, known)
        instances = {"1.2.1.1": "1.2.1", "1.2.2.1": "1.2.2"}
        assert found == Held(frozenset({CT, SR}), instances, frozenset("AB"))
        assert known.of("1.2.1") == Seen(frozenset({CT}), frozenset("A"))
        queries = [list(archive.queries) for archive in archives.values()]
        one = Target(level=Level.IMAGE, studies=("1.2",), series=("1.2.1",), instances=("1.2.1.9",))
        seen = await held_of(made.federation, made.caller, one, known)
        assert seen == Held(frozenset({CT}), {"1.2.1.9": "1.2.1"}, frozenset("A"))
        # ... and it was not asked again.
        assert queries == [archive.queries for archive in archives.values()]


async def test_what_nobody_has_is_not_found(tmp_path: Path) -> None:
    async with site(tmp_path, {"A": Archive([])}) as made:
        with pytest.raises(Refused) as refused:
            await held_of(made.federation, made.caller, STUDY, KnownClasses())
        assert refused.value.status == 404


async def test_what_came_to_another_device_is_found_there(tmp_path: Path) -> None:
    """Though it is remembered that A holds all that there is of the study."""
    one = Target(level=Level.IMAGE, studies=("1.2",), series=("1.2.2",), instances=("1.2.2.1",))
    known, late = KnownClasses(), Archive([])
    archives = {"A": Archive([plain("1.2", "1.2.1", "1.2.1.1")]), "B": late}
    async with site(tmp_path, archives) as made:
        assert (await held_of(made.federation, made.caller, STUDY, known)).holders == {"A"}
        late.held = [report("1.2", "1.2.2", "1.2.2.1")]
        found = await held_of(made.federation, made.caller, one, known)
        assert found == Held(frozenset({SR}), {"1.2.2.1": "1.2.2"}, frozenset("AB"))
        nobody = Target(level=Level.SERIES, studies=("1.2",), series=("1.2.9",))
        with pytest.raises(Refused, match="no device has it"):
            await held_of(made.federation, made.caller, nobody, known)


async def test_what_a_device_did_not_say_is_not_said_to_be_missing(tmp_path: Path) -> None:
    archive = Archive([plain("1.2", "1.2.1", "1.2.1.1")], find_status=Status.OUT_OF_RESOURCES)
    async with site(tmp_path, {"A": archive}) as made:
        with pytest.raises(Refused, match="A: its C-FIND ends with status A700H") as refused:
            await held_of(made.federation, made.caller, STUDY, KnownClasses())
        assert refused.value.status == 503


def test_of_many_series_the_last_seen_are_known() -> None:
    known = KnownClasses(maximum=2)
    for series in ("1", "2", "1", "3"):
        known.note(series, CT, "A")
    assert [known.of(series) is not None for series in ("1", "2", "3")] == [True, False, True]
    known.note("1", SR, "B")
    assert known.of("1") == Seen(frozenset({CT, SR}), frozenset("AB"))
    known.note("", CT, "A")
    known.note("4", "", "A")
    assert known.of("4") is None
    known.forget("1")
    assert known.of("1") is None


def test_each_pair_is_proposed_alone_and_uncompressed_ones_first() -> None:
    assert contexts([SR, CT], (EXPLICIT, IMPLICIT, JPEG)) == [
        (CT, (EXPLICIT,)),
        (SR, (EXPLICIT,)),
        (CT, (IMPLICIT,)),
        (SR, (IMPLICIT,)),
        (CT, (JPEG,)),
        (SR, (JPEG,)),
    ]


def test_where_nothing_is_known_everything_is_proposed() -> None:
    proposed = contexts([], (EXPLICIT, JPEG))
    assert (CT, (EXPLICIT, JPEG)) in proposed
    assert len(proposed) > 100
