from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from relay.dicom.dimse import Status
from relay.errors import Outcome
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.held import Held
from relay.router.federation.identifiers import Model, QueryRefused
from relay.router.federation.merging import OVERHEAD
from relay.router.federation.searching import GATHERED, Answer, Search, search
from relay.router.federation.settings import FederationSettings, Merging
from relay.signalling.messages import Granted
from tests.router.fakes import two_hospitals
from tests.router.federation.catalogues import Catalogue, asks, federated, study
from tests.router.federation.datasets import IMPLICIT, dataset, decoded

LIMIT = 20

ONE = study("1.1", PatientID="7", ModalitiesInStudy="CT")
BOTH_A = study("1.2", PatientID="7", ModalitiesInStudy="CT", NumberOfStudyRelatedInstances="3")
BOTH_B = study("1.2", PatientID="7", ModalitiesInStudy="SR", NumberOfStudyRelatedInstances="1")
TWO = study("1.3", PatientID="7", ModalitiesInStudy="MR")


def outcomes(found: Search) -> dict[str, Outcome]:
    return {said.source.title: said.outcome for said in found.said}


def uids(answers: list[Answer]) -> list[str]:
    return [str(decoded(answer.encoded).StudyInstanceUID) for answer in answers]


async def test_merged_is_one_answer_of_all(tmp_path: Path) -> None:
    a = Catalogue([ONE, BOTH_A])
    b = Catalogue([BOTH_B, TWO], speaks=IMPLICIT)
    query = asks(ModalitiesInStudy="", NumberOfStudyRelatedInstances="")
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": a, "B": b}) as (federation, caller):
            async with search(federation, caller, query) as found:
                answers = [answer async for answer in found]
                assert outcomes(found) == {"A": Outcome.COMPLETE, "B": Outcome.COMPLETE}
                assert found.incomplete == []
                assert found.count == 3
            owners = {
                uid: set(answer.owners) for uid, answer in zip(uids(answers), answers, strict=True)
            }
            assert owners == {"1.1": {"A"}, "1.2": {"A", "B"}, "1.3": {"B"}}
            (united,) = (d for a in answers if (d := decoded(a.encoded)).StudyInstanceUID == "1.2")
            assert united.ModalitiesInStudy == ["CT", "SR"]
            assert united.NumberOfStudyRelatedInstances is None
            assert united.RetrieveAETitle == "FEDERATION"
            assert federation.held.size == 0
            for uid, titles in owners.items():
                assert federation.found.owners(caller, uid).titles == titles
                assert not federation.found.owners(caller, uid).whole
    assert a.callings == b.callings == ["WS"]
    assert (a.released, b.released, a.dropped, b.dropped) == (1, 1, 0, 0)


async def test_merged_holds_back_until_the_last_has_answered(tmp_path: Path) -> None:
    a, b = Catalogue([ONE]), Catalogue([TWO], gate=trio.Event())
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": a, "B": b}) as (federation, caller),
            search(federation, caller, asks()) as found,
        ):
            while len(found.said) < 1:
                await trio.sleep(0.001)
            assert federation.held.size > 0
            with trio.move_on_after(0.05) as early:
                await found.some()
            assert early.cancelled_caught
            assert b.gate is not None
            b.gate.set()
            assert sorted(uids([answer async for answer in found])) == ["1.1", "1.3"]


