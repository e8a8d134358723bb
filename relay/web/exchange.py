"""One HTTP/1.1 request and its answer, as an ASGI app sees them.

The app pulls: nothing of a body is read before it is asked for, and then as much as has come, as it
lies. It runs in the connection's own task, without a queue between them.
"""

import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol
from wsgiref.handlers import format_date_time

import trio

from relay.web.chunks import BadChunks, Chunks
from relay.web.head import Head, tokens

ASGIApp = Callable[..., Awaitable[None]]
Message = MutableMapping[str, Any]
Parts = list[bytes | bytearray | memoryview]

# Bytes of a next request, sent before the answer to this one, that are kept meanwhile.
MAXIMUM_AHEAD = 16 * 1024
# What is read at once of a body in chunks, which is copied.
CHUNKED_PIECE = 64 * 1024
# A body that is copied behind its head, to be one record of TLS.
JOINED = 4096

_NO_BODY_STATUSES = frozenset({204, 304})  # RFC 9110 §6.4.1
_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


class PeerGone(OSError):
    """The peer does not take the answer: nothing more need be done for this request."""


class BadAnswer(Exception):
    """The app's answer cannot be sent as it is."""


class Wire(Protocol):
    """What an exchange needs of its connection."""

    ahead: bytearray
    ending: bool

    async def pull(self, at_most: int | None = None) -> bytes | bytearray | None:
        """More of a body, none at the peer's end; None where it is gone, or takes too long.

        Where no body is due (None), the peer may take any time: it waits for us.
        """

    async def push(self, parts: Sequence[Any]) -> None:
        """Send these. Raises PeerGone."""


