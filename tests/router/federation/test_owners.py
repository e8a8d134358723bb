from pathlib import Path

import attrs
import pytest
import trio

from relay.errors import Outcome, SourceFailed
from relay.router.federation import owners
from relay.router.federation.identifiers import Level, Model
from relay.router.federation.owners import holdings_of, owners_of
from relay.router.federation.sources import Source
from relay.router.federation.targets import Target
from tests.router.federation.archives import Archive, Site, series_of, site

STUDY = Target(level=Level.STUDY, studies=("1.2",))


def titles(held: dict[str, tuple[Source, ...]]) -> dict[str, list[str]]:
    return {study: [source.title for source in sources] for study, sources in held.items()}


def source_of(here: Site, title: str) -> Source:
    return next(s for s in here.federation.sources.of(here.caller) if s.title == title)


async def test_all_are_asked_once(tmp_path: Path) -> None:
    a = Archive([*series_of("1.2", 1, 2), *series_of("1.3", 1, 1)])
    b = Archive(series_of("1.3", 2, 2))
    with trio.fail_after(20):
        async with site(tmp_path, {"B": b, "A": a}) as here:
            troubles: dict[str, str] = {}
            for _ in range(2):
                held = await owners_of(
                    here.federation, here.caller, ["1.2", "1.3", "1.4"], troubles
                )
                assert titles(held) == {"1.2": ["A"], "1.3": ["A", "B"], "1.4": []}
            assert not troubles
    # What nobody has is not remembered, and is asked for again.
    assert a.queries == b.queries == ["STUDY", "STUDY"]


async def test_one_that_has_come_meanwhile_is_asked_too(tmp_path: Path) -> None:
    a, b = Archive(series_of("1.2", 1, 2)), Archive(series_of("1.2", 2, 2))
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a, "B": b}) as here:
            node, troubles = here.federation.node, dict[str, str]()
            later = node.devices.get("B")
            assert later is not None
            await node.put_device(attrs.evolve(later, federation=False))
            held = await owners_of(here.federation, here.caller, ["1.2"], troubles)
            assert titles(held) == {"1.2": ["A"]}
            await node.put_device(later)
            held = await owners_of(here.federation, here.caller, ["1.2"], troubles)
            assert titles(held) == {"1.2": ["A", "B"]}


async def test_one_that_fails_is_noted_and_others_are_not_taken_for_all(tmp_path: Path) -> None:
    a, b = Archive(series_of("1.2", 1, 2)), Archive([], find_status=0xA700)
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a, "B": b}) as here:
            for _ in range(2):
                troubles: dict[str, str] = {}
                held = await owners_of(here.federation, here.caller, ["1.2"], troubles)
                assert titles(held) == {"1.2": ["A"]}
                assert list(troubles) == ["B"]
    assert a.queries == ["STUDY"]  # that it has the study is known
    assert b.queries == ["STUDY", "STUDY"]


async def test_where_an_owner_is_known_the_others_have_not_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "OTHERS_WAIT", 0.3)
    a, b = Archive(series_of("1.2", 1, 2)), Archive([], mute=True)
    with trio.fail_after(10):
        async with site(tmp_path, {"A": a, "B": b}, wait=100) as here:
            here.federation.found.note(here.caller, "1.2", ["A"])
            troubles: dict[str, str] = {}
            held = await owners_of(here.federation, here.caller, ["1.2"], troubles)
    assert titles(held) == {"1.2": ["A"]}
    assert troubles == {"B": "no word of it within 0.3 s"}
    assert a.queries == []


async def test_an_owner_that_may_not_be_asked_any_more_is_none(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with site(tmp_path, {"A": Archive([])}) as here:
            here.federation.found.note(here.caller, "1.2", ["GONE"], whole=True)
            held = await owners_of(here.federation, here.caller, ["1.2"], {})
    assert titles(held) == {"1.2": []}


async def test_what_is_not_granted_is_no_trouble_and_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object) -> None:
        raise SourceFailed("not granted", Outcome.NOT_GRANTED)

    with trio.fail_after(10):
        async with site(tmp_path, {"A": Archive([])}) as here:
            noted: list[str] = []
            monkeypatch.setattr(owners, "open_source", refused)
            monkeypatch.setattr(
                here.federation.sources, "not_granted", lambda _, source: noted.append(source.title)
            )
            troubles: dict[str, str] = {}
            await owners_of(here.federation, here.caller, ["1.2"], troubles)
    assert not troubles
    assert noted == ["A"]


