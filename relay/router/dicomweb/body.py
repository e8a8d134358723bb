"""The body of a store request, part by part, as it comes in (PS3.18 §10.5.1, RFC 2387)."""

from typing import Final

import trio
from starlette.requests import ClientDisconnect, Request

from relay.errors import Refused
from relay.router.dicomweb import media
from relay.router.dicomweb.multipart import Event, PartBegun, PartEnded, Reader

# Of a body of which nothing more is wanted: so much of it is still taken in, within so many
# seconds, for a client that reads no answer before it has sent everything.
MAXIMUM_DRAINED: Final = 64 * 2**20
DRAINING: Final = 10.0


class Body:
    """The parts of one request's body; iterate over them, once."""

    def __init__(self, request: Request) -> None:
        """Raises Refused: 415 for what is not made of DICOM files, 400 without a boundary."""
        kind, parameters = media.parse_type(request.headers.get("content-type", ""))
        if kind != media.MULTIPART:
            raise Refused(415, f'objects are taken as {media.MULTIPART}; type="{media.DICOM}"')
        if parameters.get("type", media.DICOM).lower() != media.DICOM:
            raise Refused(415, f"parts are taken as {media.DICOM} only")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "no Content-Encoding is taken")
        self._reader = Reader(parameters.get("boundary", ""))
        self._receive = request.receive
        self._events: list[Event] = []  # the next one last
        self._part: Part | None = None
        self._ended = False

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> "Part":
        """The next part; what was not read of the one before is left out.

        Raises Refused (400), and ClientDisconnect.
        """
        if self._part is not None:
            async for _ in self._part:
                pass
        event = await self.next_event()
        if event is None:
            raise StopAsyncIteration
        assert isinstance(event, PartBegun), "parts do not lie in each other"
        self._part = Part(self, event.content_type)
        return self._part

    async def drain(self) -> None:
        """Take in what is left, if it is not much."""
        left = MAXIMUM_DRAINED
        with trio.move_on_after(DRAINING):
            while left > 0 and not self._ended:
                left -= len(await self._read())

    async def next_event(self) -> Event | None:
        """None at the end of the body. Raises as `__anext__`."""
        while not self._events:
            if self._reader.whole:
                await self.drain()
                return None
            if self._ended:
                raise Refused(400, "the body ends before its last boundary")
            self._events = list(reversed(self._reader.feed(await self._read())))
        return self._events.pop()

    async def _read(self) -> bytes | bytearray:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._ended = not message.get("more_body", False)
        body: bytes | bytearray = message.get("body", b"")
        return body


class Part:
    """One part; iterate over its data, once."""

    def __init__(self, body: Body, content_type: str) -> None:
        self.content_type = content_type
        self._body = body
        self._ended = False

    def __aiter__(self) -> "Part":
        return self

    async def __anext__(self) -> bytes:
        event = None if self._ended else await self._body.next_event()
        if isinstance(event, bytes):
            return event
        assert event is None or event is PartEnded.PART_ENDED
        self._ended = True
        raise StopAsyncIteration
