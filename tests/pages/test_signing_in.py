"""Coming in and leaving, as a browser does."""

import pytest

from relay.pages.signing_in import own_path
from relay.people.delays import Delayed
from relay.people.passwords import AT_ONCE, WAITING
from relay.people.roles import Role
from tests.pages.conftest import World
from tests.people.conftest import PASSWORD


@pytest.mark.parametrize(
    "path", ["/", "/devices", "/devices/CT_1?a=b&c=%C3%A4#d", "/a//b", "/?next=http://evil.example"]
)
def test_a_path_of_ours(path: str) -> None:
    assert own_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "devices", "http://evil.example", "https:/evil.example", "//evil.example"),
        *("/\\evil.example", "\\/evil.example", "/\t/evil.example", "/\n/evil.example"),
        *(
            " //evil.example",
            "///evil.example",
            "javascript:alert(1)",
            "/a b",
            "/ä",
            "//[",
            "@evil",
        ),
    ],
)
def test_what_leads_elsewhere_leads_to_the_start(path: str) -> None:
    assert own_path(path) == "/"


async def test_in_and_out(world: World) -> None:
    browser = await world.browser()
    page = await browser.get("/")
    assert "administrator" in page
    assert await browser.get("/sign-in", 303) == ""
    secret = dict(browser.http.cookies)
    assert await browser.post("/sign-out") == "/sign-in?left"
    assert not browser.http.cookies
    # What somebody has kept of the cookie is worth nothing.
    browser.http.cookies.update(secret)
    await browser.get("/", 303)
    assert "You are signed out." in await browser.get("/sign-in?left")


async def test_leaving_is_no_link(world: World) -> None:
    browser = await world.browser()
    await browser.get("/sign-out", 405)
    await browser.get("/")
    browser.token = "x"
    await browser.post("/sign-out", 403)
    await browser.get("/")


async def test_what_does_not_hold_is_said_and_what_was_typed_stays(world: World) -> None:
    await world.people.add("ada", Role.VIEWER, PASSWORD)
    page = await world.client().post(
        "/sign-in", 403, name='ada"<b>', password="wrong", next="/devices"
    )
    assert "name or password is wrong" in page
    assert 'value="ada&#34;&lt;b&gt;"' in page
    assert 'name="next" value="/devices"' in page
    assert 'wrong"' not in page


async def test_who_tries_too_often_is_told_when_to_come_again(world: World) -> None:
    browser = world.client()
    for _ in range(3):
        await browser.post("/sign-in", 403, name="ada", password="wrong")
    answer = await browser.http.post("/sign-in", data={"name": "ada", "password": "x"})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "try again in" in answer.text
    with pytest.raises(Delayed):
        world.people.delays.check("anybody", "127.0.0.1")


async def test_where_too_many_come_at_once_they_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.people.passwords, "_asked", AT_ONCE + WAITING)
    answer = await world.client().http.post("/sign-in", data={"name": "ada", "password": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")


async def test_another_sign_in_in_the_same_browser_ends_the_first(world: World) -> None:
    browser = await world.browser(Role.VIEWER)
    await world.people.add("ada", Role.VIEWER, PASSWORD)
    await browser.post("/sign-in", name="ada", password=PASSWORD)
    assert list(world.people.sign_ins.of("viewer")) == []
    assert "ada" in await browser.get("/")


# --- one-time links ------------------------------------------------------------------------------


async def test_the_first_administrator(world: World) -> None:
    code = world.people.first_code()
    browser = world.client()
    assert "relay person link" in await browser.get("/sign-in")
    for _ in range(2):  # to look at it is not to use it
        assert "first administrator" in await browser.get(f"/first?code={code}")
    page = await browser.post("/first", 400, code=code, name="Ada", password="x", again="y")
    assert "not the same" in page
    assert 'value="Ada"' in page
    words = {"code": code, "name": "Ada", "password": PASSWORD, "again": PASSWORD}
    assert await browser.post("/first", 303, **words) == "/"
    assert "Ada" in await browser.get("/")
    assert "does not hold" in await world.client().post("/first", 403, **words)
    assert world.people.persons.get("Ada").role is Role.ADMINISTRATOR


async def test_a_persons_link(world: World) -> None:
    await world.people.add("Bob", Role.VIEWER)
    code = await world.people.link_code("Bob")
    browser = world.client()
    assert "Bob" in await browser.get(f"/first?code={code}")
    await browser.post("/first", code=code, password=PASSWORD, again=PASSWORD)
    await browser.get("/")
    assert world.people.persons.get("Bob").role is Role.VIEWER


async def test_what_is_no_link(world: World) -> None:
    for query in ("", "?code=", "?code=x", "?code=%00%ff"):
        assert "does not hold" in await world.client().get(f"/first{query}", 403)
