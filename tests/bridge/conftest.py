"""A Bridge's rooms one by one, and a whole one on real ports with Routers' identities."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import pytest
import trio

from relay.bridge.app import BridgeHandle, run_bridge
from relay.bridge.enrolment import Enrolment
from relay.bridge.registry import Registry
from relay.bridge.schema import MIGRATIONS, Network, load_network
from relay.database import Database, open_database
from relay.identity import Identity, KeyStatement, Publication
from relay.invitation import EnrolmentRequest, Invitation
from relay.signalling.client import SignallingClient
from relay.signalling.messages import (
    Directory,
    Granted,
    Grants,
    Listing,
    Message,
    Open,
    Publish,
    PublishKey,
)
from relay.tunnel.keys import HPKEKeyPair
from tests.interop.processes import free_port

PATIENCE = 10
NOW = 1_800_000_000


@attrs.define
class Clock:
    """Unix seconds that a test moves."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@attrs.define(eq=False)
class Router:
    """A Router as the Bridge sees it: an identity that signs statements."""

    network: bytes
    name: str = "North Hospital"
    identity: Identity = attrs.Factory(Identity.generate)

    @property
    def id(self) -> bytes:
        return self.identity.public

    def key_statement(self, serial: int = 1) -> bytes:
        public = HPKEKeyPair.generate().public
        statement = KeyStatement(self.network, public, serial, NOW + 86400)
        return statement.sign(self.identity)

    def publication(
        self, title: str, serial: int = 1, services: tuple[str, ...] = ("echo", "store")
    ) -> bytes:
        return Publication(self.network, title, services, serial).sign(self.identity)

    def enrolment(self, invitation: Invitation, **changes) -> bytes:
        request = EnrolmentRequest(
            invitation.network,
            invitation.invitation_id,
            self.id,
            self.name,
            self.key_statement(),
        )
        return attrs.evolve(request, **changes).seal(
            self.identity, invitation.code, invitation.bridge
        )

    def opening(self, callee: "Router", called: str, session: bytes | None = None) -> Open:
        """To the Bridge an opening is sealed: any bytes will do."""
        return Open(session or os.urandom(16), callee.id, called, os.urandom(300), os.urandom(300))


@attrs.frozen
class Rooms:
    """The rooms under the hub, over one database."""

    database: Database
    identity: Identity
    network: Network
    registry: Registry
    enrolment: Enrolment
    clock: Clock

    async def router(self, name: str = "North Hospital") -> Router:
        """An enrolled Router."""
        router = Router(self.network.network, name)
        invitation = await self.enrolment.invite(name)
        await self.enrolment.enrol(router.enrolment(invitation))
        return router

    async def publishing(self, name: str, *titles: str) -> Router:
        router = await self.router(name)
        change = await self.registry.publish(router.id, [router.publication(t) for t in titles])
        assert change.refusals == ()
        return router


@pytest.fixture
async def rooms(tmp_path: Path):
    clock = Clock()
    async with open_database(tmp_path / "bridge.db", MIGRATIONS) as database:
        identity, network = await load_network(database, tmp_path)
        yield Rooms(
            database,
            identity,
            network,
            Registry(database, network.network, clock=clock),
            Enrolment(database, identity, network, url="https://bridge.example", clock=clock),
            clock,
        )


@pytest.fixture
async def granted(rooms: Rooms) -> tuple[Router, Router]:
    """A caller, and a callee that publishes PACS and grants it to the caller."""
    caller, callee = await rooms.router("North"), await rooms.publishing("South", "PACS")
    await rooms.registry.grants(callee.id, [(caller.id, "PACS", ("store",))])
    return caller, callee


# --- a whole Bridge -----------------------------------------------------------------------------


