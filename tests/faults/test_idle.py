"""An association that says nothing for a working day goes on as if it had been asked just now.

The whole path in one process on a mock clock: two devices, two Routers' clients and passthroughs,
and the real hub; only the sockets and the object store are in memory. There is no limit of Relay's
own on how long an association may say nothing: only devices know what they wait for.
"""

import gc
import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay import scu
from relay.association import TCPAssociation
from relay.dicom import dimse, negotiation, uids
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import PDV, AAbort, AAssociateAC, AAssociateRQ, AReleaseRP, AReleaseRQ, encode
from relay.errors import ProviderError, Refused
from relay.router.direction import Verdict
from relay.router.passthrough import Ending, How, join
from relay.signalling.hub import SignedRow
from relay.signalling.limits import Timeouts as SignallingTimeouts
from relay.signalling.messages import Direction, Message, Open, Ping, Progress, decode
from relay.tunnel import reader, writer
from relay.tunnel.allowance import IN_LINE_WINDOW_IN_ALL, Allowance
from relay.tunnel.pulse import IDLE_INTERVAL
from relay.tunnel.session import accept_tunnel, open_tunnel
from relay.tunnel.store import ObjectRequest
from tests.association_pairs import CT_IMAGE_STORAGE, IMPLICIT, pair
from tests.signalling.bridge import Bridge, MemorySocket, Router, running_bridge
from tests.tunnel.fakes import Store, opening, received

WORKING_DAY = 8 * 3600.0
HEARTBEAT = SignallingTimeouts().heartbeat

# What the Bridge gives its signed URLs (relay.bridge.sessions).
LIFETIMES = {"PUT": 300.0, "GET": 60.0, "DELETE": 300.0}

# Does not go in line.
IMAGE = os.urandom(100_000)


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock clock jumps while a thread works: what is timed seals and opens in line."""
    monkeypatch.setattr(writer, "SEAL_IN_THREAD", math.inf)
    monkeypatch.setattr(reader, "OPEN_IN_THREAD", math.inf)


class ExpiringStore(Store):
    """Refuses what was signed too long ago; the URL says when that was."""

    async def _request(self, request: ObjectRequest) -> None:
        await super()._request(request)
        signed = float(request.url.rpartition("?")[2])
        if trio.current_time() - signed > LIFETIMES[request.method]:
            raise ProviderError("answered 403", permanent=True)

    async def put(self, request: ObjectRequest, parts: Sequence[bytes]) -> None:
        await self._request(request)
        self.puts += 1
        self.objects[request.url.partition("?")[0]] = b"".join(parts)

    async def get(self, request: ObjectRequest, size: int) -> bytes:
        await self._request(request)
        self.gets += 1
        return self.objects[request.url.partition("?")[0]]

    async def delete(self, request: ObjectRequest) -> None:
        await self._request(request)
        del self.objects[request.url.partition("?")[0]]


class Everything:
    """A guard that lets all pass; what it decides is not what this is about."""

    def __init__(self) -> None:
        self._readers = dimse.CommandReader(), dimse.CommandReader()

    def negotiated(self, answer: AAssociateAC) -> None:
        pass

    def outward(self, pdv: PDV) -> Verdict:
        return self._pass(self._readers[0], pdv)

    def inward(self, pdv: PDV) -> Verdict:
        return self._pass(self._readers[1], pdv)

    @staticmethod
    def _pass(messages: dimse.CommandReader, pdv: PDV) -> Verdict:
        messages.feed(pdv)
        return Verdict((pdv,), ends=not messages.message_open)


@attrs.define(eq=False)
class Path:
    """From the caller's device to the called one."""

    bridge: Bridge
    a: Router
    b: Router
    nursery: trio.Nursery
    store: Any = attrs.field(factory=ExpiringStore)
    allowances: tuple[Allowance, Allowance] = attrs.field(
        factory=lambda: (Allowance(), Allowance())
    )
    endings: list[Ending] = attrs.field(factory=list)
    spoke: Counter[type[Message]] = attrs.field(factory=Counter)

    async def call(self) -> TCPAssociation:
        """The calling device's association with its Router."""
        device, router = pair()
        self.nursery.start_soon(self._caller_side, router)
        await device.send(REQUEST)
        return device

    async def _caller_side(self, near: TCPAssociation) -> None:
        request = await near.receive()
        assert isinstance(request, AAssociateRQ)
        async with open_tunnel(
            self.a.client, self.store, opening(encode(request)), allowance=self.allowances[0]
        ) as far:
            self.endings.append(await join(near, far, Everything(), tunnel=far, answer_wait=25))
        await near.aclose()

    async def answer(self) -> None:
        async for message in self.b.opens:
            self.nursery.start_soon(self._callee_side, message)

    async def _callee_side(self, message: Open) -> None:
        router, device = pair()
        self.nursery.start_soon(_device, device)
        async with accept_tunnel(
            self.b.client, self.store, received(message), allowance=self.allowances[1]
        ) as near:
            await router.send(REQUEST)
            self.endings.append(await join(near, router, Everything(), tunnel=near, answer_wait=25))
        await router.aclose()

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
        if any(allowance.in_line._left != IN_LINE_WINDOW_IN_ALL for allowance in self.allowances):
            found.append("in-line allowance")
        return found


REQUEST = negotiation.request(
    "PACS",
    "MODALITY",
    negotiation.propose([(uids.VERIFICATION, [IMPLICIT]), (CT_IMAGE_STORAGE, [IMPLICIT])]),
)


