"""Hub and registry together: who is told what, and what ends whose sessions."""

import os
from contextlib import asynccontextmanager

import httpx
import trio
import trio.testing

from relay.bridge.backend import (
    ABANDONED_AFTER,
    EXPIRY_INTERVAL,
    UNANSWERED_AFTER,
    BridgeBackend,
)
from relay.bridge.opened import OpenedObjects
from relay.bridge.sessions import Sessions
from relay.bridge.sweeper import Sweeper
from relay.signalling.messages import (
    Announce,
    Answer,
    End,
    EndReason,
    Grants,
    Progress,
    Publish,
    Resign,
    Slots,
)

from .conftest import PATIENCE, Bridge, Connected, Rooms, connected, running


@asynccontextmanager
async def pair(bridge: Bridge):
    """North, which may store to South's PACS; both connected."""
    north, south = await bridge.enrol("North"), await bridge.enrol("South")
    publish = (south.publication("PACS"),)
    grants = ((north.id, "PACS", ("store",)),)
    async with (
        connected(bridge, south, publish=publish, grants=grants) as callee,
        connected(bridge, north) as caller,
    ):
        yield caller, callee


class Session:
    """One session with its ports at both ends."""

    def __init__(self, caller: Connected, callee: Connected) -> None:
        self.caller, self.callee = caller, callee
        self.opening = caller.router.opening(callee.router, "PACS")
        self.id = self.opening.session
        self.near = caller.client.attach(self.id)

    async def open(self) -> "Session":
        await self.caller.client.send(self.opening)
        await self.callee.heard(lambda heard: any(o.session == self.id for o in heard.opens))
        self.far = self.callee.client.attach(self.id)
        await self.far.send(Answer(self.id, b"answer"))
        assert await self.said(self.near, Answer)
        return self

    async def said(self, port, kind):
        with trio.fail_after(PATIENCE):
            while True:
                message = await port.receive()
                if isinstance(message, kind):
                    return message

    async def put(self, http: httpx.AsyncClient, data: bytes, slot: int = 0) -> None:
        reply = await self.caller.client.request(lambda n: Slots(n, self.id, slot, 1))
        [(method, url, headers, _)] = reply.puts
        answer = await http.request(method, url, headers=list(headers), content=data)
        assert answer.status_code == 201


def blobs(bridge: Bridge) -> list[str]:
    objects = bridge.handle.control.parent / "stores" / "disk" / "objects"
    return [path.name for path in objects.rglob("*") if path.is_file()]


async def until(condition) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.02)  # the sweeper tells nobody


async def test_a_chunk_crosses_by_signed_urls(bridge: Bridge) -> None:
    async with pair(bridge) as (caller, callee), httpx.AsyncClient(trust_env=False) as http:
        session = await Session(caller, callee).open()
        data = os.urandom(1_000_000)
        await session.put(http, data)
        await session.near.send(Announce(session.id, 0, 1, 0, len(data), (), ()))
        announced = await session.said(session.far, Announce)
        [(_, get, _, _)] = announced.get
        assert (await http.get(get)).content == data
        reply = await callee.client.request(lambda n: Resign(n, session.id, 0))
        assert (await http.get(reply.get[0][1])).content == data
        assert (await http.delete(get)).status_code == 403
        assert announced.delete == reply.delete == ()


async def test_what_its_reader_has_opened_is_deleted(bridge: Bridge) -> None:
    nothing = (0, 0, 0, 0, 0)
    async with pair(bridge) as (caller, callee), httpx.AsyncClient(trust_env=False) as http:
        session = await Session(caller, callee).open()
        for slot in range(3):
            await session.put(http, b"sealed", slot)
        # The writer has no say in it: of its own direction it has opened nothing.
        await session.near.send(Progress(session.id, nothing, nothing, slots=3))
        await session.far.send(Progress(session.id, nothing, nothing, slots=2))
        await until(lambda: len(blobs(bridge)) == 1)
        await session.near.send(Announce(session.id, 0, 1, 2, 6, (), ()))
        [(_, get, _, _)] = (await session.said(session.far, Announce)).get
        assert (await http.get(get)).content == b"sealed"
        await session.far.send(Progress(session.id, nothing, nothing, slots=2**62))
        await until(lambda: blobs(bridge) == [])