async def test_merged_passes_on_what_the_last_has_to_say(tmp_path: Path) -> None:
    """Some at a time, and in one piece with what was held of the same."""
    many = [BOTH_B, *(study(f"2.{n}", PatientID="7") for n in range(GATHERED + 3))]
    a, b = Catalogue([ONE, BOTH_A]), Catalogue(many, gate=trio.Event(), silent_after=GATHERED + 2)
    query = asks(ModalitiesInStudy="", NumberOfStudyRelatedInstances="")
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": a, "B": b}) as (federation, caller),
            search(federation, caller, query) as found,
        ):
            while not found.said:
                await trio.sleep(0.001)
            held = federation.held.size
            assert b.gate is not None
            b.gate.set()
            first = await found.some()
            assert len(first) >= GATHERED
            assert first[0].owners == ("A", "B")
            united = decoded(first[0].encoded)
            assert united.ModalitiesInStudy == ["CT", "SR"]
            assert united.NumberOfStudyRelatedInstances is None
            assert all(answer.owners == ("B",) for answer in first[1:])
            await b.silent.wait()
            with trio.move_on_after(0.05) as early:
                await found.some()
            assert early.cancelled_caught  # two more have come, and wait for others
            assert federation.held.size < held + (GATHERED + 3) * OVERHEAD
            found.cancel()
            assert not await found.some()


async def test_streamed_passes_on_what_comes(tmp_path: Path) -> None:
    a, b = Catalogue([ONE, BOTH_A]), Catalogue([BOTH_B, TWO], gate=trio.Event())
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": a, "B": b}, answers=Merging.STREAMED) as (federation, caller),
            search(federation, caller, asks(NumberOfStudyRelatedInstances="")) as found,
        ):
            first = [await anext(found), await anext(found)]
            assert uids(first) == ["1.1", "1.2"]
            assert not found.over
            assert b.gate is not None
            b.gate.set()
            rest = [answer async for answer in found]
            assert uids(rest) == ["1.3"]
            assert found.over
            # The first answer, as it was.
            assert decoded(first[1].encoded).NumberOfStudyRelatedInstances == 3
            assert federation.found.owners(caller, "1.2").titles == {"A", "B"}


