"""An association in memory that takes and gives many atoms in one call."""

from collections.abc import Sequence

import trio

from relay.dicom.pdu import PDV, Atom
from relay.errors import AssociationAborted
from tests.router.fakes import FakeAssociation


class GatheringFake(FakeAssociation):
    """One that gives all that was said at once, and notes in which calls PDVs were sent."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Sequence[PDV], bool]] = []
        self.compressible: list[bool] = []
        self.held: trio.Event | None = None  # it takes what it is sent once that is set

    async def receive_some(self) -> Sequence[Atom]:
        first = await self._receive.receive()
        rest = self._receive.statistics().current_buffer_used
        return [first, *(self._receive.receive_nowait() for _ in range(rest))]

    async def send_all(
        self, pdvs: Sequence[PDV], *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        await trio.lowlevel.checkpoint()
        if self.held is not None:
            await self.held.wait()
        if self.lost:
            raise AssociationAborted(2, 0, "connection lost")
        self.calls.append((list(pdvs), end_of_message))
        self.compressible.append(compressible)
        self.sent += pdvs
        self._changed.unpark_all()
