"""Two hospitals that tell one another what their devices take, and a device that takes some."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from relay.association import TCPAssociation
from relay.dicom import uids
from relay.dicom.negotiation import AsynchronousOperationsWindow, answer, batches, find
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ, AReleaseRP, PresentationContext
from relay.router.devices import Device
from relay.router.opening import serve_opening
from relay.router.probe import storage_pairs
from relay.router.queue.held import Held
from relay.router.queue.probing import COMMITMENT_PAIRS
from relay.router.queue.state import Queue
from relay.signalling import messages
from tests.router.fakes import CT, IMPLICIT, JPEG, MR, TwoHospitals, two_hospitals
from tests.router.queue.parts import parts_of
from tests.waiting import until

Pair = tuple[str, str]

TAKEN = [(CT, IMPLICIT), (CT, JPEG), (MR, IMPLICIT)]

# Of one probe.
ASSOCIATIONS = len(list(batches([*COMMITMENT_PAIRS, *storage_pairs()])))


@attrs.define(eq=False)
class Taker:
    """A device that takes `pairs`, and Storage Commitment if it does, and grants `window`.

    `before` is done ahead of each answer; it gives what to say instead, or None.
    """

    pairs: set[Pair]
    commitment: bool = False
    window: int | None = None
    before: Callable[[AAssociateRQ], Awaitable[AAssociateRJ | None]] | None = None
    calling: list[str] = attrs.Factory(list)
    open: int = 0
    most: int = 0
    """Associations at once."""

    async def __call__(self, association: TCPAssociation) -> None:
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        self.calling.append(request.calling)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await self._serve(association, request)
        finally:
            self.open -= 1

    async def _serve(self, association: TCPAssociation, request: AAssociateRQ) -> None:
        instead = await self.before(request) if self.before is not None else None
        if instead is not None:
            await association.send(instead)
            return
        ac = answer(request, self._accept)
        if self.window is not None and find(request.user_items, AsynchronousOperationsWindow):
            item = AsynchronousOperationsWindow(self.window, 1).encode()
            ac = attrs.evolve(ac, user_items=(*ac.user_items, item))
        await association.send(ac)
        await association.receive()
        await association.send(AReleaseRP())

    def _accept(self, context: PresentationContext) -> str | None:
        if context.abstract_syntax == uids.STORAGE_COMMITMENT_PUSH_MODEL:
            return context.transfer_syntaxes[0] if self.commitment else None
        for syntax in context.transfer_syntaxes:
            if (context.abstract_syntax, syntax) in self.pairs:
                return syntax
        return None


@attrs.define
class Knowing:
    """WS in A asks what PACS in B takes, which is `device`."""

    both: TwoHospitals
    device: Taker
    a: Queue
    b: Queue
    sessions: list[messages.Open] = attrs.Factory(list)

    @property
    def probes(self) -> int:
        """How often the device was probed, each time to the end."""
        return len(self.device.calling) // ASSOCIATIONS


@asynccontextmanager
async def knowing(
    folder: Path, pairs: Iterable[Pair], *services: str, published: Iterable[str] = ()
) -> AsyncIterator[Knowing]:
    """`services` are granted: store, if none is named."""
    device = Taker(set(pairs))
    granted = services or ("store",)
    async with two_hospitals(folder, device, *granted, published=[*granted, *published]) as both:
        it = Knowing(both, device, await parts_of(both.a), await parts_of(both.b))

        def on_open(message: messages.Open) -> None:
            it.sessions.append(message)
            opened = attrs.evolve(message, router=both.a.identity.public)
            both.nursery.start_soon(serve_opening, both.b, opened, it.b)

        both.bridge.on_open = on_open
        yield it


async def learn(it: Knowing, calling: str = "WS") -> Held | None:
    """What A is told, asking anew each time."""
    return await it.a.acceptance.learn(it.both.a, "PACS", calling, anew=True)


async def told(it: Knowing, calling: str = "WS") -> Held:
    held = await learn(it, calling)
    assert held is not None
    return held


async def told_in_line(it: Knowing) -> Held | None:
    """What WS2 is told while the device is probed for WS0, and WS1 waits for that to end."""
    for number in range(3):
        await it.both.a.put_device(Device(f"WS{number}", "127.0.0.1"))
    go_on = trio.Event()

    async def slow(request: AAssociateRQ) -> None:
        await go_on.wait()

    it.device.before = slow
    async with trio.open_nursery() as nursery:
        nursery.start_soon(learn, it, "WS0")
        await until(lambda: it.device.open == 1)
        nursery.start_soon(learn, it, "WS1")
        await until(lambda: len(it.both.b.live) == 2)
        held = await learn(it, "WS2")
        go_on.set()
    assert set(it.device.calling) == {"WS0", "WS1"}
    return held


async def change_device(it: Knowing, **fields: object) -> None:
    now = it.both.b.devices.get("PACS")
    assert now is not None
    await it.both.b.put_device(attrs.evolve(now, **fields))  # type: ignore[arg-type]
