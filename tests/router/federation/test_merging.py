from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.router.federation.identifiers import Answered, Model, Query, parse, take_answer
from relay.router.federation.merging import OVERHEAD, Merger, unite
from relay.router.federation.settings import Merging
from relay.router.federation.sources import Description
from tests.router.federation.datasets import EXPLICIT, IMPLICIT, dataset, decoded, encoded

COUNTS = {"NumberOfStudyRelatedSeries": "", "NumberOfStudyRelatedInstances": ""}


def query(**values: Any) -> Query:
    made = dataset(QueryRetrieveLevel="STUDY", StudyInstanceUID="", PatientID="", **values)
    return parse(Model.STUDY_ROOT, encoded(made), EXPLICIT)


def answered(asked: Query, source: str = "ONE", **values: Any) -> Answered:
    data = encoded(dataset(**values))
    found = take_answer(asked, data, EXPLICIT, source, Description(), "FEDERATION")
    assert found is not None
    return found


ASKED = query(ModalitiesInStudy="", SOPClassesInStudy="", InstanceAvailability="", **COUNTS)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_unites_what_two_archives_have_of_a_study(syntax: str) -> None:
    first = dataset(
        SpecificCharacterSet="ISO_IR 100",
        PatientID="Jörg",
        StudyInstanceUID="1.2",
        ModalitiesInStudy=["MR", "CT"],
        InstanceAvailability="ONLINE",
        NumberOfStudyRelatedSeries="2",
        NumberOfStudyRelatedInstances="7",
    )
    second = dataset(
        SpecificCharacterSet="ISO_IR 192",
        PatientID="J",
        StudyInstanceUID="1.2",
        ModalitiesInStudy=["CT", "SR"],
        SOPClassesInStudy="1.2.840",
        InstanceAvailability="OFFLINE",
        NumberOfStudyRelatedInstances="7",
    )
    asked = attrs.evolve(ASKED, syntax=syntax)
    united = unite(asked, encoded(first, syntax), encoded(second, syntax))
    assert decoded(united, syntax) == dataset(
        SpecificCharacterSet="ISO_IR 100",
        PatientID="Jörg",
        StudyInstanceUID="1.2",
        ModalitiesInStudy=["CT", "MR", "SR"],
        SOPClassesInStudy="1.2.840",
        InstanceAvailability="ONLINE",
        NumberOfStudyRelatedSeries=None,
        NumberOfStudyRelatedInstances=None,
    )


def test_nothing_comes_in_that_nobody_asked_for() -> None:
    plain = query()
    second = encoded(dataset(StudyInstanceUID="1.2", ModalitiesInStudy="CT"))
    first = encoded(dataset(StudyInstanceUID="1.2"))
    assert unite(plain, first, second) == first


def test_merged_holds_all_until_the_end() -> None:
    merger = Merger(ASKED)
    for number in range(3):
        found = answered(ASKED, StudyInstanceUID=f"1.{number}", NumberOfStudyRelatedSeries="1")
        room = merger.room_for(found)
        before = merger.size
        assert merger.add(found, "ONE") is None
        assert before < merger.size <= before + room
    again = answered(ASKED, StudyInstanceUID="1.1", NumberOfStudyRelatedSeries="1")
    assert merger.add(again, "TWO", 1) is None
    finished = list(merger.finish())
    assert [one.key for one in finished] == [("1.0",), ("1.1",), ("1.2",)]
    counts = [decoded(one.encoded).NumberOfStudyRelatedSeries for one in finished]
    assert counts == [1, None, 1]
    assert merger.owners[("1.1",)] == ["ONE", "TWO"]
    assert merger.size == 0


def test_streamed_gives_the_first_of_each_at_once() -> None:
    merger = Merger(ASKED, Merging.STREAMED)
    found = answered(ASKED, StudyInstanceUID="1.1", NumberOfStudyRelatedSeries="1")
    assert merger.add(found, "ONE") is found
    assert merger.add(answered(ASKED, StudyInstanceUID="1.1"), "TWO") is None
    assert merger.owners == {("1.1",): ["ONE", "TWO"]}
    assert merger.size == OVERHEAD
    assert list(merger.finish()) == []
    assert merger.size == 0