class Exchange:
    """One request, whose head has come, and its answer."""

    def __init__(self, wire: Wire, head: Head) -> None:
        self._wire = wire
        self._request = head
        self._keeps = head.keeps  # whether another request may follow
        self._invited = head.invited
        self._chunks = Chunks() if head.length is None else None
        self._left = head.length or 0  # of the body, where it is not in chunks
        self._told = False  # the app has heard of the body's end
        self._gone = False
        # Of the answer:
        self._start: bytes | None = None  # its head, which waits for the body's first piece
        self._started = False
        self._finished = False
        self._unsent: int | None = None  # of what it announced; None where it is in chunks
        self._bodiless = False  # it has a head only, whatever the app sends
        self._chunked = False

    async def run(self, app: ASGIApp, scope: Message) -> None:
        """Have `app` answer. Raises what it raises, but for PeerGone."""
        try:
            await app(scope, self.receive, self.send)
        except PeerGone:
            self._gone = True
        except Exception:
            if not self._started:
                await self._fail()
            raise
        if not (self._started or self._gone):
            await self._fail()

    # --- what the app calls ---------------------------------------------------------------------

    async def receive(self) -> Message:
        """ASGI: the next piece of the body; behind it, that the peer has gone."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._gone:
            if self._told:
                await self._await_end()
                continue
            piece = await self._piece()
            if piece is not None:
                self._told = self._whole
                return {"type": "http.request", "body": piece, "more_body": not self._told}
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI: the answer's head, which waits for its body's first piece, and the body."""
        if self._gone:
            raise PeerGone("the peer is gone")
        if message["type"] == "http.response.start":
            self._start = self._begin(message["status"], message.get("headers", ()))
            return
        body = message.get("body", b"")
        last = not message.get("more_body", False)
        parts = self._framed(body, last=last)
        if self._start is not None:
            start, self._start, self._started = self._start, None, True
            if len(parts) == 1 and len(parts[0]) <= JOINED:
                parts = [start + parts[0]]
            else:
                parts.insert(0, start)
        self._finished = last
        if parts:
            await self._wire.push(parts)

    def over(self) -> bool:
        """Whether both messages are whole, so that the next may follow on the connection."""
        if not (self._gone or self._whole):  # a body that the app has not asked for
            self._skip()
        return (
            self._keeps and not self._gone and self._whole and self._finished and not self._unsent
        )

    # --- the request's body ---------------------------------------------------------------------

    @property
    def _whole(self) -> bool:
        return not self._left if self._chunks is None else self._chunks.whole

    async def _piece(self) -> bytes | bytearray | None:
        """Some of the body, nothing at its end; None where the peer has gone."""
        while not self._gone:
            if self._chunks is not None:
                try:
                    piece: bytes | bytearray = self._chunks.take(self._wire.ahead)
                except BadChunks:  # as good as cut short
                    self._gone = True
                    return None
                if piece or self._chunks.whole:
                    return piece
            elif not self._left:
                return b""
            elif ahead := self._wire.ahead:
                piece = ahead[: self._left]
                del ahead[: len(piece)]
                self._left -= len(piece)
                return piece
            await self._invite()
            data = None if self._gone else await self._wire.pull(self._left or CHUNKED_PIECE)
            if not data:
                self._gone = True
            elif self._chunks is not None:
                self._wire.ahead += data
            else:  # as it came: it is not copied
                self._left -= len(data)
                return data
        return None

    async def _invite(self) -> None:
        """Ask for the body, if that is waited for (RFC 9110 §10.1.1)."""
        if not self._invited:
            return
        self._invited = False
        if not self._started:
            try:
                await self._wire.push([b"HTTP/1.1 100 Continue\r\n\r\n"])
            except PeerGone:
                self._gone = True

    async def _await_end(self) -> None:
        """Behind the body may stand the next request, of which one head's worth is kept."""
        data = await self._wire.pull()
        if data:
            self._wire.ahead += data
        self._gone = not data or len(self._wire.ahead) > MAXIMUM_AHEAD

    def _skip(self) -> None:
        """Leave out what has come of the body."""
        ahead = self._wire.ahead
        if self._chunks is not None:
            try:
                while self._chunks.take(ahead):
                    pass
            except BadChunks:
                self._gone = True
        elif self._left <= len(ahead) and not self._invited:
            del ahead[: self._left]
            self._left = 0

    # --- the answer -----------------------------------------------------------------------------

    def _begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """The answer's head. Raises BadAnswer."""
        request = self._request
        if self._wire.ending:
            self._keeps = False
        length: bytes | None = None
        lines = [b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b""))]
        for name, value in headers:
            key = name.lower()
            if key == b"content-length":
                length = value
            elif key == b"connection":
                self._keeps = self._keeps and b"close" not in tokens(value)
                continue  # ours to say
            lines.append(b"%b: %b" % (name, value))
        self._bodiless = request.method == "HEAD" or status in _NO_BODY_STATUSES
        if length is not None:
            self._unsent = 0 if self._bodiless else int(length)
        elif self._bodiless:
            self._unsent = 0
        elif request.minor:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        else:
            self._keeps = False  # the body ends with the connection (RFC 9112 §6.3)
        lines.append(b"date: " + _date())
        if not self._keeps:
            lines.append(b"connection: close")
        head = b"\r\n".join([*lines, b"", b""])
        # What an app took from somebody must not end a line, and so make one.
        if head.count(b"\r") != len(lines) + 1 or head.count(b"\n") != len(lines) + 1:
            raise BadAnswer("a header of the answer has a line end in it")
        return head

    def _framed(self, body: bytes | bytearray | memoryview, *, last: bool) -> Parts:
        """A piece of the answer as it is sent. Raises BadAnswer."""
        if self._start is None and not self._started:
            raise BadAnswer("a body without a head")
        if self._bodiless:
            return []
        if self._chunked:
            parts: Parts = [b"%x\r\n" % len(body), body, b"\r\n"] if len(body) else []
            if last:
                parts.append(b"0\r\n\r\n")
            return parts
        if self._unsent is not None:
            if len(body) > self._unsent:
                raise BadAnswer("the answer's body is longer than it says")
            self._unsent -= len(body)
            if last and self._unsent:
                raise BadAnswer("the answer's body is shorter than it says")
        return [body] if len(body) else []

    async def _fail(self) -> None:
        """Answer 500, the connection's last: what the app wanted to say is not known."""
        self._started, self._keeps = True, False
        try:
            await self._wire.push([refusal(500)])
        except PeerGone:
            self._gone = True


def refusal(status: int) -> bytes:
    """An answer that is a status alone, and the connection's last."""
    return b"HTTP/1.1 %d %b\r\ncontent-length: 0\r\nconnection: close\r\ndate: %b\r\n\r\n" % (
        status,
        _REASONS.get(status, b""),
        _date(),
    )


def _date() -> bytes:
    """Now, as RFC 9110 §6.6.1 writes it."""
    return _written(int(time.time()))


@lru_cache(maxsize=1)  # a second sees many answers
def _written(second: int) -> bytes:
    return format_date_time(second).encode("ascii")
