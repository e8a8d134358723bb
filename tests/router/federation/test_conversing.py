from typing import Any

import attrs
import pytest
import trio
import trio.testing

from relay.dicom import dimse, elements, uids
from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import CommandField, Priority, Status, Tag
from relay.dicom.elements import Encoding
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import PDV, AAbort, AReleaseRQ
from relay.errors import AssociationAborted, Outcome, SourceFailed
from relay.router.federation import conversing
from relay.router.federation.conversing import CANCEL_WAIT, Cancelling, Conversation
from relay.router.federation.identifiers import Level
from relay.router.federation.opening import Opened
from relay.router.federation.targets import Target
from relay.router.federation.totals import Counts
from relay.router.suboperations import FAILED_SOP_INSTANCE_UID_LIST
from tests.router.fakes import (
    CT,
    IMPLICIT,
    FakeAssociation,
    acceptance,
    command,
    data,
    proposal,
    read,
    store_rq,
)

GET = AcceptedContext(1, uids.STUDY_ROOT_GET, IMPLICIT)
STORE = AcceptedContext(3, CT, IMPLICIT)
STUDY = Target(level=Level.STUDY, studies=("1.2",))
WAIT = 30.0


@attrs.define
class Talk:
    """A conversation with an owner that is the test."""

    owner: FakeAssociation = attrs.field(factory=FakeAssociation)
    cancelling: Cancelling = attrs.field(factory=Cancelling)
    conversation: Any = None

    def __attrs_post_init__(self) -> None:
        request = proposal(uids.STUDY_ROOT_GET, CT)
        opened = Opened(
            self.owner,  # type: ignore[arg-type]
            request,
            acceptance(request),
            {1: GET, 3: STORE},
        )
        self.conversation = Conversation(opened, GET, 7, self.cancelling, WAIT)

    @property
    def cancels(self) -> list[CommandSet]:
        commands = [read(atom) for atom in self.owner.sent if isinstance(atom, PDV)]
        return [c for c in commands if c.command_field == CommandField.C_CANCEL_RQ]

    def respond(self, status: int, data_set: bytes = b"", **counters: int) -> None:
        tags = {
            "remaining": Tag.NUMBER_OF_REMAINING_SUBOPERATIONS,
            "completed": Tag.NUMBER_OF_COMPLETED_SUBOPERATIONS,
            "failed": Tag.NUMBER_OF_FAILED_SUBOPERATIONS,
            "warning": Tag.NUMBER_OF_WARNING_SUBOPERATIONS,
        }
        rq = dimse.request(CommandField.C_GET_RQ, 7, GET.abstract_syntax)
        extra: dict[int, int | str | bytes] = {tags[name]: n for name, n in counters.items()}
        rsp = dimse.response_to(rq, status, has_data_set=bool(data_set), extra=extra)
        self.owner.say(command(1, rsp))
        if data_set:
            self.owner.say(data(1, data_set))


async def test_a_request() -> None:
    talk = Talk()
    await talk.conversation.ask(CommandField.C_MOVE_RQ, STUDY, Priority.HIGH, "WS")
    head, identifier = talk.owner.sent
    asked = read(head)
    assert (asked.command_field, asked.message_id) == (CommandField.C_MOVE_RQ, 7)
    assert asked.move_destination == "WS"
    assert asked.number(Tag.PRIORITY) == Priority.HIGH
    expected = STUDY.encode(Encoding(explicit_vr=False), GET.abstract_syntax)
    assert identifier == PDV(1, False, True, expected)


async def test_what_comes_and_what_answers_it() -> None:
    talk = Talk()
    talk.owner.say(command(3, store_rq(4)), data(3))
    pdv, found = await talk.conversation.receive()
    assert found is not None
    assert (pdv.context_id, found.command_field) == (3, CommandField.C_STORE_RQ)
    assert await talk.conversation.receive() == (data(3), None)
    await talk.conversation.respond(3, found, 0xA700)
    response = read(talk.owner.sent[-1])
    assert (response.message_id_responded_to, response.status) == (4, 0xA700)


async def test_a_response_with_counters_and_names() -> None:
    talk = Talk()
    names = elements.encode(
        FAILED_SOP_INSTANCE_UID_LIST, b"UI", b"1.2.3\\1.2.34\0", Encoding(explicit_vr=False)
    )
    talk.respond(0xB000, names, remaining=1, completed=2, failed=3, warning=4)
    _, found = await talk.conversation.receive()
    answer = await talk.conversation.answer(found)
    assert not answer.pending
    assert (answer.status, answer.counts, answer.counted) == (0xB000, Counts(1, 2, 3, 4), True)
    assert answer.failed_uids == ("1.2.3", "1.2.34")
    assert "1.2.3" not in repr(answer)


