"""Overview: what is well, moves, waits and failed; and its blocks, anew as they change."""

import json
from pathlib import Path

import pytest
import trio

from relay.router.live import LiveAssociation, Side, log_ending
from relay.router.pages.overview import BLOCKS
from relay.router.passthrough import Ending, How
from relay.router.queue.warnings import Kind
from relay.signalling.client import ClientStatistics
from relay.spool.items import State
from tests.router.fakes import BridgeClient
from tests.router.pages.site import browser, text
from tests.router.queue.queues import batch_of, becomes, keep


def call(called: str = "PACS_S") -> LiveAssociation:
    return LiveAssociation("abc", Side.CALLER, "WS", "WS", called, "peer", lambda: True)


async def test_all_blocks_are_there_and_say_so_when_there_is_nothing(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        page = await visitor.get("/")
        for block in BLOCKS:
            assert f'id="{block}"' in page
        shown = text(page)
        for words in ("Nothing is open now", "Nothing is queued", "Nothing has failed"):
            assert words in shown
        assert 'data-live="/live/overview"' in page


async def test_who_calls_whom_and_how_much(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        running = call()
        with visitor.node.live.hold(running):
            running.traffic.count(3 * 2**20)
            shown = text(await visitor.get("/"))
            assert "WS PACS_S – Live 3.00 MiB 0 bytes" in shown
            over = call("OTHER")
            with visitor.node.live.hold(over):
                log_ending(over, Ending(How.REJECTED, "acceptor", "it is full"))
        shown = text(await visitor.get("/"))
        assert "Nothing is open now" in shown
        assert "Rejected it is full" in shown


async def test_failures_of_calls_and_of_objects_stand_together_the_newest_first(
    tmp_path: Path,
) -> None:
    async with browser(tmp_path) as visitor:
        item = await keep(visitor.queue, batch_of(), study="1.2.1")
        await becomes(visitor.queue, item, State.FAILED, "A900, does not match")
        for _ in range(3):
            visitor.node.refusals.note("CT9", "PACS_S", "'CT9' is no device of this Router")
        page = await visitor.get("/")
        shown = text(page)
        assert "CT9 → PACS_S 3 times" in shown
        assert 'href="/devices/new?ae_title=CT9"' in page
        assert f'href="/transfers/item?number={item.number}"' in page
        assert shown.index("CT9 → PACS_S") < shown.index("A900, does not match")
        for number in "23":
            another = await keep(visitor.queue, batch_of(), study="1.2.1", instance=f"1.{number}")
            await becomes(visitor.queue, another, State.FAILED, "A900, does not match")
        page = await visitor.get("/")
        assert text(page).count("A900, does not match") == 1, "one trouble"
        assert "CT → PACS 3 times" in text(page)
        assert 'href="/transfers/items?called=PACS&amp;state=failed"' in page


async def test_a_lost_bridge_and_warnings_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with browser(tmp_path) as visitor:
        client = visitor.node.joined().client
        assert isinstance(client, BridgeClient)
        client.connected = False
        assert "Connecting" in text(await visitor.get("/")), "just begun: nothing is wrong yet"
        lost = ClientStatistics(False, 3, 0, 0, "no route to <b>host</b>")
        monkeypatch.setattr(client, "statistics", lambda: lost)
        visitor.queue.warnings.begin(Kind.PAUSED, "PACS", "delivery is stopped", destination="PACS")
        page = await visitor.get("/")
        shown = text(page)
        assert "Not connected" in shown
        assert "no route to <b>host</b>" in shown
        assert "relay doctor" in shown
        assert "delivery is stopped" in shown
        assert 'href="/transfers?called=PACS"' in page


async def test_blocks_come_anew_as_they_change(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        events: list[dict[str, str]] = []
        send, receive = trio.open_memory_channel[dict[str, str]](100)

        async def answer(message: dict[str, object]) -> None:
            body = message.get("body", b"")
            assert isinstance(body, bytes)
            for line in body.decode().splitlines():
                if line.startswith("data: ") and '"html"' in line:
                    send.send_nowait(json.loads(line[6:]))

        async def hears() -> dict[str, str]:
            await trio.sleep_forever()
            raise AssertionError

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/live/overview",
            "raw_path": b"/live/overview",
            "query_string": b"",
            "headers": [
                (b"host", b"localhost:8080"),
                (b"cookie", visitor._headers["cookie"].encode()),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 8080),
            "scheme": "http",
        }
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                app = visitor.http._transport.app  # type: ignore[attr-defined]
                nursery.start_soon(app, scope, hears, answer)
                while len(events) < len(BLOCKS):
                    events.append(await receive.receive())
                assert {event["id"] for event in events} == set(BLOCKS)
                with visitor.node.live.hold(call("NEW_ONE")):
                    while "NEW_ONE" not in events[-1]["html"]:
                        events.append(await receive.receive())
                assert events[-1]["id"] == "associations"
                assert events[-1]["html"].strip().startswith("<section")
                nursery.cancel_scope.cancel()