async def _device(association: TCPAssociation) -> None:
    rq = await association.receive()
    assert isinstance(rq, AAssociateRQ)
    await association.send(negotiation.answer(rq, lambda context: context.transfer_syntaxes[0]))
    messages = dimse.CommandReader()
    asked = None
    while True:
        match await association.receive():
            case PDV() as pdv:
                asked = messages.feed(pdv) or asked
                if asked is not None and not messages.message_open:
                    response = dimse.response_to(asked, 0)
                    await association.send(PDV(pdv.context_id, True, True, response.encode()))
                    asked = None
            case AReleaseRQ():
                await association.send(AReleaseRP())
                break
            case _:
                break
    await association.aclose()


@asynccontextmanager
async def path(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    async with running_bridge() as bridge, trio.open_nursery() as nursery:

        def row(method: str, session: bytes, direction: Direction, slot: int) -> SignedRow:
            name = f"{session.hex()}/{int(direction)}/{slot}"
            return method, f"https://store.example/{name}?{trio.current_time()}", (), 0

        async def put_urls(
            router: bytes, session: bytes, direction: Direction, first: int, count: int
        ) -> list[SignedRow]:
            if session not in bridge.registry.sessions:
                raise Refused(404, "unknown session")
            return [row("PUT", session, direction, slot) for slot in range(first, first + count)]

        async def read_urls(
            session: bytes, direction: Direction, slot: int
        ) -> tuple[SignedRow, SignedRow]:
            return row("GET", session, direction, slot), row("DELETE", session, direction, slot)

        monkeypatch.setattr(bridge.registry, "put_urls", put_urls)
        monkeypatch.setattr(bridge.registry, "read_urls", read_urls)
        whole = Path(bridge, await bridge.router("a"), await bridge.router("b"), nursery)
        send = MemorySocket.send

        async def counted(self: MemorySocket, frame: bytes) -> None:
            whole.spoke[type(decode(frame))] += 1
            await send(self, frame)

        monkeypatch.setattr(MemorySocket, "send", counted)
        nursery.start_soon(whole.answer)
        yield whole
        nursery.cancel_scope.cancel()


async def established(device: TCPAssociation) -> dict[str, AcceptedContext]:
    answer = await device.receive()
    assert isinstance(answer, AAssociateAC)
    accepted = negotiation.accepted_contexts(REQUEST, answer)
    return {context.abstract_syntax: context for context in accepted.values()}


async def tasks_at_rest() -> int:
    """How many tasks there are while nothing is on its way."""
    counts = []
    for _ in range(50):
        await trio.sleep(0.3)
        counts.append(trio.lowlevel.current_statistics().tasks_living)
    return min(counts)


async def used(device: TCPAssociation, contexts: dict[str, AcceptedContext]) -> None:
    """A C-ECHO, and a C-STORE by the object store."""
    assert await scu.echo(device, contexts[uids.VERIFICATION]) == 0
    assert await scu.store(device, contexts[CT_IMAGE_STORAGE], CT_IMAGE_STORAGE, "1.2", IMAGE) == 0


@pytest.mark.parametrize("cuts", [0, 8])
async def test_eight_hours_of_nothing(
    cuts: int, full_size: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Also where the line to either Router falls each hour (of a shorter day, if not in full)."""
    day = WORKING_DAY if full_size or not cuts else WORKING_DAY / 8
    async with path(monkeypatch) as both:
        await trio.sleep(60)
        quiet = await tasks_at_rest()
        device = await both.call()
        contexts = await established(device)
        await used(device, contexts)
        tasks = await tasks_at_rest()
        gc.collect()
        objects = len(gc.get_objects())
        both.spoke.clear()

        start = trio.current_time()
        for _ in range(cuts):
            await trio.sleep(day / cuts)
            both.bridge.cut(both.a)
            await trio.sleep(10)
            both.bridge.cut(both.b)
        await trio.sleep_until(start + day)
        hours = trio.current_time() - start
        await trio.sleep(60)

        # Four sockets' ends say Ping, and each end of the session where it stands; the hub passes
        # that on.
        assert both.spoke[Ping] <= 4 * (hours / HEARTBEAT + 20) + 50 * cuts
        assert both.spoke[Progress] <= 2 * 2 * (hours / IDLE_INTERVAL + 20) + 50 * cuts
        assert min(both.spoke[Ping], both.spoke[Progress]) >= hours / HEARTBEAT
        assert await tasks_at_rest() == tasks
        gc.collect()
        assert len(gc.get_objects()) - objects < 1000

        puts = both.store.puts
        await used(device, contexts)
        assert both.store.puts > puts
        await scu.release(device)
        await device.aclose()
        await trio.sleep(60)
        assert [ending.how for ending in both.endings] == [How.RELEASED, How.RELEASED]
        assert both.left_behind() == []
        assert await tasks_at_rest() == quiet
        assert both.store.objects == {}


@pytest.mark.parametrize("who", ["the caller", "the far Router"])
async def test_who_is_gone_after_an_hour_is_missed(
    who: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Only devices may be silent: a device that aborts or a Router that is gone ends it."""
    async with path(monkeypatch) as both:
        device = await both.call()
        contexts = await established(device)
        assert await scu.echo(device, contexts[uids.VERIFICATION]) == 0
        await trio.sleep(WORKING_DAY / 8)
        start = trio.current_time()
        if who == "the caller":
            await device.abort()
        else:
            both.bridge.stop()
            assert isinstance(await device.receive(), AAbort)
        while len(both.endings) < 2:
            await trio.sleep(0.1)
        assert trio.current_time() - start < 45
        assert {ending.how for ending in both.endings} == {How.ABORTED}
        await device.aclose()