async def test_one_without_counters() -> None:
    talk = Talk()
    talk.respond(Status.PENDING)
    _, found = await talk.conversation.receive()
    answer = await talk.conversation.answer(found)
    assert answer.pending
    assert not answer.counted


@pytest.mark.parametrize(
    ("status", "failed", "is_one"),
    [(0, 0, True), (0xB000, 1, True), (0xA702, 3, True), (0xA702, 0, False), (0xC001, 3, False)],
)
def test_whether_it_is_of_suboperations(status: int, failed: int, is_one: bool) -> None:
    answer = conversing.Answer(status, Counts(failed=failed), True)
    assert answer.is_of_suboperations is is_one


async def test_an_owner_that_ends_it() -> None:
    talk = Talk()
    talk.owner.say(AAbort(2, 0))
    with pytest.raises(AssociationAborted):
        await talk.conversation.receive()


@pytest.mark.parametrize("atom", [data(1), command(5, store_rq()), AReleaseRQ()])
async def test_what_is_wrong_is_aborted(atom: Any) -> None:
    talk = Talk()
    talk.owner.say(atom)
    with pytest.raises(SourceFailed) as caught:
        await talk.conversation.receive()
    assert caught.value.outcome is Outcome.REFUSED
    assert talk.owner.aborts


async def test_a_response_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversing, "MAXIMUM_IDENTIFIER", 10)
    talk = Talk()
    talk.respond(0xB000, b"x" * 11)
    _, found = await talk.conversation.receive()
    with pytest.raises(SourceFailed, match="longer"):
        await talk.conversation.answer(found)
    assert talk.owner.aborts


async def test_silence(autojump_clock: trio.testing.MockClock) -> None:
    talk = Talk()
    before = trio.current_time()
    with pytest.raises(SourceFailed, match="no word of it within 30 s") as caught:
        await talk.conversation.receive()
    assert caught.value.outcome is Outcome.SLOW
    assert trio.current_time() - before == pytest.approx(WAIT)
    assert talk.owner.aborts


async def test_words_without_end(autojump_clock: trio.testing.MockClock) -> None:
    talk = Talk()

    async def go_on() -> None:
        while True:
            talk.respond(Status.PENDING)
            await trio.sleep(WAIT / 2)

    failure = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)
        try:
            while True:
                await talk.conversation.receive()
        except SourceFailed as error:
            failure = error
        nursery.cancel_scope.cancel()
    assert failure is not None
    assert failure.outcome is Outcome.SLOW
    assert trio.current_time() < conversing.LONGEST_REQUEST + WAIT


async def test_a_cancel_wakes_whoever_waits_and_is_told_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    talk = Talk()

    async def cancel() -> None:
        await trio.sleep(1)
        talk.cancelling.cancel()
        await trio.sleep(1)
        talk.respond(Status.PENDING)
        talk.cancelling.cancel()
        await trio.sleep(1)
        talk.respond(Status.CANCEL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        for status in (Status.PENDING, Status.CANCEL):
            _, found = await talk.conversation.receive()
            assert found.status == status
    assert [c.message_id_responded_to for c in talk.cancels] == [7]


async def test_a_cancelled_owner_has_not_long(autojump_clock: trio.testing.MockClock) -> None:
    talk = Talk()
    talk.cancelling.cancel()
    before = trio.current_time()
    with pytest.raises(SourceFailed) as caught:
        await talk.conversation.receive()
    assert caught.value.outcome is Outcome.CANCELLED
    assert trio.current_time() - before == pytest.approx(CANCEL_WAIT)


async def test_but_it_ends_what_cannot_be_left(autojump_clock: trio.testing.MockClock) -> None:
    talk = Talk()
    talk.conversation.owes = True
    talk.cancelling.cancel()

    async def late() -> None:
        await trio.sleep(2 * CANCEL_WAIT)
        talk.respond(Status.CANCEL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        _, found = await talk.conversation.receive()
    assert found.status == Status.CANCEL
    talk.conversation.leavable()
    before = trio.current_time()
    with pytest.raises(SourceFailed):
        await talk.conversation.receive()
    assert trio.current_time() - before == pytest.approx(CANCEL_WAIT)


async def test_what_is_to_be_woken() -> None:
    cancelling = Cancelling()
    first, second = trio.CancelScope(), trio.CancelScope()
    with cancelling.waking(first):
        cancelling.let_be()
    with cancelling.waking(second):
        cancelling.cancel()
    assert cancelling.asked
    assert not first.cancel_called
    assert second.cancel_called
    with cancelling.waking(first):
        pass
    assert first.cancel_called


async def test_an_owner_that_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    talk = Talk()
    talk.owner.deaf = True
    with pytest.raises(SourceFailed, match="took nothing") as caught:
        await talk.conversation.ask(CommandField.C_GET_RQ, STUDY, Priority.MEDIUM)
    assert caught.value.outcome is Outcome.SLOW
    assert talk.owner.aborts
