"""A device of the tests' own that says exactly what it is told, where others' software will not.

As requestor (`calling`): any proposal, any command on any context, any number of requests before
the first answer. As acceptor (`answer_backwards`): it waits for as many requests as were announced,
and answers the last one first.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from relay import scu
from relay.association import TCPAssociation, connect
from relay.dicom import negotiation
from relay.dicom.dimse import (
    MESSAGES,
    CommandField,
    CommandReader,
    CommandSet,
    Status,
    Tag,
    is_pending,
    request,
    response_to,
)
from relay.dicom.negotiation import (
    AsynchronousOperationsWindow,
    TypedItem,
    UserIdentityAC,
    UserIdentityRQ,
    find,
)
from relay.dicom.pdu import (
    PDV,
    AAssociateAC,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    PresentationContext,
    UserItem,
)
from tests.interop.peers import Address

# What else these requests must have.
ELEMENTS: Mapping[int, Mapping[int, int | str]] = {
    CommandField.C_MOVE_RQ: {Tag.MOVE_DESTINATION: "ANYWHERE"},
    CommandField.N_ACTION_RQ: {Tag.ACTION_TYPE_ID: 1},
    CommandField.N_EVENT_REPORT_RQ: {Tag.EVENT_TYPE_ID: 1},
}

# Everything that one of these does in a test; real peers answer at once.
DEADLINE = 60.0


@attrs.define(slots=True)
class Speaker:
    """One end of an association that stands."""

    association: TCPAssociation
    request: AAssociateRQ
    answer: AAssociateAC
    _reader: CommandReader = attrs.field(factory=CommandReader)
    _last_message_id: int = 0

    @property
    def results(self) -> dict[int, int]:
        """Result by context ID (PS3.8 Table 9-18): 0 acceptance, 1 user rejection."""
        return {context.id: context.result for context in self.answer.contexts}

    async def say(
        self, context_id: int, command: CommandSet, data_set: bytes | None = None
    ) -> None:
        """Send one message, whether it makes sense or not."""
        await self.association.send(PDV(context_id, True, True, command.encode()))
        if data_set is not None:
            await self.association.send(PDV(context_id, False, True, data_set))

    async def ask(
        self,
        context_id: int,
        field: CommandField,
        sop_class: str,
        data_set: bytes | None = None,
    ) -> int:
        """Send a request, with an instance UID of its own where it needs one; its Message ID."""
        self._last_message_id = message_id = self._last_message_id + 1
        instance = f"1.2.3.{message_id}" if MESSAGES[field].sop_instance is not None else None
        command = request(
            field,
            message_id,
            sop_class,
            instance,
            has_data_set=data_set is not None,
            extra=ELEMENTS.get(field),
        )
        await self.say(context_id, command, data_set)
        return message_id

    async def hear(self) -> tuple[int, CommandSet] | Atom:
        """Context ID and command of the next message, once it is whole; or what came instead."""
        while True:
            atom = await self.association.receive()
            if not isinstance(atom, PDV):
                return atom
            self._reader.feed(atom)
            if not self._reader.message_open and self._reader.command is not None:
                return atom.context_id, self._reader.command

    async def status(
        self, context_id: int, field: CommandField, sop_class: str, data_set: bytes | None = None
    ) -> int:
        """Send a request, and wait for its final response: its status."""
        message_id = await self.ask(context_id, field, sop_class, data_set)
        while True:
            heard = await self.hear()
            if not isinstance(heard, tuple):
                raise AssertionError(f"{heard} instead of an answer")
            _, command = heard
            if command.is_response and not is_pending(command.status):
                assert command.message_id_responded_to == message_id
                return command.status


@asynccontextmanager
async def calling(
    target: Address,
    ae_title: str,
    contexts: tuple[PresentationContext, ...],
    *items: TypedItem | UserItem,
) -> AsyncIterator[Speaker]:
    """Call `target` as `ae_title`; the association is released at the end of the block."""
    with trio.fail_after(DEADLINE):
        association = await connect(target.host, target.port)
        try:
            request = negotiation.request(target.ae_title, ae_title, contexts)
            items_ = tuple(i if isinstance(i, UserItem) else i.encode() for i in items)
            request = attrs.evolve(request, user_items=request.user_items + items_)
            yield Speaker(association, request, await scu.negotiate(association, request))
            await scu.release(association)
        finally:
            await association.aclose()


# What `answer_backwards` adds to its A-ASSOCIATE-AC: a type that no part of the standard has.
UNKNOWN_ITEM = UserItem(0x6E, b"of the acceptor", 7)


async def answer_backwards(association: TCPAssociation) -> None:
    """Serve one association: as many requests as its window says, then their answers in reverse.

    Roles, window and extended negotiation are agreed to as proposed; a user identity that asks for
    it gets a positive response (PS3.7 §D.3.3.7.2), and the requestor gets an item that it does not
    know.
    """
    rq = await association.receive()
    assert isinstance(rq, AAssociateRQ)
    agreed = [item for item in rq.user_items if item.type in (0x53, 0x54, 0x56)]
    shown = find(rq.user_items, UserIdentityRQ)
    if any(identity.response_requested for identity in shown):
        agreed.append(UserIdentityAC(b"ticket").encode())
    ac = negotiation.answer(rq, lambda context: context.transfer_syntaxes[0])
    ac = attrs.evolve(ac, user_items=(*ac.user_items, *agreed, UNKNOWN_ITEM))
    await association.send(ac)
    speaker = Speaker(association, rq, ac)
    windows = find(rq.user_items, AsynchronousOperationsWindow)
    waiting: list[tuple[int, CommandSet]] = []
    while isinstance(heard := await speaker.hear(), tuple):
        waiting.append(heard)
        if len(waiting) == (windows[0].invoked if windows else 1):
            while waiting:
                context_id, command = waiting.pop()
                await speaker.say(context_id, response_to(command, Status.SUCCESS))
    if isinstance(heard, AReleaseRQ):
        await association.send(AReleaseRP())