async def test_a_router_is_told_what_others_grant_it(bridge: Bridge) -> None:
    async with pair(bridge) as (north, south):
        store = ((south.router.id, "PACS", ("store",)),)
        await north.heard(lambda heard: heard.granted and heard.granted[-1].rows == store)
        await south.client.request(lambda n: Grants(n, ()))
        await north.heard(lambda heard: heard.granted[-1].rows == ())
        await south.client.request(lambda n: Grants(n, ((north.router.id, "PACS", ("store",)),)))
        await north.heard(lambda heard: heard.granted[-1].rows == store)
        await south.client.request(lambda n: Publish(n, ()))
        await north.heard(lambda heard: heard.granted[-1].rows == ())
        await south.client.request(lambda n: Publish(n, (south.router.publication("PACS"),)))
        await north.heard(lambda heard: heard.granted[-1].rows == store)
        fingerprint = south.router.identity.fingerprint
        assert (await bridge.control.post(f"/v1/routers/{fingerprint}/revoke")).status_code == 204
        await north.heard(lambda heard: heard.granted[-1].rows == ())
        assert [message.rows for message in south.granted] == [()]  # nothing of anybody's


async def test_the_end_sweeps(bridge: Bridge) -> None:
    async with pair(bridge) as (caller, callee), httpx.AsyncClient(trust_env=False) as http:
        session = await Session(caller, callee).open()
        await session.put(http, b"sealed")
        assert len(blobs(bridge)) == 1
        await session.near.send(End(session.id, EndReason.FINISHED))
        assert (await session.said(session.far, End)).reason == EndReason.FINISHED
        await until(lambda: blobs(bridge) == [])
        assert await bridge.get("/v1/sessions") == []


async def test_revoking_a_router_within_five_seconds(bridge: Bridge) -> None:
    async with pair(bridge) as (caller, callee), httpx.AsyncClient(trust_env=False) as http:
        session = await Session(caller, callee).open()
        await session.put(http, b"sealed")
        fingerprint = caller.router.identity.fingerprint
        with trio.fail_after(5):
            assert (
                await bridge.control.post(f"/v1/routers/{fingerprint}/revoke")
            ).status_code == 204
            assert (await session.said(session.far, End)).reason == EndReason.REVOKED
            await until(lambda: blobs(bridge) == [])
            await callee.heard(
                lambda heard: any(caller.router.id in d.gone_routers for d in heard.directories)
            )
        [row] = [r for r in await bridge.get("/v1/routers") if r["name"] == "North"]
        assert (row["connected"], row["revoked"]) == (False, True)


async def test_a_grant_that_is_taken_back_ends_its_sessions(bridge: Bridge) -> None:
    async with pair(bridge) as (caller, callee):
        session = await Session(caller, callee).open()
        with trio.fail_after(5):
            await callee.client.request(lambda n: Grants(n, ()))
            assert (await session.said(session.near, End)).reason == EndReason.REVOKED
        refused = Session(caller, callee)
        await caller.client.send(refused.opening)
        assert (await session.said(refused.near, End)).reason == EndReason.NOT_GRANTED


async def test_a_device_that_is_withdrawn_ends_its_sessions(bridge: Bridge) -> None:
    async with pair(bridge) as (caller, callee):
        session = await Session(caller, callee).open()
        with trio.fail_after(5):
            await callee.client.request(lambda n: Publish(n, ()))
            assert (await session.said(session.near, End)).reason == EndReason.REVOKED
            await caller.heard(
                lambda heard: any("PACS" in d.gone_titles for d in heard.directories)
            )


async def test_title_taken_is_told_to_the_second(bridge: Bridge) -> None:
    async with pair(bridge) as (caller, _):
        statement = caller.router.publication("PACS")
        reply = await caller.client.request(lambda n: Publish(n, (statement,)))
        assert "publish it under another title" in reply.refusals[0]


