"""People and API tokens on their page."""

import html
import re

from relay.people.roles import Role
from tests.pages.conftest import World
from tests.people.conftest import PASSWORD


async def test_a_person_is_added_by_a_link_that_is_shown_once(world: World) -> None:
    browser = await world.browser()
    await browser.get("/people")
    page = await browser.post("/people/add", 200, name="<b>Bob</b>", role="operator")
    [link] = set(re.findall(r"http://localhost:8080/first\?code=[\w-]+", page))
    assert "&lt;b&gt;Bob&lt;/b&gt;" in page
    assert "<b>Bob" not in page
    assert link not in await browser.get("/people")
    bob = world.client()
    await bob.get(link)
    code = link.partition("=")[2]
    await bob.post("/first", code=code, password=PASSWORD, again=PASSWORD)
    assert "&lt;b&gt;Bob&lt;/b&gt;" in await bob.get("/")
    assert world.people.persons.get("<b>Bob</b>").role is Role.OPERATOR


async def test_what_is_refused_is_said_and_what_was_typed_stays(world: World) -> None:
    browser = await world.browser()
    await browser.get("/people")
    page = await browser.post("/people/add", 409, name="administrator", role="operator")
    assert "is a person" in page
    assert 'value="administrator"' in page
    assert re.search(r'value="operator" checked', page)
    page = await browser.post("/api-tokens/add", 400, token_name="\u202e", token_role="viewer")
    assert "can be seen" in page


async def test_role_link_and_removal(world: World) -> None:
    browser = await world.browser()
    await world.people.add("a/b", Role.VIEWER)
    await browser.get("/people")
    where = await browser.post("/people/a%2Fb/role", role="operator")
    assert "a/b is operator now" in await browser.get(where)
    page = await browser.post("/people/a%2Fb/link", 200)
    assert "/first?code=" in page
    await browser.get(await browser.post("/people/a%2Fb/remove"))
    assert world.people.persons.find("a/b") is None
    where = await browser.post("/people/administrator/remove")
    assert "last administrator" in await browser.get(where)
    where = await browser.post("/people/administrator/role", role="viewer")
    assert "last administrator" in await browser.get(where)


async def test_a_token_is_shown_once(world: World) -> None:
    browser = await world.browser()
    await browser.get("/people")
    page = await browser.post("/api-tokens/add", 200, token_name="a b", token_role="viewer")
    found = re.search(r"relay_api_[\w-]+", page)
    assert found is not None
    assert found[0] not in await browser.get("/people")
    assert await world.people.tokens.find(f"Bearer {found[0]}") is not None
    await browser.post("/api-tokens/a%20b/remove")
    assert await world.people.tokens.find(f"Bearer {found[0]}") is None


async def test_it_is_for_administrators(world: World) -> None:
    for role in (Role.VIEWER, Role.OPERATOR):
        browser = await world.browser(role)
        page = html.unescape(await browser.get("/people", 403))
        assert f"needs the role administrator, and you are {role.value}" in page
        assert 'href="/people"' not in page
        await browser.post("/people/add", 403, name="Eve", role="administrator")
    assert world.people.persons.find("Eve") is None