async def test_who_calls_chooses(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": Catalogue([ONE])}) as (federation, caller):
            async with search(federation, caller, asks(), merging=Merging.STREAMED) as found:
                assert uids([a async for a in found]) == ["1.1"]
            async with search(federation, caller, asks(), but=["A"]) as found:
                assert [a async for a in found] == []
                assert found.said == []


UNLIKE: dict[str, tuple[dict[str, Any], Outcome, str]] = {
    "fails": ({"status": 0xA700}, Outcome.REFUSED, "A700H"),
    "cancels by itself": ({"status": 0xFE00}, Outcome.REFUSED, "FE00H"),
    "is frozen": ({"frozen": True}, Outcome.SLOW, "within 0.5 s"),
    "takes no queries": ({"accepts": False}, Outcome.REFUSED, "does not take"),
    "is lost": ({"gone_after": 1}, Outcome.UNREACHABLE, ""),
    "falls silent": ({"silent_after": 1}, Outcome.SLOW, "no further answer within 0.5 s"),
    "says nothing": ({"silent_after": 0}, Outcome.SLOW, "within 0.5 s"),
    "sends rubbish": ({"raw": [b"\0"]}, Outcome.REFUSED, "cannot be read"),
    "has too much": ({"endless": True}, Outcome.CAPPED, "more than 3 answers"),
    "does not stop": (
        {"endless": True, "heeds_cancel": False},
        Outcome.CAPPED,
        "more than 3 answers",
    ),
}


@pytest.mark.parametrize("merging", Merging)
@pytest.mark.parametrize(("how", "outcome", "words"), UNLIKE.values(), ids=UNLIKE.keys())
async def test_one_device_that_fails_is_named_and_the_others_answer(
    tmp_path: Path,
    how: dict[str, Any],
    outcome: Outcome,
    words: str,
    merging: Merging,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.router.federation.site.CANCEL_WAIT", 0.2)
    a, b = Catalogue([ONE]), Catalogue([TWO], **how)
    with trio.fail_after(LIMIT):
        async with federated(
            tmp_path, {"A": a, "B": b}, site_wait=0.5, maximum_answers=3, answers=merging
        ) as (federation, caller):
            async with search(federation, caller, asks()) as found:
                answers = [answer async for answer in found]
                assert outcomes(found) == {"A": Outcome.COMPLETE, "B": outcome}
                (said,) = found.incomplete
                assert said.source.title == "B"
                assert words in said.words
                assert "1.1" in uids(answers)
            assert federation.held.size == 0
            assert federation.sources.of(caller)[1].title == "B"
    assert b.cancels == (outcome is Outcome.CAPPED)


async def test_exactly_as_many_as_are_taken_is_no_cap(tmp_path: Path) -> None:
    three = Catalogue([ONE, BOTH_A, TWO])
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": three}, maximum_answers=3) as (federation, caller),
            search(federation, caller, asks()) as found,
        ):
            assert len([answer async for answer in found]) == 3
            assert found.incomplete == []
        async with (
            federated(tmp_path / "b", {"A": three}) as (federation, caller),
            search(federation, caller, asks(), maximum=2) as found,
        ):
            assert len([answer async for answer in found]) == 2
            assert outcomes(found) == {"A": Outcome.CAPPED}


async def test_nobody_listens(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": Catalogue([ONE])}) as (federation, caller):
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]
            await listeners[0].aclose()
            device = federation.node.devices.get("A")
            assert device is not None
            await federation.node.put_device(attrs.evolve(device, port=port))
            async with search(federation, caller, asks()) as found:
                assert [answer async for answer in found] == []
                assert outcomes(found) == {"A": Outcome.UNREACHABLE}


async def test_memory_of_all_merged_searches_is_bounded(tmp_path: Path) -> None:
    many = [study(f"1.{n}", PatientID="7", StudyDescription="x" * 60) for n in range(100)]
    a, b = Catalogue(many), Catalogue([TWO], gate=trio.Event())
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": a, "B": b}) as (federation, caller):
            federation.held = Held(20_000)
            async with search(federation, caller, asks(StudyDescription="")) as found:
                while not found.said:
                    await trio.sleep(0.001)
                assert b.gate is not None
                b.gate.set()
                answers = [answer async for answer in found]
                assert 10 < len(answers) < 50
                assert outcomes(found)["A"] is Outcome.CAPPED
                assert "can hold now" in found.incomplete[0].words
            assert federation.held.size == 0
            assert a.cancels == 1
            # Left in the middle: what was held is free again.
            async with search(federation, caller, asks()) as found:
                await found.some()
            assert federation.held.size == 0


async def test_streamed_holds_devices_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.router.federation.searching.MAXIMUM_COMING", 4)
    many = [study(f"1.{n}", PatientID="7") for n in range(100)]
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": Catalogue(many)}, site_wait=0.2) as (federation, caller),
            search(federation, caller, asks(), merging=Merging.STREAMED) as found,
        ):
            await anext(found)
            await trio.sleep(0.5)  # longer than it may be silent: it is not its fault
            assert found.count < 15
            rest = [answer async for answer in found]
            assert len(rest) == 99
            assert outcomes(found) == {"A": Outcome.COMPLETE}


async def test_streamed_holds_no_more_bytes_than_it_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.router.federation.searching.MAXIMUM_COMING_BYTES", 200_000)
    many = [study(f"1.{n}", PatientID="7", StudyComments="x" * 60_000) for n in range(20)]
    query = asks(StudyComments="")
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": Catalogue(many)}) as (federation, caller),
            search(federation, caller, query, merging=Merging.STREAMED) as found,
        ):
            await anext(found)
            await trio.testing.wait_all_tasks_blocked(0.2)
            assert found.count < 10
            rest = [answer async for answer in found]
            assert len(rest) == 19
            assert outcomes(found) == {"A": Outcome.COMPLETE}


