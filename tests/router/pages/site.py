"""A Router's pages over its REST, in memory: a browser of some role, without a socket."""

import html
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx

from relay.invitation import Invitation
from relay.pages.app import make_site
from relay.pages.door import cookie_of, form_token
from relay.pages.hosts import Hosts
from relay.people.people import People
from relay.people.roles import Role
from relay.router.api import control_operations
from relay.router.dicomweb.tokens import TokenTable
from relay.router.node import Node
from relay.router.pages.app import NAVIGATION, PACKAGE, routes
from relay.router.queue.state import Queue
from relay.web.operations import Operation
from tests.router.fakes import hospital
from tests.router.queue.queues import still_queue

ORIGIN = "http://localhost:8080"

# Markup, quotes, a newline, and a character that turns around what follows.
NASTY = '<b>"O\'Hara"</b>\n\u202ecod.exe'


MakeOperations = Callable[[Node, TokenTable], Sequence[Operation]]


@attrs.define
class Browser:
    """One person's browser. `node` and `queue` are what the pages show."""

    node: Node
    queue: Queue
    people: People
    http: httpx.AsyncClient
    token: str = ""
    secret: str = ""
    invitations: list[Invitation] = attrs.Factory(list)

    async def sign_in(self, role: Role) -> "Browser":
        """The same pages, for a person of this role."""
        if self.people.persons.find(role.value) is None:
            await self.people.persons.add(role.value, role, None, 0)
        secret = await self.people.sign_ins.begin(role.value, "127.0.0.1", "a test")
        return attrs.evolve(self, secret=secret, token=form_token(secret))

    async def get(self, path: str, status: int = 200) -> str:
        """The page at `path`, which must be sound."""
        response = await self.http.get(path, headers=self._headers)
        assert response.status_code == status, response.text
        check(response.text)
        return response.text

    async def post(self, path: str, status: int = 303, **fields: str | Sequence[str]) -> str:
        """Send a form; the page that answers, or the one that it leads to."""
        response = await self.http.post(
            path, data={"token": self.token, **fields}, headers=self._headers
        )
        assert response.status_code == status, response.text
        if status == 303:
            return await self.get(response.headers["location"].partition("#")[0])
        check(response.text)
        return response.text

    @property
    def _headers(self) -> Mapping[str, str]:
        cookie = f"{self.cookie}={self.secret}"
        return {"cookie": cookie, "origin": ORIGIN} if self.secret else {"origin": ORIGIN}

    @property
    def cookie(self) -> str:
        return cookie_of(self.node.identity.fingerprint)


@asynccontextmanager
async def browser(
    tmp_path: Path, *, enrolled: bool = True, more: Sequence[Operation] | MakeOperations = ()
) -> AsyncIterator[Browser]:
    """An administrator's browser at a Router in which nothing moves by itself."""
    invitations: list[Invitation] = []

    async with (
        hospital(tmp_path / "me", enrolled=enrolled) as node,
        still_queue(node, tmp_path / "me") as queue,
    ):

        async def enrol(invitation: Invitation) -> bool:
            invitations.append(invitation)
            return len(invitations) == 1

        if callable(more):
            more = more(node, await TokenTable.load(node.database))
        people = await People.load(node.database)
        app = make_site(
            name=lambda: "North",
            fingerprint=node.identity.fingerprint,
            mode="Router",
            navigation=NAVIGATION,
            routes=routes,
            operations=control_operations(node, enrol, queue, more),
            people=people,
            package=PACKAGE,
            hosts=Hosts.of([]),
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as http:
            nobody = Browser(node, queue, people, http, invitations=invitations)
            yield await nobody.sign_in(Role.ADMINISTRATOR)
        people.close()


def check(page: str) -> None:
    """What every page of ours keeps to."""
    assert "style=" not in page
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert not re.search(r"\son\w+=", page)
    assert page.count("<h1>") <= 1
    assert "\u202e" not in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), [one for one in ids if ids.count(one) > 1]
    labelled = set(re.findall(r'<label for="([^"]+)"', page))
    for field in re.findall(r"<(?:input|select|textarea)\b[^>]*>", page):
        if 'type="hidden"' in field or "aria-label" in field:
            continue
        found = re.search(r'\sid="([^"]+)"', field)
        assert found is None or found[1] in labelled, field


def text(page: str) -> str:
    """What a reader sees of it."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def value_of(page: str, name: str) -> Any:
    """What the field `name` is filled with."""
    area = re.search(rf'<textarea[^>]* name="{name}"[^>]*>(.*?)</textarea>', page, re.DOTALL)
    if area:
        return html.unescape(area[1])
    for field in re.findall(rf'<input\b[^>]* name="{name}"[^>]*>', page):
        found = re.search(r'\svalue="([^"]*)"', field)
        return html.unescape(found[1]) if found else ""
    raise AssertionError(f"no field {name}")
