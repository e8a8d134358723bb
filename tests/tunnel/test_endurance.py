"""What long running and bad moments leave behind: nothing.

Over the real hub and two real clients, joined in memory; only the store is a fake.
"""

import gc
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.dicom.pdu import PDV, AAbort, AAssociateRJ, AReleaseRP, AReleaseRQ, Atom
from relay.errors import AssociationAborted, Refused
from relay.signalling.hub import SignedRow
from relay.signalling.messages import Announce, Answer, Direction, InLine, Message, decode
from relay.tunnel import reader, records, session, writer
from relay.tunnel.allowance import IN_LINE_WINDOW_IN_ALL, Allowance
from relay.tunnel.session import TunnelAssociation, TunnelTimeouts, accept_tunnel, open_tunnel
from relay.tunnel.store import ObjectRequest
from tests.signalling.bridge import Bridge, MemorySocket, Router, running_bridge
from tests.tunnel.fakes import AC, Store, merged, opening, plain, received

LOST = AAbort(2, 0)
COMMAND, RESPONSE = PDV(1, True, True, b"C-STORE-RQ"), PDV(1, True, True, b"C-STORE-RSP")
IMAGE = PDV(1, False, True, bytes(range(256)) * 400)
Body = Callable[[TunnelAssociation], Awaitable[object]]


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock clock jumps while a thread works: what is timed seals and opens in line."""
    monkeypatch.setattr(writer, "SEAL_IN_THREAD", math.inf)
    monkeypatch.setattr(reader, "OPEN_IN_THREAD", math.inf)


@attrs.define(eq=False)
class Hospitals:
    """Two Routers at one Bridge. What is opened to `b` is served by `far`."""

    bridge: Bridge
    store: Store
    a: Router
    b: Router
    nursery: trio.Nursery
    far: Body
    timeouts: TunnelTimeouts = attrs.field(factory=TunnelTimeouts)
    allowances: tuple[Allowance, Allowance] = attrs.field(
        factory=lambda: (Allowance(), Allowance())
    )

    def call(self) -> AbstractAsyncContextManager[TunnelAssociation]:
        return open_tunnel(
            self.a.client,
            self.store,
            opening(),
            allowance=self.allowances[0],
            timeouts=self.timeouts,
        )

    async def answer(self) -> None:
        async for message in self.b.opens:
            self.nursery.start_soon(self._serve, message)

    async def _serve(self, message) -> None:
        async with accept_tunnel(
            self.b.client,
            self.store,
            received(message),
            allowance=self.allowances[1],
            timeouts=self.timeouts,
        ) as association:
            await self.far(association)

    def left_behind(self) -> list[str]:
        """Whatever is still there of sessions that are over."""
        found = [f"session {s.hex()[:8]} at the Bridge" for s in self.bridge.registry.sessions]
        for name, router in (("a", self.a), ("b", self.b)):
            sessions = router.client._sessions
            for what in ("_ports", "_offered", "_unsaid", "_unheard"):
                if held := getattr(sessions, what):
                    found.append(f"{len(held)} {what} at {name}")
            if router.client._requests._pending:
                found.append(f"requests at {name}")
        for connection in self.bridge.hub._exchange.connections():
            waiting = connection.outbox
            if waiting._sessions or waiting._turns or waiting._drained or waiting._session_bytes:
                found.append("frames in an outbox of the hub")
        if any(allowance.in_line._left != IN_LINE_WINDOW_IN_ALL for allowance in self.allowances):
            found.append("in-line allowance")
        return found


@asynccontextmanager
async def hospitals(far: Body, store: Store | None = None) -> AsyncIterator[Hospitals]:
    async with running_bridge() as bridge, trio.open_nursery() as nursery:

        async def put_urls(
            router: bytes, session: bytes, direction: Direction, first: int, count: int
        ) -> list[SignedRow]:
            if (ends := bridge.registry.sessions.get(session)) is None:
                raise Refused(404, "unknown session")  # it was ended meanwhile
            assert ends[direction] == router
            return [row("PUT", session, direction, n) for n in range(first, first + count)]

        async def read_urls(
            session: bytes, direction: Direction, slot: int
        ) -> tuple[SignedRow, SignedRow]:
            return row("GET", session, direction, slot), row("DELETE", session, direction, slot)

        bridge.registry.put_urls = put_urls
        bridge.registry.read_urls = read_urls
        a, b = await bridge.router("a"), await bridge.router("b")
        both = Hospitals(bridge, store or Store(), a, b, nursery, far)
        nursery.start_soon(both.answer)
        yield both
        nursery.cancel_scope.cancel()


def row(method: str, session: bytes, direction: Direction, slot: int) -> SignedRow:
    return method, f"https://store.example/{session.hex()}/{int(direction)}/{slot}", (), 0


async def until_over(association: TunnelAssociation) -> list[Atom]:
    atoms: list[Atom] = []
    while not (atoms and isinstance(atoms[-1], records.FINAL_ATOMS)):
        atoms.append(plain(await association.receive()))
    return atoms


async def store_images(association: TunnelAssociation) -> None:
    """An SCP: answers each data set once it is whole, and releases when asked."""
    await association.send(AC)
    while not isinstance(atom := await association.receive(), records.FINAL_ATOMS):
        if isinstance(atom, PDV) and atom.is_last and not atom.is_command:
            await association.send(RESPONSE)
        if isinstance(atom, AReleaseRQ):
            await association.send(AReleaseRP())
            return


async def send_images(association: TunnelAssociation, count: int) -> int:
    """An SCU; how many of its objects it was told to be stored, without a word too many."""
    answers = 0
    for number in range(count + 1):
        while not isinstance(atom := plain(await association.receive()), PDV) and atom != AC:
            return answers
        answers += atom == RESPONSE
        assert answers == number
        if number < count:
            await association.send(COMMAND, end_of_message=False)
            await association.send(IMAGE)
    await association.send(AReleaseRQ())
    assert await until_over(association) in ([AReleaseRP()], [LOST])
    return answers


# --- many sessions --------------------------------------------------------------------------------


async def test_many_sessions_leave_nothing_behind(
    autojump_clock: MockClock, full_size: bool
) -> None:
    """Released, aborted at either end, rejected, given up before the answer, and cancelled."""
    sessions = 1000 if full_size else 210  # of each ending thirty: what one leaves is seen
    endings = ["release", "abort", "far abort", "reject", "give up", "cancel", "leave"]

    async def far(association: TunnelAssociation) -> None:
        how = endings[served.pop(0) % len(endings)] if served else "release"
        if how == "reject":
            await association.send(AAssociateRJ(1, 1, 1))
        elif how == "far abort":
            await association.send(AC)
            await association.receive()
            await association.abort(0, 0)
        else:
            await store_images(association)

    async def one(number: int, both: Hospitals) -> None:
        how = endings[number % len(endings)]
        with trio.move_on_after(0.5 if how == "cancel" else math.inf):
            async with both.call() as association:
                if how == "give up":
                    return
                served.append(number)
                if how == "cancel":
                    await association.receive()
                    await association.send(IMAGE)
                    await trio.sleep_forever()
                if how in ("abort", "leave"):
                    await association.receive()
                    await association.send(IMAGE)
                if how == "abort":
                    await association.abort(0, 0)
                elif how != "leave":
                    await send_images(association, 1)

    served: list[int] = []
    async with hospitals(far) as both:
        with trio.fail_after(3600):
            for number in range(7):  # what is made once is made now
                await one(number, both)
            await trio.sleep(120)
            gc.collect()
            tasks = trio.lowlevel.current_statistics().tasks_living
            descriptors = len(os.listdir("/proc/self/fd"))
            for number in range(sessions):
                await one(number, both)
            await trio.sleep(30)
        assert both.left_behind() == []
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == descriptors
        kept = [o for o in gc.get_objects() if isinstance(o, TunnelAssociation)]
        assert len(kept) <= 1
        # What was on its way when a session was broken off is the sweeper's.
        assert len(both.store.objects) <= (7 + sessions) * 2


# --- the Bridge dies at the worst moment ---------------------------------------------------------


@pytest.mark.parametrize("outage", [0.0, 3.0])
@pytest.mark.parametrize("moment", ["stored", "answered", "announced", "final", "opened"])
async def test_a_bridge_that_dies_at_that_moment_loses_nothing(
    moment: str, outage: float, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between PUT and Announce, Answer and the first chunk, on each end's last words: once each."""
    struck: list[str] = []

    class Deadly(Store):
        async def put(self, request: ObjectRequest, data: bytes) -> None:
            await super().put(request, data)
            if moment == "stored":
                strike()

        async def get(self, request: ObjectRequest, size: int) -> bytes:
            if moment == "opened":
                strike()
            return await super().get(request, size)

    def strike() -> None:
        if not struck:
            struck.append(moment)
            both.bridge.stop()
            both.nursery.start_soon(restart)

    async def restart() -> None:
        await trio.sleep(outage)
        both.bridge.start()

    send = MemorySocket.send

    async def watched(self: MemorySocket, frame: bytes) -> None:
        message: Message = decode(frame)
        from_b = self is both.bridge.sockets.get(both.b.public)
        final = moment == "final" and from_b and releasing
        if isinstance(message, (InLine, Announce)) and (moment == "announced" or final):
            strike()
        await send(self, frame)
        if isinstance(message, Answer) and from_b and moment == "answered":
            strike()

    releasing: list[bool] = []

    async def far(association: TunnelAssociation) -> None:
        await association.send(AC)
        while not isinstance(atom := await association.receive(), AReleaseRQ):
            got.append(plain(atom))
            if isinstance(atom, PDV) and atom.is_last and not atom.is_command:
                await association.send(RESPONSE)
        releasing.append(True)
        await association.send(AReleaseRP())

    got: list[Atom] = []
    async with hospitals(far, Deadly()) as both:
        monkeypatch.setattr(MemorySocket, "send", watched)
        with trio.fail_after(120):
            async with both.call() as association:
                assert await send_images(association, 5) == 5
            await trio.sleep(30)
        assert struck
        assert merged(got) == [COMMAND, IMAGE] * 5
        assert both.left_behind() == []


