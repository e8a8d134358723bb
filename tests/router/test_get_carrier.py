"""The objects of a C-GET that a device answers by C-MOVE: whose turn it is, and what comes back."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from relay.dicom import dimse
from relay.dicom.dimse import CommandField, CommandSet
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    ContextResult,
)
from relay.errors import LocalProtocolError, RemoteProtocolError
from relay.router.get_as_move import Stored, taking_contexts
from relay.router.get_carrier import Carrier, SubAssociation
from relay.router.moves import MoveRegister
from relay.scu import release
from tests.router.fakes import (
    CT,
    IMPLICIT,
    JPEG,
    MR,
    acceptance,
    command,
    data,
    echo_rq,
    proposal,
    read,
    store_rq,
)

# Context 5 carries CT, 7 does MR.
TAKING = attrs.evolve(
    proposal(CT, MR, scp=[CT, MR]),
    contexts=tuple(
        attrs.evolve(context, id=context.id + 4) for context in proposal(CT, MR).contexts
    ),
)


@attrs.define
class Carrying:
    """A carrier, and what the requestor was told."""

    said: list[Atom] = attrs.Factory(list)
    broken: list[bool] = attrs.Factory(list)
    stack: ExitStack = attrs.Factory(ExitStack)
    carrier: Carrier = attrs.field(init=False)
    moves: MoveRegister = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.moves = MoveRegister()
        self.carrier = Carrier(
            "PACS", "RELAY", self.say, lambda: self.broken.append(True), self.moves
        )
        self.carrier.negotiated(acceptance(TAKING), taking_contexts(TAKING))
        self.carrier.stored = Stored()

    async def say(self, atom: Atom) -> None:
        await trio.lowlevel.checkpoint()
        self.said.append(atom)

    async def associate(
        self, request: AAssociateRQ | None = None
    ) -> tuple[SubAssociation, AAssociateAC]:
        sub = self.stack.enter_context(self.carrier.associate(request or proposal(MR, CT)))
        answer = await sub.receive()
        assert isinstance(answer, AAssociateAC)
        return sub, answer

    def answer(self, status: int = 0) -> None:
        """The requestor answers the last that it was told to store."""
        asked = [read(a) for a in self.said if isinstance(a, PDV) and a.is_command][-1]
        self.carrier.answered(dimse.response_to(asked, status))


@asynccontextmanager
async def carrying() -> AsyncIterator[Carrying]:
    it = Carrying()
    with trio.fail_after(5), it.stack:
        yield it


async def test_an_object_goes_over_the_context_that_carries_it() -> None:
    async with carrying() as it:
        sub, answer = await it.associate()
        assert [(r.id, r.accepted) for r in answer.contexts] == [(1, True), (3, True)]
        await sub.send(command(3, store_rq(40)))
        await sub.send(data(3, b"one", last=False))
        await sub.send(data(3, b"two"))
        request, *fragments = it.said
        assert isinstance(request, PDV)
        assert (request.context_id, read(request)) == (5, store_rq(1))
        assert fragments == [data(5, b"one", last=False), data(5, b"two")]
        it.answer(0xB000)
        answered = await sub.receive()
        assert isinstance(answered, PDV)
        assert answered.context_id == 3
        assert (read(answered).message_id_responded_to, read(answered).status) == (40, 0xB000)
        assert it.carrier.stored is not None
        assert (it.carrier.stored.completed, it.carrier.stored.warned) == (0, 1)
        await sub.send(AReleaseRQ())
        assert await sub.receive() == AReleaseRP()


async def test_only_what_is_carried_is_accepted() -> None:
    async with carrying() as it:
        request = proposal(CT, MR, "1.2.840.10008.1.1", transfer_syntaxes=[JPEG])
        contexts = list(request.contexts)
        contexts[1] = attrs.evolve(contexts[1], transfer_syntaxes=(JPEG, IMPLICIT))
        _, answer = await it.associate(attrs.evolve(request, contexts=tuple(contexts)))
        assert [(r.result, r.transfer_syntax) for r in answer.contexts] == [
            (ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, JPEG),
            (ContextResult.ACCEPTANCE, IMPLICIT),
            (ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, JPEG),
        ]


async def test_what_the_device_proposes_is_remembered() -> None:
    async with carrying() as it:
        await it.associate(proposal(CT, MR, transfer_syntaxes=[JPEG, IMPLICIT]))
        assert it.moves.stores_in("PACS", CT) == {JPEG, IMPLICIT}


async def test_the_next_object_waits_for_the_answer() -> None:
    async with carrying() as it:
        first, _ = await it.associate()
        second, _ = await it.associate()

        async def store() -> None:
            await second.send(command(1, store_rq(1, MR)))
            await second.send(data(1, b"second"))

        async with trio.open_nursery() as nursery:
            await first.send(command(3, store_rq(1)))
            nursery.start_soon(store)
            await trio.testing.wait_all_tasks_blocked()
            await first.send(data(3, b"first"))
            await trio.testing.wait_all_tasks_blocked()
            assert len(it.said) == 2
            it.answer()
        assert it.said[2:] == [command(7, store_rq(2, MR)), data(7, b"second")]
        it.answer(0xC000)
        assert read(await first.receive()).status == 0
        assert read(await second.receive()).status == 0xC000


async def test_an_answer_may_come_before_the_object_is_whole() -> None:
    async with carrying() as it:
        sub, _ = await it.associate()
        for _ in range(2):
            await sub.send(command(3, store_rq(1)))
            it.answer(0xA700)
            with pytest.raises(RemoteProtocolError, match="without a request"):
                it.answer()
            await sub.send(data(3))
            assert read(await sub.receive()).status == 0xA700
        assert it.carrier.stored is not None
        assert it.carrier.stored.failed == 2


async def test_an_answer_without_a_request() -> None:
    async with carrying() as it:
        with pytest.raises(RemoteProtocolError, match="without a request"):
            it.carrier.answered(dimse.response_to(store_rq(), 0))


async def test_what_comes_when_the_c_get_is_over_is_refused() -> None:
    async with carrying() as it:
        sub, _ = await it.associate()
        it.carrier.stored = None
        for _ in range(2):
            await sub.send(command(3, store_rq(9)))
            await sub.send(data(3))
            answer = read(await sub.receive())
            assert (answer.status, answer.message_id_responded_to) == (0xA700, 9)
        assert not it.said
        await release(sub)
        with it.carrier.associate(proposal(CT)) as late:
            assert isinstance(await late.receive(), AAssociateRJ)


def without_data_set() -> CommandSet:
    return store_rq().evolve({dimse.Tag.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET})


@pytest.mark.parametrize(
    ("request_", "has_data"),
    [
        (echo_rq(), False),
        (without_data_set(), False),
        (dimse.request(CommandField.C_FIND_RQ, 1, CT), True),
    ],
)
async def test_nothing_else_is_done_there(request_: CommandSet, has_data: bool) -> None:
    async with carrying() as it:
        sub, _ = await it.associate()
        await sub.send(command(3, request_))
        if has_data:
            await sub.send(data(3))
        assert read(await sub.receive()).status == 0x0211
        assert not it.said
        with pytest.raises(LocalProtocolError):
            await sub.send(AReleaseRP())


async def test_an_association_that_ends_in_an_object_is_told_of() -> None:
    it = Carrying()
    with it.carrier.associate(proposal(CT)) as sub:
        await sub.send(command(1, store_rq()))
        await sub.send(data(1, last=False))
    assert it.broken


async def test_one_that_ends_behind_an_object_is_not() -> None:
    it = Carrying()
    with it.carrier.associate(proposal(CT)) as sub:
        await sub.send(command(1, store_rq()))
        await sub.send(data(1))
        await sub.aclose()
    it.answer()  # nobody is there to hear it
    assert not it.broken
    assert it.carrier.stored is not None
    assert it.carrier.stored.completed == 1
    assert it.carrier.suboperation.value == it.carrier.message.value == 1


async def test_who_is_cancelled_in_the_line_holds_up_nobody() -> None:
    async with carrying() as it:
        first, _ = await it.associate()
        second, _ = await it.associate()
        await first.send(command(3, store_rq()))
        with trio.move_on_after(0):
            await second.send(command(3, store_rq()))
        await first.send(data(3))
        it.answer()
        assert it.carrier.suboperation.value == it.carrier.message.value == 1


async def test_what_cannot_be_said_holds_up_nobody() -> None:
    async def gone(atom: Atom) -> None:
        raise RemoteProtocolError("gone")

    carrier = Carrier("PACS", "RELAY", gone, lambda: None, MoveRegister())
    carrier.negotiated(acceptance(TAKING), taking_contexts(TAKING))
    carrier.stored = Stored()
    with carrier.associate(proposal(CT)) as sub, pytest.raises(RemoteProtocolError):
        await sub.send(command(1, store_rq()))
    assert carrier.suboperation.value == carrier.message.value == 1


async def test_when_the_requestor_is_gone_all_end() -> None:
    async with carrying() as it:
        sub, _ = await it.associate()
        entry = it.carrier.entry()
        assert (entry.device, entry.called, entry.peer) == ("PACS", "RELAY", "")
        it.carrier.end()
        assert isinstance(await sub.receive(), AAbort)
        assert "gone" in sub.cause
        # It ends by itself, and others that the device may mean go on.
        assert entry.still_permitted()