async def test_the_holdings_of_each_level(tmp_path: Path) -> None:
    held = [*series_of("1.2", 1, 3), *series_of("1.2", 2, 2, sop_class="1.9")]
    study = Target(level=Level.STUDY, studies=("1.2",))
    series = attrs.evolve(study, level=Level.SERIES, series=("1.2.2",))
    images = attrs.evolve(
        study, level=Level.IMAGE, series=("1.2.1",), instances=("1.2.1.3", "1.2.1.9")
    )
    with trio.fail_after(20):
        async with site(tmp_path, {"A": Archive([*held, *series_of("1.3", 1, 1)])}) as here:
            source = source_of(here, "A")
            for target, uids in (
                (study, {one.uid for one in held}),
                (series, {"1.2.2.1", "1.2.2.2"}),
                (images, {"1.2.1.3"}),
            ):
                found = await holdings_of(here.federation, here.caller, source, [target], 100)
                assert found == {
                    one.uid: (one.study, one.series, one.sop_class)
                    for one in held
                    if one.uid in uids
                }


async def test_more_than_is_planned_for_is_capped(tmp_path: Path) -> None:
    study = Target(level=Level.STUDY, studies=("1.2",))
    held = [*series_of("1.2", 1, 3), *series_of("1.2", 2, 3)]
    with trio.fail_after(20):
        async with site(tmp_path, {"A": Archive(held)}) as here:
            source = source_of(here, "A")
            assert len(await holdings_of(here.federation, here.caller, source, [study], 6)) == 6
            with pytest.raises(SourceFailed) as caught:
                await holdings_of(here.federation, here.caller, source, [study], 5)
    assert caught.value.outcome is Outcome.CAPPED


async def test_one_that_never_ends_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "_MAXIMUM_SERIES", 100)
    endless = Archive(series_of("1.2", 1, 2), endless=True)
    with trio.fail_after(20):
        async with site(tmp_path, {"A": endless}) as here:
            troubles: dict[str, str] = {}
            held = await owners_of(here.federation, here.caller, ["1.2"], troubles)
            assert titles(held) == {"1.2": []}
            assert "more than" in troubles["A"]
            with pytest.raises(SourceFailed, match="more than") as caught:
                await holdings_of(here.federation, here.caller, source_of(here, "A"), [STUDY], 100)
    assert caught.value.outcome is Outcome.CAPPED


async def test_nor_is_one_that_always_has_one_more_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "LONGEST_SURVEY", 0.3)
    slow = Archive(series_of("1.2", 1, 2), endless=True)
    with trio.fail_after(20):
        async with site(tmp_path, {"A": slow}) as here:
            source = source_of(here, "A")
            with pytest.raises(SourceFailed, match=r"within 0\.3 s") as caught:
                await holdings_of(here.federation, here.caller, source, [STUDY], 10**9)
    assert caught.value.outcome is Outcome.SLOW


async def test_what_was_not_asked_for_is_left_out(tmp_path: Path) -> None:
    heedless = Archive(
        [*series_of("1.2", 1, 3), *series_of("1.2", 2, 3), *series_of("1.3", 1, 1)], heedless=True
    )
    one = Target(
        level=Level.IMAGE, studies=("1.2",), series=("1.2.1",), instances=("1.2.1.1", "1.2.1.3")
    )
    with trio.fail_after(20):
        async with site(tmp_path, {"A": heedless}) as here:
            source = source_of(here, "A")
            held = await holdings_of(here.federation, here.caller, source, [one], 100)
            assert list(held) == ["1.2.1.1", "1.2.1.3"]
            held = await holdings_of(here.federation, here.caller, source, [STUDY], 100)
    assert {(study, series) for study, series, _ in held.values()} == {
        ("1.2", "1.2.1"),
        ("1.2", "1.2.2"),
    }
    assert len(held) == 6


