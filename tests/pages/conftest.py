"""A site with two pages of its own over a small REST, asked as a browser asks."""

import re
from collections.abc import Sequence
from typing import Any

import attrs
import httpx
import pytest
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from relay.errors import Refused
from relay.pages.api import people_operations
from relay.pages.app import make_site
from relay.pages.hosts import Hosts
from relay.pages.site import Entry, Site
from relay.people.people import People
from relay.people.roles import Role
from relay.web.operations import Operation, with_document
from tests.people.conftest import PASSWORD, Clock, clock, database, people

__all__ = ["clock", "database", "people"]

ORIGIN = "http://localhost:8080"
FINGERPRINT = "abcd-efgh-ijkl-mnop"
# What somebody could be called if nobody checked: each page must show it as text.
NASTY = "<b onmouseover=alert(1)>\"'&amp;\u202ecod.exe\n</td><script>alert(2)</script>"
NAME = "St. Mary <b>'s"


@attrs.define(eq=False)
class World:
    """The site, what it was made of, and what its REST was asked for."""

    app: Any
    site: Site
    people: People
    clock: Clock
    ended: trio.Event
    asked: list[tuple[str, str, str]]

    def client(self, origin: str = ORIGIN, **headers: str) -> "Browser":
        transport = httpx.ASGITransport(self.app, client=("127.0.0.1", 50000))
        return Browser(
            httpx.AsyncClient(
                transport=transport,
                base_url=origin,
                headers={"origin": origin, "accept": "text/html", **headers},
            )
        )

    async def browser(self, role: Role = Role.ADMINISTRATOR) -> "Browser":
        """A browser in which somebody of this role is signed in."""
        if self.people.persons.find(role.value) is None:
            await self.people.add(role.value, role, PASSWORD)
        browser = self.client()
        await browser.post("/sign-in", status=303, name=role.value, password=PASSWORD)
        return browser


@attrs.define(eq=False)
class Browser:
    """An HTTP client that keeps cookies and knows the last form's token."""

    http: httpx.AsyncClient
    token: str = ""

    async def get(self, path: str, status: int = 200, **headers: str) -> str:
        answer = await self.http.get(path, headers=headers)
        assert answer.status_code == status, answer.text
        self._note(answer.text)
        return answer.text

    async def post(self, path: str, status: int = 303, **fields: str) -> str:
        """Send a form; returns the page that answers, or where it leads to."""
        answer = await self.http.post(path, data={"token": self.token, **fields})
        assert answer.status_code == status, answer.text
        self._note(answer.text)
        return answer.headers["location"] if status == 303 else answer.text

    def _note(self, page: str) -> None:
        if found := re.search(r'name="token" value="(\w+)"', page):
            self.token = found[1]


def make(people: People, clock: Clock, hosts: Hosts | None = None) -> World:
    """A world around `people`."""
    asked: list[tuple[str, str, str]] = []
    held: list[Site] = []
    ended = trio.Event()

    async def things(request: Request) -> Response:
        who = request.scope["relay.who"]
        asked.append((request.method, who.name, request.scope["relay.address"]))
        return JSONResponse(
            {"things": [NASTY], "who": who.name, "query": dict(request.query_params)}
        )

    async def refuse(request: Request) -> Response:
        raise Refused(409, f"no room for {NASTY}")

    async def fail(request: Request) -> Response:
        raise RuntimeError("a mistake of ours")

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    def routes(site: Site) -> Sequence[BaseRoute]:
        held.append(site)

        async def start(request: Request) -> Response:
            answer = await site.rest.of(request).get("/v1/things", limit=3, none=None)
            return await site.page(
                request, "error.html", words=answer["things"][0], live="/live/things"
            )

        async def change(request: Request) -> Response:
            await site.rest.of(request).post("/v1/things", {"a": 1})
            return site.see_other("/", said=f"{NASTY} was added.")

        async def other(request: Request) -> Response:
            await site.rest.of(request).post(f"/v1/{request.path_params['what']}")
            raise AssertionError

        async def moving(request: Request) -> Response:
            async def block() -> str:
                return '<p id="a">a</p>'

            return site.live(request, {"a": block})

        return [
            Route("/", start, methods=["GET"]),
            Route("/things/add", change, methods=["POST"]),
            Route("/things/{what}", other, methods=["GET"]),
            Route("/live/things", moving, methods=["GET"]),
        ]

    operations = [
        Operation("GET", "/v1/things", things, "Things.", answer={"type": "object"}),
        Operation("POST", "/v1/things", things, "Change.", role=Role.OPERATOR),
        Operation("POST", "/v1/refuse", refuse, "Refuse.", role=Role.VIEWER),
        Operation("POST", "/v1/fail", fail, "Fail.", role=Role.VIEWER),
        Operation("GET", "/metrics", things, "Metrics.", answer={"type": "object"}),
        *people_operations(people, ORIGIN),
    ]
    app = make_site(
        name=lambda: NAME,
        fingerprint=FINGERPRINT,
        mode="Router",
        navigation=(Entry("Overview", "/"), Entry("Things", "/things", Role.OPERATOR)),
        routes=routes,
        operations=with_document("Things", "1", operations),
        people=people,
        package="relay.pages",
        hosts=hosts or Hosts.of(["relay.example.org"]),
        plain=[Operation("GET", "/healthz", health, "Lives.")],
        ended=ended,
    )
    [site] = held
    return World(app, site, people, clock, ended, asked)


@pytest.fixture
async def world(people: People, clock: Clock) -> World:
    return make(people, clock)
