"""The Bridge's pages in front of its real REST, over rooms in memory: asked as a browser asks."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from relay.audit.audit import open_audit
from relay.audit.document import AuditSource
from relay.audit.operations import audit_operations
from relay.bridge.backend import BridgeBackend
from relay.bridge.control import Administration, control_operations
from relay.bridge.metering import Meter
from relay.bridge.opened import OpenedObjects
from relay.bridge.pages.app import NAVIGATION, routes
from relay.bridge.rates import Rates
from relay.bridge.restored import Restored
from relay.bridge.seen import LastSeen
from relay.bridge.sessions import Sessions
from relay.bridge.stores import Stores, open_stores
from relay.bridge.sweeper import Sweeper
from relay.database import open_database
from relay.pages.app import make_site
from relay.pages.door import cookie_name, cookie_of, form_token
from relay.pages.hosts import Hosts
from relay.people.people import People
from relay.people.roles import Role
from relay.people.schema import PEOPLE
from relay.providers import registry
from relay.providers.registry import Host
from relay.signalling.hub import Hub
from tests.bridge.conftest import NOW, Rooms, Router, rooms
from tests.bridge.pages.reading import Page
from tests.bridge.stores import FakeKind

__all__ = ["rooms"]

ORIGIN = "http://localhost:8080"
# What somebody could call a hospital or a device if nobody checked: each page must show it as text.
EVIL = "<b onmouseover=alert(1)>\"'&amp;\u202egnp\n</td><script>alert(2)</script>مستشفى"


@attrs.define(eq=False)
class Bridge:
    """The rooms, and the app of the pages over them."""

    rooms: Rooms
    administration: Administration
    stores: Stores
    sessions: Sessions
    people: People
    here: set[bytes]
    app: Any
    fake: FakeKind

    async def browser(self, role: Role = Role.ADMINISTRATOR) -> "Browser":
        """A browser in which somebody of this role is signed in."""
        name = role.value
        if self.people.persons.find(name) is None:
            await self.people.persons.add(name, role, None, NOW)
        secret = await self.people.sign_ins.begin(name, "127.0.0.1", "test")
        cookie = cookie_name(cookie_of(self.rooms.identity.fingerprint), secure=False)
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, client=("127.0.0.1", 50000)),
            base_url=ORIGIN,
            cookies={cookie: secret},
        )
        return Browser(client, form_token(secret))

    async def publishing(self, name: str, *titles: str) -> Router:
        return await self.rooms.publishing(name, *titles)

    async def granting(self) -> tuple[Router, Router]:
        """North, and South, which publishes PACS and grants its use to North."""
        north, south = await self.rooms.router("North"), await self.publishing("South", "PACS")
        await self.rooms.registry.grants(south.id, [(north.id, "PACS", ("store",))])
        return north, south

    async def session(self, caller: Router, callee: Router, called: str = "PACS") -> str:
        """The id of a session that is open now."""
        message = caller.opening(callee, called)
        await self.sessions.open(caller.id, message, callee_connected=True)
        return message.session.hex()

    async def rename(self, table: str, column: str, value: str) -> None:
        """Put a text there that no check would let in."""
        await self.rooms.database.run(
            lambda db: db.execute(f'UPDATE "{table}" SET {column} = ?', (value,)).fetchall()
        )


@attrs.define(eq=False)
class Browser:
    """Somebody who is signed in. Pages are read with `Page`, which checks how they are made."""

    client: httpx.AsyncClient
    token: str

    async def get(self, path: str, status: int = 200) -> Page:
        answer = await self.client.get(path)
        assert answer.status_code == status, answer.text
        return Page(answer.text)

    async def post(self, path: str, status: int = 200, **fields: str) -> Page:
        """Send a form, and see where it leads."""
        answer = await self.send(path, **fields)
        if answer.status_code == 303:
            answer = await self.client.get(answer.headers["location"])
        assert answer.status_code == status, answer.text
        return Page(answer.text)

    async def send(self, path: str, **fields: str) -> httpx.Response:
        """Send a form; the answer as it is."""
        return await self.client.post(
            path, data={"token": self.token, **fields}, headers={"origin": ORIGIN}
        )

    async def stream(self, path: str) -> dict[str, Page]:
        """The blocks that a live stream begins with, by their ids."""
        return await blocks_of(self.client, path)


async def blocks_of(client: httpx.AsyncClient, path: str) -> dict[str, Page]:
    """Asked by ASGI itself: httpx's transport would wait for the stream's end."""
    from tests.bridge.pages.reading import blocks

    app = client._transport.app  # type: ignore[attr-defined]
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    return await blocks(app, path, cookies)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeKind:
    kind = FakeKind()
    monkeypatch.setattr(registry, "BUILT_IN", {**registry.BUILT_IN, "fake": kind})
    return kind


@asynccontextmanager
async def furnished(rooms: Rooms, folder: Path, fake: FakeKind) -> AsyncIterator[Bridge]:
    def host(name: str) -> Host:
        return Host(folder / "stores" / name, "https://bridge.example", b"k" * 32, 2**20)

    here: set[bytes] = set()
    (folder / "stores").mkdir()
    async with (
        open_stores(rooms.database, host, clock=rooms.clock) as stores,
        open_database(folder / "people.db", (PEOPLE,)) as database,
        AsyncExitStack() as stack,
    ):
        sessions = Sessions(
            rooms.database,
            stores.providers,
            in_use=stores.in_use,
            clock=rooms.clock,
            monotonic=trio.current_time,
        )
        sweeper = Sweeper(sessions, stores.providers, clock=rooms.clock)
        opened = OpenedObjects(stores.providers, has=lambda name: False)
        backend = BridgeBackend(rooms.registry, sessions, sweeper, opened)
        backend.hub = hub = Hub(rooms.identity, rooms.network.network, backend)
        administration = Administration(
            url="https://bridge.example",
            network=rooms.network.network,
            identity=rooms.identity.public,
            started=NOW,
            certificate_ends=None,
            registry=rooms.registry,
            enrolment=rooms.enrolment,
            sessions=sessions,
            backend=backend,
            hub=hub,
            stores=stores,
            seen=LastSeen(rooms.database, lambda: here, clock=rooms.clock),
            rates=Rates(lambda: (0, 0), clock=rooms.clock),
            meter=Meter(),
            restored=await Restored.load(rooms.database),
        )
        people = await People.load(database)
        source = AuditSource("bridge.example", "Bridge")
        audit = await stack.enter_async_context(open_audit(folder, lambda: source))
        operations = control_operations(administration)
        if "/v1/audit" not in {operation.path for operation in operations}:
            operations += audit_operations(audit)
        app = make_site(
            name=lambda: "bridge.example",
            fingerprint=rooms.identity.fingerprint,
            mode="Bridge",
            navigation=NAVIGATION,
            routes=routes,
            operations=operations,
            people=people,
            package="relay.bridge.pages",
            hosts=Hosts.of([]),
        )
        yield Bridge(rooms, administration, stores, sessions, people, here, app, fake)
        people.close()


@pytest.fixture
async def bridge(rooms: Rooms, tmp_path: Path, fake: FakeKind):
    async with furnished(rooms, tmp_path, fake) as bridge:
        yield bridge


Making = Callable[[], AsyncIterator[Bridge]]