async def test_one_that_takes_patient_root_only_is_asked_for_the_callers_patient(
    tmp_path: Path,
) -> None:
    """By the Study Root the others are, to whom a Patient ID is nothing."""
    held = series_of("1.2", 1, 2)
    a = Archive(held, models=(Model.PATIENT_ROOT,))
    b = Archive([*series_of("1.2", 2, 1, patient=b"OTHER")])
    whose = attrs.evolve(STUDY, patient=b"P1", character_set=b"ISO_IR 100")
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a, "B": b}) as here:
            troubles: dict[str, str] = {}
            found = await owners_of(
                here.federation, here.caller, ["1.2"], troubles, whose.patient_keys
            )
            assert (titles(found), troubles) == ({"1.2": ["A", "B"]}, {})
            source = source_of(here, "A")
            holdings = await holdings_of(here.federation, here.caller, source, [whose], 100)
            assert list(holdings) == [one.uid for one in held]
            of_another = attrs.evolve(whose, patient=b"P2")
            with pytest.raises(SourceFailed, match="not known"):
                await holdings_of(here.federation, here.caller, source, [of_another], 100)
            # Under this ID it has the study, and so all of it that there is.
            none = attrs.evolve(whose, level=Level.IMAGE, series=("1.2.1",), instances=("1.2.1.9",))
            assert not await holdings_of(here.federation, here.caller, source, [none], 100)
    assert {one.affected_sop_class_uid for one in a.requests} == {Model.PATIENT_ROOT.find}
    assert {one.affected_sop_class_uid for one in b.requests} == {Model.STUDY_ROOT.find}


@pytest.mark.parametrize(
    ("issuer", "believed"),
    [(b"H", True), (b"", False), (b"OTHER", False), (b"*", False), (b"H\\OTHER", False)],
)
async def test_that_such_a_one_has_nothing_is_believed_of_its_own_issuer_only(
    tmp_path: Path, issuer: bytes, believed: bool
) -> None:
    """Under another ID of the same patient it may hold a part."""
    a, b = Archive(series_of("1.2", 1, 2), models=(Model.PATIENT_ROOT,)), Archive([])
    b.held = series_of("1.2", 2, 1, patient=b"P7")
    whose = attrs.evolve(STUDY, patient=b"P7", issuer=issuer)
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a, "B": b}, issuers={"A": "H"}) as here:
            for _ in range(2):
                troubles: dict[str, str] = {}
                found = await owners_of(
                    here.federation, here.caller, ["1.2"], troubles, whose.patient_keys
                )
                assert titles(found) == {"1.2": ["B"]}
                assert list(troubles) == ([] if believed else ["A"])
            if believed:
                source = source_of(here, "A")
                assert not await holdings_of(here.federation, here.caller, source, [whose], 100)
    # That nobody else holds it is remembered only if it is known.
    assert a.queries == ["STUDY", "SERIES" if believed else "STUDY"]


async def test_what_it_has_under_the_id_is_found_beside_what_is_not_known(tmp_path: Path) -> None:
    held = [*series_of("1.2", 1, 1), *series_of("1.3", 1, 1, patient=b"P7")]
    a = Archive(held, models=(Model.PATIENT_ROOT,))
    whose = attrs.evolve(STUDY, patient=b"P1")
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a}) as here:
            troubles: dict[str, str] = {}
            found = await owners_of(
                here.federation, here.caller, ["1.2", "1.3"], troubles, whose.patient_keys
            )
    assert titles(found) == {"1.2": ["A"], "1.3": []}
    assert "not known whether it holds it" in troubles["A"]


@pytest.mark.parametrize("patient", [b"", b"P*", b"P1\\P2"])
async def test_without_one_it_is_not_asked_and_that_is_said(tmp_path: Path, patient: bytes) -> None:
    a = Archive(series_of("1.2", 1, 2), models=(Model.PATIENT_ROOT,))
    whose = attrs.evolve(STUDY, patient=patient)
    with trio.fail_after(20):
        async with site(tmp_path, {"A": a}) as here:
            troubles: dict[str, str] = {}
            await owners_of(here.federation, here.caller, ["1.2"], troubles, whose.patient_keys)
            assert troubles == {"A": "it takes Patient Root only, which needs one Patient ID"}
            with pytest.raises(SourceFailed) as caught:
                await holdings_of(here.federation, here.caller, source_of(here, "A"), [whose], 100)
    assert caught.value.outcome is Outcome.UNABLE
    assert not a.queries
