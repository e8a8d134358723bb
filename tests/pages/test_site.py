"""Pages: who sees which navigation, what is said once, and what a mistake looks like."""

import html
import re

from relay.people.roles import Role
from tests.pages.conftest import NAME, NASTY, World


async def test_what_others_chose_is_text(world: World) -> None:
    browser = await world.browser()
    page = await browser.get("/")
    assert NASTY not in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "\\u202ecod.exe\\n" in page
    assert html.escape(NAME) in page.replace("&#39;", "&#x27;")


async def test_the_navigation_is_of_ones_role(world: World) -> None:
    for role, shown in (
        (Role.VIEWER, ["/"]),
        (Role.OPERATOR, ["/", "/things"]),
        (Role.ADMINISTRATOR, ["/", "/things", "/people"]),
    ):
        page = await (await world.browser(role)).get("/")
        navigation = page.partition("<nav")[2].partition("</nav>")[0]
        assert re.findall(r'href="([^"]+)"', navigation) == shown
        assert navigation.count('aria-current="page"') == 1
    stranger = await world.client().get("/sign-in")
    assert "<nav" not in stranger


async def test_words_are_said_once_and_to_who_did_it(world: World) -> None:
    one, other = await world.browser(), await world.browser(Role.VIEWER)
    await one.get("/")
    where = await one.post("/things/add")
    assert "?" not in where
    assert "was added" not in await other.get("/")
    page = await one.get(where)
    assert "was added." in page
    assert NASTY not in page
    assert "was added" not in await one.get(where)


async def test_every_page_has_one_heading_and_a_way_past_the_navigation(world: World) -> None:
    browser = await world.browser()
    for page in (
        await browser.get("/"),
        await browser.get("/people"),
        await browser.get("/account"),
        await browser.get("/nothing", 404),
        await world.client().get("/sign-in"),
        await world.client().get(f"/first?code={world.people.links.make_first()}", 403),
    ):
        assert page.count("<h1") == 1
        assert 'href="#main"' in page
        assert page.count('id="main"') == 1
        assert '<html lang="en">' in page
        ids = re.findall(r'\sid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        labelled = set(re.findall(r'<label for="([^"]+)"', page))
        fields = re.findall(r"<(?:input|select|textarea)\b[^>]*>", page)
        for field in fields:
            if 'type="hidden"' in field or " hidden" in field or "aria-label" in field:
                continue
            found = re.search(r'id="([^"]+)"', field)
            assert found is not None, field
            assert found[1] in labelled, field


async def test_what_is_refused_is_a_page(world: World) -> None:
    browser = await world.browser(Role.VIEWER)
    page = await browser.get("/things/refuse", 409)
    assert "No room for" in page
    assert NASTY not in page
    assert "no such page" in await browser.get("/nothing", 404)
    await browser.get("/things/add/", 404)


async def test_a_mistake_of_ours_tells_nothing_of_itself(world: World) -> None:
    browser = await world.browser(Role.VIEWER)
    browser.http._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
    page = await browser.get("/things/fail", 500)
    assert "a mistake of ours" not in page
    assert "Traceback" not in page
    assert "The log of this process" in page


async def test_a_live_page_says_where_from(world: World) -> None:
    assert 'data-live="/live/things"' in await (await world.browser()).get("/")


async def test_words_that_nobody_came_to_see_are_bounded(world: World) -> None:
    from relay.pages import site as module

    browser = await world.browser()
    await browser.get("/")
    for number in range(module.MAXIMUM_WORDS + 5):
        world.site._words[number.to_bytes(4, "big")] = module._Words("x", "")
    await browser.post("/things/add")
    assert len(world.site._words) <= module.MAXIMUM_WORDS + 5
