"""Objects of the queue: listed by page and state, explained, retried, discarded."""

from pathlib import Path

import pytest

from relay.people.roles import Role
from relay.router.pages import objects
from relay.spool.items import Hold, Item, Selection, State
from tests.router.pages.site import Browser, browser, text
from tests.router.queue.queues import batch_of, becomes, couriers_of, keep


async def fill(visitor: Browser) -> dict[State, Item]:
    """One in each state that is kept, and one that was delivered."""
    batch = batch_of("PACS", "CT_N", "CT")
    states = (State.WAITING, State.HELD, State.FAILED, State.DELIVERED)
    items = {
        state: await keep(visitor.queue, batch, study="1.2.1", instance=f"1.9.{state.value}")
        for state in states
    }
    await becomes(visitor.queue, items[State.HELD], State.HELD, "not any more", Hold.NOT_ACCEPTED)
    await becomes(visitor.queue, items[State.FAILED], State.FAILED, "A900, does not match")
    await becomes(visitor.queue, items[State.DELIVERED], State.DELIVERED)
    return items


async def count(visitor: Browser, state: State) -> int:
    return (await visitor.queue.spool.items.count(Selection())).get(state, 0)


async def test_a_failure_is_listed_and_explained(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        items = await fill(visitor)
        page = text(await visitor.get("/transfers/items?state=failed"))
        assert "A900, does not match" in page
        assert "Failed 1" in page
        number = items[State.FAILED].number
        page = await visitor.get(f"/transfers/item?number={number}")
        assert "A900, does not match" in text(page)
        assert "retry" in page.lower()
        held = text(await visitor.get(f"/transfers/item?number={items[State.HELD].number}"))
        assert "It is asked again each hour" in held


async def test_a_viewer_sees_no_button(tmp_path: Path) -> None:
    async with browser(tmp_path) as administrator:
        items = await fill(administrator)
        viewer = await administrator.sign_in(Role.VIEWER)
        for path in ("items?state=failed", f"item?number={items[State.FAILED].number}"):
            page = await viewer.get(f"/transfers/{path}")
            assert "/transfers/retry" not in page
            assert "/transfers/discard" not in page


async def test_an_object_is_retried_and_another_discarded(tmp_path: Path) -> None:
    async with browser(tmp_path) as administrator:
        items = await fill(administrator)
        operator = await administrator.sign_in(Role.OPERATOR)
        page = await operator.post("/transfers/retry", number=str(items[State.FAILED].number))
        assert "1 object will be tried again now." in text(page)
        assert await count(operator, State.FAILED) == 0
        page = await operator.post("/transfers/discard", number=str(items[State.HELD].number))
        assert "1 object given up and erased." in text(page)
        assert await count(operator, State.HELD) == 0
        page = await operator.post("/transfers/retry", called="PACS", state="waiting")
        assert "will be tried again now." in text(page)
        assert ("wake", "PACS") in couriers_of(operator.queue).told
        page = await operator.post("/transfers/retry", number=str(items[State.DELIVERED].number))
        assert "Nothing was retried" in text(page)


async def test_all_of_a_selection_is_retried_and_a_pause_is_named(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        await fill(visitor)
        await visitor.post("/transfers/pause", called="PACS", reason="")
        page = await visitor.post("/transfers/retry", called="PACS", state="failed")
        assert "PACS is paused: resume it, or nothing leaves." in text(page)
        page = await visitor.post("/transfers/discard", study="1.2.1", called="PACS", state="")
        assert "3 objects given up" in text(page)
        assert await count(visitor, State.DELIVERED) == 1


async def test_nothing_selected_is_nothing_done(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        await fill(visitor)
        for path in ("/transfers/retry", "/transfers/discard"):
            page = await visitor.post(path, called="", study="", state="")
            assert "nothing is selected" in text(page)
        assert await count(visitor, State.FAILED) == 1
        page = await visitor.post("/transfers/discard", called="NOBODY")
        assert "Not discarded: no destination" in text(page)


async def test_pages_of_objects_lead_to_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PAGE", 3)
    async with browser(tmp_path) as visitor:
        await fill(visitor)
        first = await visitor.get("/transfers/items")
        assert "until=1" in first
        assert "Newer" not in first
        second = await visitor.get("/transfers/items?until=1")
        assert '<a href="/transfers/item?number=1">' in second
        assert "Newer" in second
        assert "Older" not in second


@pytest.mark.parametrize("number", ["", "x", "-1", "9" * 30, "12345"])
async def test_an_object_that_is_none_is_a_page_that_says_so(tmp_path: Path, number: str) -> None:
    async with browser(tmp_path) as visitor:
        page = await visitor.get(f"/transfers/item?number={number}", 404)
        assert "object" in text(page)


async def test_a_form_leads_to_no_other_place(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        await fill(visitor)
        response = await visitor.http.post(
            "/transfers/retry",
            data={"token": visitor.token, "called": "PACS", "from": "//evil.example"},
            headers=visitor._headers,
        )
        assert response.headers["location"] == "/transfers/items?called=PACS"