async def test_callee_that_is_away(bridge: Bridge) -> None:
    north, south = await bridge.enrol("North"), await bridge.enrol("South")
    publish = (south.publication("PACS"),)
    grants = ((north.id, "PACS", ("store",)),)
    async with connected(bridge, south, publish=publish, grants=grants):
        pass
    async with connected(bridge, north) as caller:
        opening = north.opening(south, "PACS")
        port = caller.client.attach(opening.session)
        await caller.client.send(opening)
        with trio.fail_after(PATIENCE):
            while not isinstance(message := await port.receive(), End):
                pass
        assert message.reason == EndReason.CALLEE_OFFLINE
        assert await bridge.get("/v1/sessions") == []


async def test_sessions_outlive_a_restart(data_dir) -> None:
    async with running(data_dir) as bridge, pair(bridge) as (caller, callee):
        session = await Session(caller, callee).open()
        async with httpx.AsyncClient(trust_env=False) as http:
            await session.put(http, b"sealed")
        port, before = bridge.port, await bridge.get("/v1/sessions")
        routers = caller, callee
        bridge.stopping.set()
        with trio.fail_after(PATIENCE):
            await bridge.stopped.wait()
        async with running(data_dir, port=port) as again:
            [known], [row] = await again.get("/v1/sessions"), before
            assert {**known, "slots": row["slots"]} == row
            with trio.fail_after(PATIENCE):
                for router in routers:
                    await router.client.wait_connected()
            # A restarted Bridge is only a pause: the same ports go on, the blob is still there.
            with trio.fail_after(PATIENCE):
                while not await session.near.send(Announce(session.id, 0, 1, 0, 6, (), ())):
                    await trio.sleep(0.02)
                announced = await session.said(session.far, Announce)
            async with httpx.AsyncClient(trust_env=False) as http:
                assert (await http.get(announced.get[0][1])).content == b"sealed"


class Hub:
    """A hub with nobody connected but whom a test names; it ends sessions as the real one does."""

    def __init__(self, backend: BridgeBackend) -> None:
        self.backend = backend
        self.here: set[bytes] = set()
        self.ended: list[tuple[bytes, EndReason]] = []

    def connected(self) -> frozenset[bytes]:
        return frozenset(self.here)

    async def end_session(self, session: bytes, reason: EndReason) -> None:
        await self.backend.ended(session, reason)
        self.ended.append((session, reason))


async def test_sessions_expire(rooms: Rooms, granted, nursery, mock_clock) -> None:
    caller, callee = granted
    sessions = Sessions(
        rooms.database, {}, in_use=["disk"], clock=rooms.clock, monotonic=rooms.clock
    )
    sweeper = Sweeper(sessions, {}, clock=rooms.clock)
    backend = BridgeBackend(rooms.registry, sessions, sweeper, OpenedObjects({}))
    backend.hub = hub = Hub(backend)
    hub.here = {caller.id, callee.id}
    answered, waiting = caller.opening(callee, "PACS"), caller.opening(callee, "PACS")
    for message in (answered, waiting):
        await sessions.open(caller.id, message, callee_connected=True)
    await sessions.answered(answered.session, b"answer")
    nursery.start_soon(backend.expire)

    async def later(seconds: float) -> None:
        for _ in range(int(seconds // EXPIRY_INTERVAL)):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(EXPIRY_INTERVAL)
        await trio.testing.wait_all_tasks_blocked()
        await rooms.database.run(lambda db: None)
        await trio.testing.wait_all_tasks_blocked()

    await later(UNANSWERED_AFTER - EXPIRY_INTERVAL)
    assert hub.ended == []
    await later(3 * EXPIRY_INTERVAL)
    assert hub.ended == [(waiting.session, EndReason.EXPIRED)]
    await later(2 * ABANDONED_AFTER)
    assert len(hub.ended) == 1  # both ends are there, however long it takes
    hub.here.remove(callee.id)
    await later(ABANDONED_AFTER - EXPIRY_INTERVAL)
    assert len(hub.ended) == 1
    await later(3 * EXPIRY_INTERVAL)
    assert hub.ended[1:] == [(answered.session, EndReason.EXPIRED)]
