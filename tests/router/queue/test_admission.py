"""What an association may bring into the queue."""

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from relay.dicom import uids
from relay.dicom.negotiation import AsynchronousOperationsWindow, find
from relay.dicom.pdu import AAssociateRQ, ContextResult, PresentationContext
from relay.router.devices import Device
from relay.router.pairs import Pairs
from relay.router.queue.admission import WINDOW, Intake, answer_to
from relay.router.queue.held import Held
from relay.router.queue.state import Queue
from relay.spool.items import Priority
from tests.router.fakes import CT, IMPLICIT, JPEG, MR, hospital, proposal
from tests.router.queue.queues import still_queue

COMMIT = uids.STORAGE_COMMITMENT_PUSH_MODEL
HELD = Held(
    peer=bytes(32),
    serial=1,
    expires=2**40,
    split=1,
    window=1,
    commitment=True,
    pairs=Pairs.of([(CT, IMPLICIT), (MR, IMPLICIT)]),
    refused=Pairs.of([(MR, IMPLICIT)]),
)


@pytest.fixture
async def intake(tmp_path: Path) -> AsyncIterator[Intake]:
    async with hospital(tmp_path) as node, still_queue(node, tmp_path) as queue:
        yield of(queue, proposal(CT))


def of(queue: Queue, request: AAssociateRQ, device: Device | None = None) -> Intake:
    return Intake(queue=queue, device=device, request=request, held=HELD, priority=Priority.NORMAL)


def results(intake: Intake) -> list[int]:
    return [context.result for context in answer_to(intake).contexts]


async def test_what_the_device_takes_and_has_not_refused(intake: Intake) -> None:
    contexts = (
        PresentationContext(1, CT, (JPEG, IMPLICIT)),
        PresentationContext(3, CT, (JPEG,)),
        PresentationContext(5, MR, (IMPLICIT,)),
        PresentationContext(7, uids.VERIFICATION, (IMPLICIT,)),
        PresentationContext(9, uids.STUDY_ROOT_FIND, (IMPLICIT,)),
    )
    asked = attrs.evolve(intake, request=AAssociateRQ("PACS", "WS", contexts))
    assert results(asked) == [
        ContextResult.ACCEPTANCE,
        ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED,
        ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED,
        ContextResult.ACCEPTANCE,
        ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED,
    ]


async def test_commitment_needs_somebody_to_report_to(intake: Intake) -> None:
    asked = attrs.evolve(intake, request=proposal(COMMIT), device=Device("WS", "127.0.0.1", 104))
    assert results(asked) == [ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED]  # no commitments here
    intake.queue.commitments = object()  # type: ignore[assignment]
    assert results(asked) == [ContextResult.ACCEPTANCE]
    assert results(attrs.evolve(asked, device=None)) == [
        ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    ]
    without = attrs.evolve(HELD, commitment=False)
    assert results(attrs.evolve(asked, held=without)) == [
        ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    ]


@pytest.mark.parametrize(("wanted", "granted"), [(0, WINDOW), (1, 1), (5, 5), (1000, WINDOW)])
async def test_the_window_that_is_asked_for(intake: Intake, wanted: int, granted: int) -> None:
    window = AsynchronousOperationsWindow(wanted, 1).encode()
    asked = attrs.evolve(intake, request=attrs.evolve(proposal(CT), user_items=(window,)))
    (answer,) = find(answer_to(asked).user_items, AsynchronousOperationsWindow)
    assert (answer.invoked, answer.performed) == (granted, 1)


async def test_no_window_where_none_is_asked_for(intake: Intake) -> None:
    assert not find(answer_to(intake).user_items, AsynchronousOperationsWindow)


async def test_the_senders_local_title(intake: Intake) -> None:
    assert intake.local == intake.queue.node.ae_title
    assert of(intake.queue, intake.request, Device("CT1", "127.0.0.1", 104)).local == "CT1"