@pytest.mark.parametrize("merging", Merging)
async def test_cancel_ends_all(
    tmp_path: Path, merging: Merging, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough for who heeds it beside one that never stops.
    monkeypatch.setattr("relay.router.federation.site.CANCEL_WAIT", 3.0)
    heeding = Catalogue([ONE, TWO], silent_after=2)
    deaf = Catalogue([BOTH_A], silent_after=1, heeds_cancel=False)
    sending = Catalogue([ONE], endless=True, silent_after=None)
    done = Catalogue([TWO])
    sites = {"A": heeding, "B": deaf, "C": sending, "D": done}
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, sites, answers=merging, maximum_answers=10**6) as (
            federation,
            caller,
        ):
            async with search(federation, caller, asks()) as found:
                await heeding.silent.wait()
                await deaf.silent.wait()
                while "D" not in outcomes(found):
                    await trio.sleep(0.001)
                found.cancel()
                assert [answer async for answer in found] == []
                assert outcomes(found) == dict.fromkeys("ABC", Outcome.CANCELLED) | {
                    "D": Outcome.COMPLETE
                }
            assert federation.held.size == 0
    assert (heeding.cancels, deaf.cancels, sending.cancels, done.cancels) == (1, 1, 1, 0)
    assert (heeding.released, deaf.released) == (1, 0)


async def test_cancel_of_what_is_being_given_out(tmp_path: Path) -> None:
    many = [study(f"1.{n}", PatientID="7") for n in range(100)]
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": Catalogue(many)}) as (federation, caller):
            async with search(federation, caller, asks()) as found:
                assert 0 < len(await found.some()) < 100
                found.cancel()
                assert not await found.some()
            assert federation.held.size == 0


async def test_cancel_of_one_that_is_not_reached_yet(tmp_path: Path) -> None:
    silent = Catalogue(frozen=True)
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": silent}) as (federation, caller),
            search(federation, caller, asks()) as found,
        ):
            while not silent.callings:
                await trio.sleep(0.001)
            found.cancel()
            assert [answer async for answer in found] == []
            assert outcomes(found) == {"A": Outcome.CANCELLED}


async def test_a_query_must_narrow(tmp_path: Path) -> None:
    broad = asks(PatientID="*")
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": Catalogue([ONE])}) as (federation, caller):
            with pytest.raises(QueryRefused) as caught:
                async with search(federation, caller, broad):
                    raise AssertionError("it is refused")
            assert caught.value.status == 0xC000
        async with (
            federated(tmp_path / "b", {"A": Catalogue([ONE])}, narrowing=False) as (
                federation,
                caller,
            ),
            search(federation, caller, broad) as found,
        ):
            assert [answer async for answer in found] == []  # "*" is no UID of the catalogue's
            assert found.incomplete == []


async def test_characters_that_a_device_has_not(tmp_path: Path) -> None:
    latin, unicode, silent = (Catalogue([ONE]) for _ in range(3))
    fields = {"A": {"character_set": "ISO_IR 100"}, "B": {"character_set": "ISO_IR 192"}}
    query = asks(SpecificCharacterSet="ISO_IR 192", PatientName="山田*")
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": latin, "B": unicode, "C": silent}, fields=fields) as (
                federation,
                caller,
            ),
            search(federation, caller, query) as found,
        ):
            assert uids([answer async for answer in found]) == ["1.1"]
            assert outcomes(found) == {
                "A": Outcome.UNABLE,
                "B": Outcome.COMPLETE,
                "C": Outcome.COMPLETE,
            }
            assert "山" not in found.incomplete[0].words
    assert latin.heard == []
    assert unicode.heard[0].PatientName == silent.heard[0].PatientName == "山田*"


