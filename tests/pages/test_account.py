"""One's own password and sign-ins, and nobody else's."""

import pytest

from relay.pages.account import browser as named
from relay.people.roles import Role
from tests.pages.conftest import World
from tests.people.conftest import PASSWORD


async def test_changing_ones_password(world: World) -> None:
    here, there = await world.browser(Role.VIEWER), await world.browser(Role.VIEWER)
    await here.get("/account")
    new = "another one entirely"
    page = await here.post("/account/password", 400, current=PASSWORD, new=new, again="x")
    assert "not the same" in page
    page = await here.post("/account/password", 403, current="wrong", new=new, again=new)
    assert "present password is wrong" in page
    where = await here.post("/account/password", current=PASSWORD, new=new, again=new)
    assert "was changed" in await here.get(where)
    assert "was changed" not in await here.get(where)  # it is said once
    await there.get("/", 303)
    await world.client().post("/sign-in", name="viewer", password=new)


async def test_who_tries_passwords_here_is_delayed_too(world: World) -> None:
    browser = await world.browser(Role.VIEWER)
    await browser.get("/account")
    new = "another one entirely"
    for _ in range(3):
        await browser.post("/account/password", 403, current="wrong", new=new, again=new)
    answer = await browser.http.post(
        "/account/password",
        data={"token": browser.token, "current": PASSWORD, "new": new, "again": new},
    )
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


async def test_ending_another_browsers_sign_in(world: World) -> None:
    here, there = await world.browser(Role.VIEWER), await world.browser(Role.VIEWER)
    other = await world.browser(Role.OPERATOR)
    page = await here.get("/account")
    assert page.count("this browser") == 1
    first, second = world.people.sign_ins.of("viewer")
    [foreign] = world.people.sign_ins.of("operator")
    for sign_in in (first, second, foreign):
        where = await here.post("/account/end", id=sign_in.id)
        await here.get(where)
    await here.get("/")  # not one's own
    await there.get("/", 303)
    await other.get("/")


async def test_a_program_has_no_account(world: World) -> None:
    secret = await world.people.tokens.add("a", Role.ADMINISTRATOR)
    http = world.client(authorization=f"Bearer {secret}").http
    assert (await http.get("/account")).status_code == 403


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Firefox on Linux",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0",
            "Edge on Windows",
        ),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Safari/604.1", "Safari on iOS"),
        ("curl/8.0", "curl/8.0"),
        ("", "unknown"),
    ],
)
def test_what_a_browser_is_called(agent: str, words: str) -> None:
    assert named(agent) == words