def test_what_the_last_has_to_say_is_passed_on_at_once() -> None:
    """Nobody else can add to it any more: its own, and what was held of the same entity."""
    merger = Merger(ASKED)
    for uid in ("1.1", "1.2"):
        held = answered(ASKED, StudyInstanceUID=uid, ModalitiesInStudy="CT")
        assert merger.add(held, "ONE") is None
    for uid, united in (("1.2", ["CT", "MR"]), ("1.3", "MR")):
        found = answered(ASKED, StudyInstanceUID=uid, ModalitiesInStudy="MR")
        before, room = merger.size, merger.room_for(found, last=True)
        passed = merger.add(found, "TWO", 1, last=True)
        assert merger.size <= before + room
        assert passed is not None
        assert passed.key == (uid,)
        assert decoded(passed.encoded).ModalitiesInStudy == united
        assert merger.add(found, "TWO", 1, last=True) is None
    assert merger.owners == {("1.1",): ["ONE"], ("1.2",): ["ONE", "TWO"], ("1.3",): ["TWO"]}
    assert [one.key for one in merger.finish()] == [("1.1",)]
    assert merger.size == 0


def test_what_a_device_says_twice_counts_once() -> None:
    merger = Merger(ASKED)
    for _ in range(2):
        merger.add(answered(ASKED, StudyInstanceUID="1", NumberOfStudyRelatedSeries="3"), "ONE")
    (one,) = merger.finish()
    assert decoded(one.encoded).NumberOfStudyRelatedSeries == 3
    assert merger.owners == {("1",): ["ONE"]}


def test_patients_of_unknown_issuers_stay_apart() -> None:
    asked_for = dataset(QueryRetrieveLevel="PATIENT", PatientID="7")
    asked = parse(Model.PATIENT_ROOT, encoded(asked_for), EXPLICIT)
    merger = Merger(asked)
    for rank, source in enumerate(("ONE", "TWO")):
        merger.add(answered(asked, source, PatientID="7"), source, rank)
    assert len(list(merger.finish())) == 2


SAID = st.tuples(
    st.sampled_from(["ONE", "TWO", "THREE"]),
    st.sampled_from(["1.1", "1.2", "1.3"]),
    st.lists(st.sampled_from(["CT", "MR", "SR", "US"]), unique=True),
)


def merged(said: list[tuple[str, str, list[str]]]) -> dict[tuple[str, ...], bytes]:
    merger = Merger(ASKED)
    for source, uid, modalities in said:
        rank = ["ONE", "TWO", "THREE"].index(source)
        found = answered(
            ASKED, StudyInstanceUID=uid, PatientID=source, ModalitiesInStudy=sorted(modalities)
        )
        merger.add(found, source, rank)
    held = merger.size
    result = {one.key: one.encoded for one in merger.finish()}
    assert merger.size == 0
    assert held >= sum(map(len, result.values()))
    return result


@given(
    st.lists(SAID, unique_by=lambda one: one[:2]).flatmap(
        lambda said: st.tuples(st.just(said), st.permutations(said))
    )
)
def test_the_order_in_which_devices_answer_makes_no_difference(
    both: tuple[list[tuple[str, str, list[str]]], list[tuple[str, str, list[str]]]],
) -> None:
    one, other = map(merged, both)
    assert one == other
    for (uid,), encoded_answer in one.items():
        union = {m for _, said, modalities in both[0] if said == uid for m in modalities}
        found = decoded(encoded_answer).get("ModalitiesInStudy") or []
        assert {found} - {""} == union if isinstance(found, str) else set(found) == union


def test_damaged_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="ends in the middle"):
        unite(ASKED, b"\1\2\3", b"")
