"""Pages that move: parts of them, sent anew as server-sent events whenever they have changed.

    event: block     data: {"id": "...", "html": "..."}     put in place of the element of that id
    event: trouble   data: {"words": "..."}                 a part cannot be shown just now
    event: over      data: {}                               the sign-in has ended

The answer to one request lasts until the page is left, its person is signed out, or the process
stops. A stream is a connection and a rendering a second, so there is a bound on them: when a person
opens one too many, the one opened longest ago ends (its page asks again once it is looked at).
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import attrs
import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay.errors import Refused
from relay.pages.events import EVENTS, OVER, event
from relay.web.exchange import PeerGone

# Seconds of silence after which a comment is sent: proxies close what says nothing for 30.
HEARTBEAT: Final = 15.0
# A stream of Overview takes some milliseconds of a core each second.
MAXIMUM_STREAMS: Final = 64
MAXIMUM_OF_ONE: Final = 6

Block = Callable[[], Awaitable[str]]


@attrs.define(slots=True, eq=False)
class Streams:
    """The live streams of a process; `ended` is set when it stops."""

    ended: trio.Event = attrs.field(factory=trio.Event)
    _open: list[tuple[str, trio.CancelScope]] = attrs.field(factory=list)

    def enter(self, person: str, scope: trio.CancelScope) -> None:
        """Raises Refused (503) where there are too many of others."""
        own = [other for name, other in self._open if name == person]
        if len(own) >= MAXIMUM_OF_ONE:
            own[0].cancel()
            self.leave(own[0])
        elif len(self._open) >= MAXIMUM_STREAMS:
            raise Refused(503, "too many pages are open: close some, or reload now and then")
        self._open.append((person, scope))

    def leave(self, scope: trio.CancelScope) -> None:
        self._open = [entry for entry in self._open if entry[1] is not scope]


class Live(Response):
    """The stream of `blocks`, as a response; `holds` says whether the sign-in still does."""

    media_type = EVENTS

    def __init__(
        self,
        streams: Streams,
        person: str,
        blocks: Mapping[str, Block],
        *,
        every: float,
        holds: Callable[[], bool],
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"  # to nginx: hand on what comes when it comes
        self._streams = streams
        self._person = person
        self._blocks = blocks
        self._every = every
        self._holds = holds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        gone = trio.Event()
        with trio.CancelScope() as life:
            self._streams.enter(self._person, life)
            try:
                await send(start)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_until_gone, receive, gone, life)
                    nursery.start_soon(_until_set, self._streams.ended, life)
                    await self._run(partial(_say, send))
                    nursery.cancel_scope.cancel()
            except* PeerGone:
                gone.set()  # and nobody is there to be told
            finally:
                self._streams.leave(life)
        if not gone.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _run(self, say: Callable[[str], Awaitable[None]]) -> None:
        shown: dict[str, str] = {}
        trouble = ""
        await say("retry: 2000\n\n")
        spoke = trio.current_time()
        while self._holds():
            said, words = "", ""
            for name, block in self._blocks.items():
                try:
                    html = await block()
                except Refused as error:
                    words = str(error)
                    continue
                if shown.get(name) != html:
                    shown[name] = html
                    said += event("block", {"id": name, "html": html})
            if words != trouble:
                trouble = words
                said += event("trouble", {"words": words})
            now = trio.current_time()
            if not said and now - spoke >= HEARTBEAT:
                said = ": still here\n\n"
            if said:
                await say(said)
                spoke = now
            await trio.sleep(self._every)
        await say(OVER)


async def _say(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _until_gone(receive: Receive, gone: trio.Event, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()
    scope.cancel()


async def _until_set(ended: trio.Event, scope: trio.CancelScope) -> None:
    await ended.wait()
    scope.cancel()