@attrs.define(eq=False)
class Bridge:
    """A running Bridge: its network port, and its control socket."""

    handle: BridgeHandle
    url: str
    stopping: trio.Event
    stopped: trio.Event
    control: httpx.AsyncClient
    web: httpx.AsyncClient

    @property
    def port(self) -> int:
        return self.handle.addresses[0][1]

    async def invite(self, name: str = "North Hospital") -> Invitation:
        answer = await self.control.post("/v1/invitations", json={"name": name})
        assert answer.status_code == 201, answer.text
        return Invitation.parse(answer.json()["invitation"])

    async def enrol(self, name: str = "North Hospital") -> Router:
        invitation = await self.invite(name)
        router = Router(invitation.network, name)
        answer = await self.web.post("/v1/enrolments", content=router.enrolment(invitation))
        assert answer.status_code == 201, answer.text
        return router

    async def get(self, path: str):
        answer = await self.control.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def says(self, data: bytes) -> bytes:
        """All that the network port answers to `data` until it closes."""
        with trio.fail_after(PATIENCE):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(data)
                answer = b""
                try:
                    while piece := await stream.receive_some():
                        answer += piece
                except trio.BrokenResourceError:
                    pass  # closed the hard way is closed too
                return answer


Running = Callable[..., AsyncIterator[Bridge]]


@asynccontextmanager
async def running(data_dir: Path, *, port: int | None = None, **settings) -> AsyncIterator[Bridge]:
    """A Bridge in `data_dir`, over plain HTTP as behind a proxy unless settings say otherwise."""
    port = port or free_port()
    settings = {"url": f"http://127.0.0.1:{port}", "behind_proxy": True, **settings}
    stopping, stopped = trio.Event(), trio.Event()

    async def run(task_status: trio.TaskStatus[BridgeHandle]) -> None:
        await run_bridge(
            data_dir=data_dir,
            listen=[("127.0.0.1", port)],
            stopping=stopping,
            task_status=task_status,
            **settings,
        )
        stopped.set()

    async with trio.open_nursery() as nursery:
        handle = await nursery.start(partial(run))
        transport = httpx.AsyncHTTPTransport(uds=str(handle.control))
        async with (
            httpx.AsyncClient(
                transport=transport, base_url="http://relay", trust_env=False
            ) as control,
            httpx.AsyncClient(base_url=settings["url"], trust_env=False) as web,
        ):
            yield Bridge(handle, settings["url"], stopping, stopped, control, web)
        stopping.set()
        with trio.fail_after(PATIENCE):
            await stopped.wait()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def bridge(data_dir: Path):
    async with running(data_dir) as bridge:
        yield bridge


@attrs.define(eq=False)
class Connected:
    """A Router's signalling client, and what came to it."""

    router: Router
    client: SignallingClient
    publish: tuple[bytes, ...] = ()
    grants: tuple[tuple[bytes, str, tuple[str, ...]], ...] = ()
    opens: list[Open] = attrs.Factory(list)
    directories: list[Directory] = attrs.Factory(list)
    granted: list[Granted] = attrs.Factory(list)
    listings: list[Listing] = attrs.Factory(list)
    news: trio.Event = attrs.Factory(trio.Event)
    refusals: list[str] = attrs.Factory(list)

    async def on_connected(self) -> None:
        for build in (
            lambda n: PublishKey(n, self.router.key_statement()),
            lambda n: Publish(n, self.publish),
            lambda n: Grants(n, self.grants),
        ):
            done = await self.client.request(build)
            self.refusals.extend(done.refusals)

    async def heard(self, condition: Callable[["Connected"], bool]) -> None:
        """Wait until `condition` holds of what came."""
        with trio.fail_after(PATIENCE):
            while not condition(self):
                self.news = trio.Event()
                await self.news.wait()

    async def _note(self, message: Message) -> None:
        match message:
            case Open():
                self.opens.append(message)
            case Granted():
                self.granted.append(message)
            case Directory():
                self.directories.append(message)
            case Listing():
                self.listings.append(message)
        self.news.set()


@asynccontextmanager
async def connected(
    bridge: Bridge,
    router: Router,
    *,
    publish: tuple[bytes, ...] = (),
    grants=(),
) -> AsyncIterator[Connected]:
    """`router` on the Bridge's WebSocket, publishing and granting these."""
    info = await bridge.get("/v1/status")
    bridge_identity = (await bridge.invite(os.urandom(8).hex())).bridge
    client = SignallingClient(
        bridge.url, router.identity, bytes.fromhex(info["network"]), bridge_identity
    )
    joined = Connected(router, client, publish, grants)

    async def ignore(message: Message) -> None:
        return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(
                client.run,
                on_connected=joined.on_connected,
                on_open=joined._note,
                on_directory=joined._note,
                on_ask=ignore,
            )
        )
        with trio.fail_after(PATIENCE):
            await client.wait_connected()
        yield joined
        nursery.cancel_scope.cancel()