async def test_issuers(tmp_path: Path) -> None:
    a, b, c = (Catalogue([ONE]) for _ in range(3))
    fields = {"A": {"issuer": "HA"}, "B": {"issuer": "HB"}}
    sites = {"A": a, "B": b, "C": c}
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, sites, fields=fields) as (federation, caller):
            async with search(federation, caller, asks(IssuerOfPatientID="HA")) as found:
                (answer,) = [answer async for answer in found]
                assert decoded(answer.encoded).IssuerOfPatientID == "HA"
                assert outcomes(found) == {
                    "A": Outcome.COMPLETE,
                    "B": Outcome.COMPLETE,  # it has none of those patients
                    "C": Outcome.UNABLE,  # nobody knows
                }
            assert (len(a.heard), len(b.heard), len(c.heard)) == (1, 0, 0)
            people = asks("PATIENT", Model.PATIENT_ROOT, IssuerOfPatientID="")
            for catalogue in (a, b, c):
                catalogue.answers = [dataset(PatientID="7")]
            async with search(federation, caller, people) as found:
                answers = [decoded(answer.encoded) async for answer in found]
            assert sorted(one.get("IssuerOfPatientID", "") for one in answers) == ["", "HA", "HB"]


async def test_a_study_that_was_asked_for_by_its_uid_is_known_whole(tmp_path: Path) -> None:
    query = asks(PatientID="", StudyInstanceUID=["1.2", "1.9"])
    a, b = Catalogue([ONE, BOTH_A]), Catalogue([BOTH_B])
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": a, "B": b}, site_wait=0.3) as (federation, caller):
            async with search(federation, caller, query) as found:
                assert uids([answer async for answer in found]) == ["1.2"]
            owners = federation.found.owners(caller, "1.2")
            assert owners.titles == {"A", "B"}
            assert owners.whole
            federation.found.forget(caller, "1.2")
            async with search(federation, caller, query, but=["B"]) as found:
                assert uids([answer async for answer in found]) == ["1.2"]
            assert not federation.found.owners(caller, "1.2").whole
            b.status = 0xA700
            async with search(federation, caller, query) as found:
                assert uids([answer async for answer in found]) == ["1.2"]
            assert not federation.found.owners(caller, "1.2").whole


async def test_series_tell_who_holds_their_study(tmp_path: Path) -> None:
    series = dataset(StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1", QueryRetrieveLevel="SERIES")
    query = asks("SERIES", PatientID="", StudyInstanceUID="1.2", SeriesInstanceUID="")
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": Catalogue([series]), "B": Catalogue()}) as (
            federation,
            caller,
        ):
            async with search(federation, caller, query) as found:
                assert len([answer async for answer in found]) == 1
            assert federation.found.owners(caller, "1.2").titles == {"A"}


async def test_the_status_of_answers_without_optional_keys(tmp_path: Path) -> None:
    a = Catalogue([ONE], pending=Status.PENDING_WITHOUT_OPTIONAL_KEYS)
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": a, "B": Catalogue([TWO])}) as (federation, caller),
            search(federation, caller, asks()) as found,
        ):
            statuses = {uids([one])[0]: one.status async for one in found}
    assert statuses == {"1.1": 0xFF01, "1.3": 0xFF00}


async def test_an_error_of_the_caller_s_comes_as_it_is(tmp_path: Path) -> None:
    a = Catalogue([ONE], silent_after=0)
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": a}) as (federation, caller):
            with pytest.raises(KeyError, match="mine"):
                await _fails(federation, caller)
            assert federation.held.size == 0


async def _fails(federation: Federation, caller: Any) -> None:
    async with search(federation, caller, asks()):
        raise KeyError("mine")


# --- with another hospital ------------------------------------------------------------------------