async def test_both_routers_reconnect_at_once_again_and_again(autojump_clock: MockClock) -> None:
    async with hospitals(store_images, Store()) as both:
        both.store.delay = 0.2

        async def cut() -> None:
            while True:
                await trio.sleep(3)
                for router in (both.a, both.b):
                    both.bridge.cut(router)

        with trio.fail_after(600):
            async with both.call() as association, trio.open_nursery() as nursery:
                nursery.start_soon(cut)
                assert await send_images(association, 30) == 30
                nursery.cancel_scope.cancel()


# --- cancelled at every step ---------------------------------------------------------------------


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when its task has run for the nth time."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope, self.step = scope, step
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.step -= 1
            if self.step == 0:
                self.scope.cancel()


async def cancelled(step: int, body: Callable[[], Awaitable[object]]) -> None:
    """Run `body`, cancelled at that step of this task."""
    with trio.CancelScope() as scope:
        instrument = CancelAtStep(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            await body()
        finally:
            trio.lowlevel.remove_instrument(instrument)


@pytest.mark.parametrize("step", range(1, 41))
@pytest.mark.parametrize("end", ["caller", "callee"])
async def test_a_body_that_is_cancelled_at_any_step_leaves_nothing(
    end: str, step: int, autojump_clock: MockClock
) -> None:
    """Both ends are over soon, by an abort or as they would have been."""
    far_over: list[Atom] = []
    finished: list[float] = []

    async def far(association: TunnelAssociation) -> None:
        if end == "callee":
            await cancelled(step, lambda: store_images(association))
        else:
            await association.send(AC)
            while not (far_over and isinstance(far_over[-1], records.FINAL_ATOMS)):
                atom = await association.receive()
                far_over.append(plain(atom))
                if isinstance(atom, PDV) and atom.is_last and not atom.is_command:
                    await association.send(RESPONSE)
                if isinstance(atom, AReleaseRQ):
                    await association.send(AReleaseRP())
                    return

    async with hospitals(far) as both:

        async def near() -> None:
            with suppress(AssociationAborted):
                async with both.call() as association:
                    await send_images(association, 2)

        start = trio.current_time()
        await (cancelled(step, near) if end == "caller" else near())
        finished.append(trio.current_time() - start)
        await trio.sleep(10)
        assert both.left_behind() == []
    assert finished[0] < session.CANCELLED_LIMIT + 2 * session.GOODBYE_LIMIT
    if end == "caller" and far_over:
        assert far_over[-1] == LOST or isinstance(far_over[-1], AReleaseRQ)
