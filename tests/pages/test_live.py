"""Live parts: sent when they change, ended when they should, and bounded."""

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel

from relay.errors import Refused
from relay.pages.live import HEARTBEAT, MAXIMUM_OF_ONE, MAXIMUM_STREAMS, Block, Live, Streams
from relay.people.roles import Role
from relay.web.exchange import PeerGone
from tests.pages.conftest import World


@attrs.define(eq=False)
class Peer:
    """A browser at the other end of a stream."""

    gone: trio.Event = attrs.Factory(trio.Event)
    sent: list[dict[str, Any]] = attrs.Factory(list)

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.gone.is_set():
            raise PeerGone("gone")
        self.sent.append(message)

    @property
    def events(self) -> list[tuple[str, Any]]:
        text = b"".join(message.get("body", b"") for message in self.sent).decode()
        rows = [part.splitlines() for part in text.split("\n\n") if part.startswith("event: ")]
        return [(row[0][7:], json.loads(row[1][6:])) for row in rows]

    @property
    def ended(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", True)


def stream(
    streams: Streams,
    block: Block,
    *,
    person: str = "ada",
    holds: Callable[[], bool] = lambda: True,
) -> tuple[Live, Peer]:
    return Live(streams, person, {"a": block}, every=1.0, holds=holds), Peer()


async def run(live: Live, peer: Peer) -> None:
    await live({"type": "http"}, peer.receive, peer.send)


async def test_a_part_is_sent_when_it_has_changed(autojump_clock: object) -> None:
    shown = ["1"]

    async def block() -> str:
        return f"<p>{shown[0]}\n</p>"

    live, peer = stream(Streams(), block)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, live, peer)
        await trio.sleep(5.5)
        shown[0] = "2"
        await trio.sleep(5)
        peer.gone.set()
    assert peer.events == [
        ("block", {"id": "a", "html": "<p>1\n</p>"}),
        ("block", {"id": "a", "html": "<p>2\n</p>"}),
    ]
    headers = dict(peer.sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-store"
    assert b"content-length" not in headers


async def test_silence_is_broken_now_and_then(autojump_clock: object) -> None:
    async def block() -> str:
        return "<p></p>"

    live, peer = stream(Streams(), block)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, live, peer)
        await trio.sleep(3 * HEARTBEAT + 2)
        peer.gone.set()
    comments = [m for m in peer.sent if m.get("body", b"").startswith(b":")]
    assert len(comments) == 3


async def test_a_part_that_cannot_be_shown_is_said_and_ends_nothing(
    autojump_clock: object,
) -> None:
    fails = [True]

    async def block() -> str:
        if fails[0]:
            raise Refused(409, "not enrolled <b>")
        return "<p></p>"

    live, peer = stream(Streams(), block)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, live, peer)
        await trio.sleep(2.5)
        fails[0] = False
        await trio.sleep(2)
        peer.gone.set()
    assert peer.events == [
        ("trouble", {"words": "not enrolled <b>"}),
        ("block", {"id": "a", "html": "<p></p>"}),
        ("trouble", {"words": ""}),
    ]


async def nothing() -> str:
    return "<p></p>"


async def test_it_ends_with_the_sign_in(autojump_clock: object) -> None:
    signed_in = [True]
    live, peer = stream(Streams(), nothing, holds=lambda: signed_in[0])
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, live, peer)
            await trio.sleep(2.5)
            signed_in[0] = False
    assert peer.events[-1] == ("over", {})
    assert peer.ended


async def test_it_ends_when_the_process_stops(autojump_clock: object) -> None:
    streams = Streams()
    live, peer = stream(streams, nothing)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, live, peer)
            await trio.sleep(2.5)
            streams.ended.set()
    assert peer.ended


async def test_who_leaves_makes_room_at_once(autojump_clock: object) -> None:
    streams = Streams()
    live, peer = stream(streams, nothing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, live, peer)
        await trio.sleep(0.5)
        assert len(streams._open) == 1
        peer.gone.set()
        await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert streams._open == []


async def test_of_one_person_the_oldest_ends_and_of_all_there_are_not_too_many(
    autojump_clock: object,
) -> None:
    streams = Streams()
    peers = []
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(MAXIMUM_OF_ONE + 1):
                live, peer = stream(streams, nothing)
                peers.append(peer)
                nursery.start_soon(run, live, peer)
                await trio.sleep(0.1)
            assert [peer.ended for peer in peers] == [True] + [False] * MAXIMUM_OF_ONE
            for number in range(MAXIMUM_STREAMS - MAXIMUM_OF_ONE):
                live, peer = stream(streams, nothing, person=f"p{number}")
                nursery.start_soon(run, live, peer)
            await trio.sleep(0.1)
            live, peer = stream(streams, nothing, person="one more")
            with pytest.raises(Refused) as refused:
                await run(live, peer)
            assert refused.value.status == 503
            assert peer.sent == []
            streams.ended.set()


async def test_a_site_has_streams_for_people(world: World, autojump_clock: object) -> None:
    browser = await world.browser(Role.VIEWER)
    [sign_in] = world.people.sign_ins.of("viewer")
    answers = []

    async def ask() -> None:
        answers.append(await browser.http.get("/live/things"))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(2)
            await world.people.sign_out(sign_in)
    assert "event: block" in answers[0].text
    assert "event: over" in answers[0].text
    secret = await world.people.tokens.add("a", Role.ADMINISTRATOR)
    http = world.client(authorization=f"Bearer {secret}").http
    assert (await http.get("/live/things")).status_code == 403
