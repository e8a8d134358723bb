"""The people's part of the REST, as the Unix socket serves it."""

from typing import Any

import httpx
import pytest

from relay.pages.api import people_operations
from relay.pages.serving import as_console
from relay.people.links import LIFE
from relay.people.people import People
from relay.people.roles import Role
from relay.web.operations import rest_app
from tests.people.conftest import NOW, PASSWORD

ORIGIN = "https://relay.example.org"


class Console:
    """What the command line does."""

    def __init__(self, people: People, origin: str = ORIGIN) -> None:
        app = as_console(rest_app(people_operations(people, origin)))
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")

    async def __call__(self, method: str, path: str, status: int = 200, **body: Any) -> Any:
        answer = await self._http.request(method, f"/v1{path}", json=body or None)
        assert answer.status_code == status, answer.text
        return answer.json()


async def test_persons(people: People) -> None:
    call = Console(people)
    added = await call("POST", "/people", 201, name="Ada", role="administrator", password=PASSWORD)
    assert added == {"name": "Ada", "role": "administrator", "created": NOW, "has_password": True}
    await call("POST", "/people", 201, name="a/b", role="viewer")
    await people.sign_in("Ada", PASSWORD, "", "")
    rows = await call("GET", "/people")
    assert [(row["name"], row["has_password"], row["signed_in"]) for row in rows] == [
        ("a/b", False, 0),
        ("Ada", True, 1),
    ]
    await call("POST", "/people/a%2Fb/role", role="operator")
    await call("POST", "/people/a%2Fb/password", password=PASSWORD)
    assert people.persons.get("a/b").role is Role.OPERATOR
    await people.sign_in("a/b", PASSWORD, "", "")
    await call("DELETE", "/people/a%2Fb")
    await call("DELETE", "/people/a%2Fb", 404)
    await call("DELETE", "/people/Ada", 409)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/people", {"name": "a"}, "role is one of"),
        ("/people", {"name": "a", "role": "root"}, "viewer, operator, administrator"),
        ("/people", {"role": "viewer"}, "name is missing"),
        ("/people", {"name": 7, "role": "viewer"}, "name is missing"),
        ("/people", {"name": "a", "role": "viewer", "password": 7}, "password is a text"),
        ("/people", {"name": "a", "role": "viewer", "password": "x"}, "at least 12"),
        ("/people", {"name": "a", "role": "viewer", "colour": 1}, "unknown field 'colour'"),
        ("/api-tokens", {"name": "a"}, "role is one of"),
    ],
)
async def test_asked_wrongly(people: People, path: str, body: dict[str, Any], words: str) -> None:
    answer = await Console(people)("POST", path, 400, **body)
    assert words in answer["error"]
    assert len(people.persons) == 0


async def test_links(people: People) -> None:
    call = Console(people)
    first = await call("POST", "/first-link", 201)
    assert first["link"] == f"{ORIGIN}/first?code={first['code']}"
    assert first["expires"] == NOW + LIFE
    await people.open(first["code"], "Ada", PASSWORD, "", "")
    await call("POST", "/first-link", 409)
    added = await call("POST", "/people", 201, name="Bob", role="viewer", link=True)
    another = await call("POST", "/people/bob/link", 201)
    assert another["name"] == "Bob"
    assert people.links.find(added["code"]) is None
    assert people.links.find(another["code"]) == "Bob"
    await call("POST", "/people/Carol/link", 404)


async def test_a_link_to_nowhere_is_none(people: People) -> None:
    call = Console(people, origin="")
    for path, body in (
        ("/first-link", {}),
        ("/people", {"name": "Bob", "role": "viewer", "link": True}),
    ):
        answer = await call("POST", path, 409, **body)
        assert "[router.pages]" in answer["error"]
    assert len(people.persons) == 0


async def test_tokens(people: People) -> None:
    call = Console(people)
    made = await call("POST", "/api-tokens", 201, name="a/b", role="viewer")
    assert await people.tokens.find(f"Bearer {made['token']}") is not None
    [row] = await call("GET", "/api-tokens")
    assert (row["name"], row["role"], row["used"]) == ("a/b", "viewer", NOW)
    assert made["token"] not in str(row)
    await call("DELETE", "/api-tokens/a%2Fb")
    assert await call("GET", "/api-tokens") == []


async def test_all_of_it_is_for_administrators(people: People) -> None:
    for operation in people_operations(people, ORIGIN):
        assert operation.needs is Role.ADMINISTRATOR, operation.path
