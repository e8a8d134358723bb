"""Whether an association is queued, and what it rests on."""

from pathlib import Path

import attrs
import pytest

from relay.dicom import uids
from relay.dicom.pdu import (
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    ContextResult,
    PresentationContext,
)
from relay.dicom.rejection import (
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    TEMPORARY_CONGESTION,
    rejected,
)
from relay.errors import DatabaseError, RelayError, SignallingError
from relay.router.queue import acceptance, intake
from relay.router.queue.destinations import Destination, Mixed, Mode
from tests.router.fakes import CT, IMPLICIT, JPEG, proposal
from tests.router.queue.calls import calling, taking

OTHERS = [uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE]


# --- queued, or not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "mixed", "queued"),
    [
        ([CT], Mixed.REFUSE, True),
        ([CT, uids.VERIFICATION], Mixed.CONFIRMED, True),
        ([CT, *OTHERS], Mixed.REFUSE, True),
        ([CT, *OTHERS], Mixed.CONFIRMED, False),
        ([uids.STORAGE_COMMITMENT_PUSH_MODEL], Mixed.REFUSE, True),
        ([uids.VERIFICATION], Mixed.REFUSE, False),
        (OTHERS, Mixed.REFUSE, False),
    ],
)
def test_the_choice_is_made_by_what_is_proposed(
    classes: list[str], mixed: Mixed, queued: bool
) -> None:
    destination = Destination("PACS", mixed=mixed)
    chosen, why = intake.choose(destination, proposal(*classes))
    assert chosen is queued
    assert why
    confirmed = attrs.evolve(destination, mode=Mode.CONFIRMED)
    assert not intake.choose(confirmed, proposal(*classes))[0]


async def test_other_classes_are_rejected(tmp_path: Path) -> None:
    async with taking(tmp_path) as it, calling(it, proposal(CT, *OTHERS)) as (sender, answer):
        assert isinstance(answer, AAssociateAC)
        assert [context.result for context in answer.contexts] == [
            ContextResult.ACCEPTANCE,
            ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED,
            ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED,
        ]
        await sender.release()


async def test_or_all_is_confirmed(tmp_path: Path) -> None:
    destination = Destination("PACS", mixed=Mixed.CONFIRMED)
    async with (
        taking(tmp_path, destination=destination) as it,
        calling(it, proposal(CT, *OTHERS)) as (sender, answer),
    ):
        assert isinstance(answer, AAssociateAC)
        await sender.store(1)
        assert await sender.status() == (1, 0)
        assert it.archive.seen == [b"content!"]
        assert await it.items() == []
        await sender.release()


async def test_a_lone_echo_is_confirmed(tmp_path: Path) -> None:
    async with (
        taking(tmp_path) as it,
        calling(it, proposal(uids.VERIFICATION)) as (sender, answer),
    ):
        assert isinstance(answer, AAssociateAC)
        assert len(it.archive.requests) == 1
        await sender.release()


async def test_the_first_syntax_that_the_device_takes(tmp_path: Path) -> None:
    contexts = (
        PresentationContext(1, CT, (JPEG, IMPLICIT)),
        PresentationContext(3, CT, (JPEG,)),
        PresentationContext(5, "1.2.3.4", (IMPLICIT,)),
        PresentationContext(7, uids.STORAGE_COMMITMENT_PUSH_MODEL, (IMPLICIT,)),
    )
    request = AAssociateRQ("PACS", "WS", contexts)
    async with taking(tmp_path) as it, calling(it, request) as (sender, answer):
        assert isinstance(answer, AAssociateAC)
        assert [context.result for context in answer.contexts] == [
            ContextResult.ACCEPTANCE,
            ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED,
            ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED,
            ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED,
        ]
        assert answer.contexts[0].transfer_syntax == IMPLICIT
        await sender.release()


# --- what cannot be accepted now ------------------------------------------------------------------


async def test_unknown_is_refused_for_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "LEARNING_WAIT", 0.05)
    async with taking(tmp_path, known=False) as it:
        it.both.bridge.cut(it.both.bridge.callee)
        async with calling(it) as (_, answer):
            assert answer == AAssociateRJ(2, 3, 1)


@pytest.mark.parametrize(
    ("error", "answer", "words"),
    [
        (
            rejected(CALLING_AE_TITLE_NOT_RECOGNIZED, "South has granted this Router nothing"),
            CALLING_AE_TITLE_NOT_RECOGNIZED,
            "South has granted this Router nothing",
        ),
        (
            rejected(TEMPORARY_CONGESTION, "PACS is busy"),
            TEMPORARY_CONGESTION,
            "what PACS takes is not known yet: PACS is busy",
        ),
        (
            SignallingError("the line is down"),
            TEMPORARY_CONGESTION,
            "what PACS takes is not known yet: the line is down",
        ),
    ],
)
async def test_what_cannot_be_known_is_refused_as_a_confirmed_call_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: RelayError,
    answer: AAssociateRJ,
    words: str,
) -> None:
    async def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(acceptance, "ask", fails)
    async with taking(tmp_path, known=False) as it:
        async with calling(it) as (_, said):
            assert said == answer
        (noted,) = it.both.a.refusals
        assert noted.why == words


async def test_a_title_that_is_anothers_by_now_is_refused_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with taking(tmp_path) as it:
        directory = it.both.a.joined().directory
        held = it.queue.acceptance.known(it.both.a, "PACS", "WS", int(it.clock()))

        async def wait(*arguments: object) -> object:
            return held

        monkeypatch.setattr(it.queue.acceptance, "wait", wait)
        monkeypatch.setattr(directory, "permits", lambda called, peer: False)
        async with calling(it) as (_, answer):
            assert answer == AAssociateRJ(2, 3, 1)


async def test_knowledge_that_cannot_be_kept_is_no_end_of_the_router(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*arguments: object) -> None:
        raise DatabaseError("disk I/O error")

    async with taking(tmp_path) as it:
        monkeypatch.setattr(it.queue.acceptance, "wait", fails)
        async with calling(it) as (_, answer):
            assert answer == AAssociateRJ(2, 3, 1)


async def test_a_full_spool_rejects_the_association(tmp_path: Path) -> None:
    async with taking(tmp_path, space=100) as it:
        it.queue.spool.objects.space.used = 101
        async with calling(it) as (_, answer):
            assert answer == AAssociateRJ(2, 3, 2)
