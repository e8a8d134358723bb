"""What the federation says to a device that asks: the responses to one request, and the lock.

Several tasks may have something to say on one association: a C-GET's responses and its C-STOREs go
the same way. A message is never cut by another one (PS3.8 Annex E): whoever sends one holds
`writing` from its first fragment to its last.
"""

from collections.abc import Callable, Mapping, Sequence

import trio

from relay.association import Association, gathers
from relay.dicom.dimse import CommandSet, is_pending, response_to
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import PDV
from relay.router.live import LiveAssociation

# Answers to a query that go out in one call: some tens of KiB.
ANSWERS_AT_ONCE = 64


class Responder:
    """Answers one request of a device.

    `contexts` are all that were accepted on the association. `cancelled` is set by a C-CANCEL of
    this request, and `on_cancel` called. What the device answers to a request of ours meanwhile, a
    C-STORE-RSP, goes to `takes_response`, which says whether it was waited for. `finished` is set
    as the final response goes out: the device may ask the next thing.
    """

    def __init__(
        self,
        association: Association,
        writing: trio.Lock,
        contexts: Sequence[AcceptedContext],
        context: AcceptedContext,
        request: CommandSet,
    ) -> None:
        self.association = association
        self.writing = writing
        self.contexts = contexts
        self.context = context
        self.request = request
        self.cancelled = trio.Event()
        self.finished = trio.Event()
        self.on_cancel: Callable[[], None] | None = None
        self.takes_response: Callable[[CommandSet], bool] | None = None
        self.entry: LiveAssociation | None = None
        """The association's in the register, where it has one."""

    def cancel(self) -> None:
        """A C-CANCEL of this request has come."""
        self.cancelled.set()
        if self.on_cancel is not None:
            self.on_cancel()

    async def send(
        self,
        status: int,
        *,
        data_set: bytes = b"",
        extra: Mapping[int, int | str | bytes] | None = None,
    ) -> None:
        """One response, the final one if `status` is not pending; `data_set` in the context's
        transfer syntax, none if it is empty. Raises AssociationAborted."""
        command = response_to(self.request, status, has_data_set=bool(data_set), extra=extra)
        pdvs = [PDV(self.context.id, True, True, command.encode())]
        if data_set:
            pdvs.append(PDV(self.context.id, False, True, data_set))
        async with self.writing:
            if not is_pending(status):
                # Before it is out: the device's next request may be here before this task goes on.
                self.finished.set()
            await self._write(pdvs)

    async def send_answers(self, status: int, data_sets: Sequence[bytes]) -> None:
        """One pending response for each of `data_sets`, which are not empty."""
        command = response_to(self.request, status, has_data_set=True).encode()
        head = PDV(self.context.id, True, True, command)
        for at in range(0, len(data_sets), ANSWERS_AT_ONCE):
            pdvs: list[PDV] = []
            for data_set in data_sets[at : at + ANSWERS_AT_ONCE]:
                pdvs += head, PDV(self.context.id, False, True, data_set)
            async with self.writing:
                await self._write(pdvs)

    async def _write(self, pdvs: Sequence[PDV]) -> None:
        if gathers(self.association):
            await self.association.send_all(pdvs)
            return
        for pdv in pdvs:
            await self.association.send(pdv, end_of_message=pdv is pdvs[-1])
