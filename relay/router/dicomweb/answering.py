"""Answers that are sent while they come into being, and how one ends that cannot be finished.

An answer begins with its status, when nobody knows yet whether all of what it promises will come.
One that breaks off is not ended: its connection is closed without the end that HTTP's framing and
the last boundary would have, so that nobody takes a part for the whole.
"""

from collections.abc import Awaitable, Callable

import structlog
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from relay.errors import AssociationAborted, Outcome, Refused, RelayError, SourceFailed
from relay.router.federation.identifiers import QueryRefused
from relay.web.exchange import PeerGone

log = structlog.get_logger()

# Seconds after which one may ask again where there was no room, or a device was away.
RETRY_AFTER = 10


class BrokenOff(RelayError):
    """An answer has begun that cannot be finished."""


class Answer:
    """One answer, as far as it has come."""

    def __init__(self, send: Send, on_end: Callable[[], None] = lambda: None) -> None:
        """`on_end` is called before its last piece is sent."""
        self._send = send
        self._on_end = on_end
        self.started = False
        self.headers: dict[str, str] = {}

    async def start(self, content_type: str) -> None:
        """Begin it with status 200 and `headers`. Raises PeerGone, as the others do."""
        assert not self.started
        self.started = True
        rows = {"content-type": content_type} | self.headers
        await self._send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(key.encode(), value.encode("latin-1")) for key, value in rows.items()],
            }
        )

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """More of the body. Holds its caller back as the client does."""
        if len(data):
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """The last of the body."""
        self._on_end()
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


class Streaming(Response):
    """An answer that `run` sends; it is given up when the client has gone.

    What `run` raises before it has begun the answer is answered as any handler's error is.
    """

    def __init__(self, run: Callable[[Answer], Awaitable[None]]) -> None:
        super().__init__()
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What the client says behind its answer is its next request, and not ours to read.
        watching = trio.CancelScope()
        answer = Answer(send, watching.cancel)
        try:
            await _while_there(receive, lambda: self._run(answer), watching)
        except (RelayError, PeerGone) as error:
            if not answer.started:
                raise
            log.info("DICOMweb answer broken off", why=str(error))


class Unhurried(Response):
    """An answer that `make` takes its time for, which is given up when the client has gone."""

    def __init__(self, make: Callable[[], Awaitable[Response]]) -> None:
        super().__init__()
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        made: list[Response] = []

        async def run() -> None:
            made.append(await self._make())

        await _while_there(receive, run, trio.CancelScope())
        for response in made:
            await response(scope, receive, send)


async def _while_there(
    receive: Receive, run: Callable[[], Awaitable[None]], watching: trio.CancelScope
) -> None:
    """Run to the end, or until the client has gone, as long as there is `watching`.

    Raises what `run` raises.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_gone, receive, nursery.cancel_scope, watching)
        try:
            await run()
        except Exception as error:
            failure = error  # raised again outside, where the nursery does not wrap it
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _until_gone(
    receive: Receive, running: trio.CancelScope, watching: trio.CancelScope
) -> None:
    with watching:
        while (await receive())["type"] != "http.disconnect":
            pass
        running.cancel()


# --- refusals -----------------------------------------------------------------------------------


def refusal(status: int, words: str) -> Response:
    """The answer that refuses, in words for a person, which name no patient."""
    headers = {"retry-after": str(RETRY_AFTER)} if status == 503 else {}
    return PlainTextResponse(words + "\n", status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error.status, str(error))


async def _query_refused(request: Request, error: Exception) -> Response:
    return refusal(400, f"the query is not asked: {error}")


async def _source_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, SourceFailed)
    away = error.outcome in (Outcome.UNREACHABLE, Outcome.SLOW)
    return refusal(503 if away else 502, str(error))


async def _aborted(request: Request, error: Exception) -> Response:
    return refusal(502, f"the device ended it: {error}")


async def _failed(request: Request, error: Exception) -> Response:
    return refusal(500, str(error))


HANDLERS = {
    Refused: _refused,
    QueryRefused: _query_refused,
    SourceFailed: _source_failed,
    AssociationAborted: _aborted,
    RelayError: _failed,
}