async def test_ours_and_another_hospital_s(tmp_path: Path) -> None:
    theirs, ours = Catalogue([BOTH_B, TWO]), Catalogue([ONE, BOTH_A])
    services = ("query", "retrieve")
    with trio.fail_after(LIMIT):
        async with two_hospitals(tmp_path, theirs.serve, *services) as both:
            port = await both.listen(ours.serve)
            await both.a.put_device(Device("PACS_A", "127.0.0.1", port, federation=True))
            owner = both.b.identity.public
            granted = Granted(((owner, "PACS", tuple(sorted(services))),), 0)
            await both.a.joined().directory.take(granted)
            caller = both.a.devices.get("WS")
            federation = Federation(both.a, FederationSettings(site_wait=5))
            async with search(federation, caller, asks(ModalitiesInStudy="")) as found:
                answers = [answer async for answer in found]
                assert outcomes(found) == {"PACS_A": Outcome.COMPLETE, "PACS": Outcome.COMPLETE}
            assert sorted(uids(answers)) == ["1.1", "1.2", "1.3"]
            assert federation.found.owners(caller, "1.2").titles == {"PACS_A", "PACS"}
            assert theirs.callings == ["WS"]
            # Its Router goes away: it is asked all the same, and named.
            both.bridge.caller.connected = False
            async with search(federation, caller, asks()) as found:
                assert sorted(uids([answer async for answer in found])) == ["1.1", "1.2"]
                (said,) = found.incomplete
                assert (said.source.title, said.outcome) == ("PACS", Outcome.UNREACHABLE)
            both.bridge.caller.connected = True


# --- devices of one information model -------------------------------------------------------------


async def test_a_patient_s_studies_are_one_patient(tmp_path: Path) -> None:
    """Asked of a device that takes Study Root only, at its STUDY level."""
    of_studies = Catalogue(
        [
            study("1.1", PatientID="7", PatientName="DOE^J"),
            study("1.2", PatientID="7", PatientName="DOE^J"),
            study("1.3", PatientID="8", PatientName="DOE^K"),
        ],
        models=[Model.STUDY_ROOT],
    )
    of_both = Catalogue([dataset(QueryRetrieveLevel="PATIENT", PatientID="7", PatientName="J")])
    keys = {"PatientID": "", "PatientName": "DOE*", "NumberOfPatientRelatedStudies": ""}
    query = asks("PATIENT", Model.PATIENT_ROOT, **keys, StudyDate="20200101")
    fields = {title: {"issuer": title} for title in ("STUDIES", "BOTH")}
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"STUDIES": of_studies, "BOTH": of_both}, fields=fields) as (
                federation,
                caller,
            ),
            search(federation, caller, query) as found,
        ):
            answers = [answer async for answer in found]
            assert found.incomplete == []
    by_owner = {
        (answer.owners, decoded(answer.encoded).PatientID): answer.status for answer in answers
    }
    assert by_owner == {
        (("STUDIES",), "7"): Status.PENDING_WITHOUT_OPTIONAL_KEYS,
        (("STUDIES",), "8"): Status.PENDING_WITHOUT_OPTIONAL_KEYS,
        (("BOTH",), "7"): Status.PENDING,
    }
    assert {decoded(answer.encoded).QueryRetrieveLevel for answer in answers} == {"PATIENT"}
    (asked,) = of_studies.heard
    assert asked.QueryRetrieveLevel == "STUDY"
    assert asked.PatientName == "DOE*"
    assert "StudyInstanceUID" in asked
    assert "StudyDate" not in asked
    assert "NumberOfPatientRelatedStudies" not in asked


async def test_one_that_takes_patient_root_only_is_asked_for_one_patient(tmp_path: Path) -> None:
    of_patients = Catalogue([ONE], models=[Model.PATIENT_ROOT])
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": of_patients, "B": Catalogue([TWO])}) as (
            federation,
            caller,
        ):
            async with search(federation, caller, asks(PatientName="")) as found:
                assert sorted(uids([answer async for answer in found])) == ["1.1", "1.3"]
                assert found.incomplete == []
            async with search(federation, caller, asks(PatientID="7*")) as found:
                assert uids([answer async for answer in found]) == []
                (said,) = found.incomplete
                assert (said.source.title, said.outcome) == ("A", Outcome.UNABLE)
                assert "Patient Root only" in said.words
    (asked,) = of_patients.heard
    assert (asked.QueryRetrieveLevel, asked.PatientID) == ("STUDY", "7")
    assert "PatientName" not in asked
