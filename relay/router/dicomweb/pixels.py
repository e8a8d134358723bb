"""Frames and bulk data of one object, cut out of it as it comes from a device (PS3.18 §10.4.1.1).

What is sent needs no memory, but for what has to wait: frames that were asked for in another order
than that of the object, and values that lie in its head.
"""

from collections.abc import Sequence
from typing import Final

import attrs

from relay.dicom.dimse import Status
from relay.dicom.elements import encoding_of
from relay.dicom.pdu import Buffer
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from relay.errors import Refused
from relay.router.dicomweb import media
from relay.router.dicomweb.answering import Answer
from relay.router.dicomweb.frames import Cutter, Layout, Piece, encoded_in
from relay.router.dicomweb.media import MediaRange
from relay.router.dicomweb.metadata import scan
from relay.router.dicomweb.multipart import Writer
from relay.router.dicomweb.scanning import PIXELS, BulkBegun, BulkEnded, Event, Scanner
from relay.router.federation import attributes
from relay.router.federation.sinks import Arriving, Taking

# Frames that wait for others, which were asked for before them.
MAXIMUM_WAITING: Final = 64 * 2**20

# Of an object, behind the last frame that was asked for: when more of it comes, the device is told
# to stop, which it can only be by an A-ABORT.
MAXIMUM_DRAINED: Final = 4 * 2**20

# Frames of one request.
MAXIMUM_FRAMES: Final = 10_000


def frame_list(text: str) -> tuple[int, ...]:
    """The frame numbers in a URL: "1,2,5". Raises Refused (400)."""
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        raise Refused(400, "frames are numbers from 1, with commas between them")
    numbers = tuple(map(int, words))
    if 0 in numbers or len(set(numbers)) < len(numbers) or len(numbers) > MAXIMUM_FRAMES:
        raise Refused(400, f"frames are counted from 1, each once, and at most {MAXIMUM_FRAMES}")
    return numbers


class EnoughError(Exception):
    """All that was asked for has been sent, and much of the object is still to come."""


class Parts:
    """Sends parts, or one that is not a part, as soon as their turn comes."""

    def __init__(self, answer: Answer, *, alone: bool) -> None:
        self._answer = answer
        self._alone = alone
        self._writer: Writer | None = None

    async def begin(self, kind: str, parameters: str = "") -> None:
        """The next part, or the one thing that is sent."""
        content_type = kind + parameters
        if self._alone:
            await self._answer.start(content_type)
            return
        if self._writer is None:
            self._writer = Writer(kind)
            await self._answer.start(self._writer.content_type)
        await self._answer.write(self._writer.begin(content_type))

    async def data(self, data: bytes | bytearray | memoryview) -> None:
        """More of it."""
        await self._answer.write(data)

    async def end(self) -> None:
        """There are no more."""
        await self._answer.end(b"" if self._writer is None else self._writer.end())


class _OneObject:
    """A sink that takes one object, once: the only one of `wanted`, if that names any."""

    __slots__ = ()
    whole: bool
    wanted: Sequence[str]

    def leaves_out(self, instance: Arriving) -> bool:
        """Whether nothing of this one is for it."""
        return self.whole or bool(self.wanted and instance.sop_instance not in self.wanted)


class _Reading:
    """One object on its way through a scanner."""

    def __init__(self, instance: Arriving) -> None:
        encoding = encoding_of(instance.transfer_syntax)
        assert encoding is not None, "of a transfer syntax that was not proposed"
        self._instance = instance.sop_instance
        self._syntax = instance.transfer_syntax
        self._scanner = Scanner(encoding)

    async def abandon(self) -> None:
        """See `Taking.abandon`: what has gone out is not ended."""


@attrs.define(slots=True, eq=False)
class FrameSink(_OneObject):
    """Sends frames of one object (relay.router.federation.sinks.Sink), in the order of `frames`.

    Without `frames` all pixel data: what is uncompressed as one, else each frame. `whole`: they
    have been sent; `found`: there is pixel data. `wanted`: the object, if it is named; there are
    archives that send others of its series, too.
    """

    answer: Answer
    ranges: Sequence[MediaRange]
    contexts: Sequence[tuple[str, Sequence[str]]]
    frames: tuple[int, ...] = ()
    whole: bool = False
    found: bool = False
    wanted: Sequence[str] = ()
    sent: set[str] = attrs.field(factory=set)

    async def begin(self, instance: Arriving) -> Taking | int:
        """See `Sink.begin`."""
        return Status.SUCCESS if self.leaves_out(instance) else _Cutting(self, instance)


class _Cutting(_Reading):
    def __init__(self, sink: FrameSink, instance: Arriving) -> None:
        super().__init__(instance)
        self._sink = sink
        self._cutter: Cutter | None = None
        self._order = _Order(())
        self._parts: Parts | None = None
        self._type = ""
        self._passing = False  # pixel data, and no other bulk
        self._drained = 0

    async def data(self, fragment: Buffer, last: bool) -> None:
        """See `Taking.data`. Raises Refused, EnoughError."""
        if self._sink.whole:
            # What else comes of it nobody has asked for.
            self._drained += len(fragment)
            if self._drained > MAXIMUM_DRAINED:
                raise EnoughError
            return
        for event in scan(self._scanner, fragment):
            if isinstance(event, BulkBegun):
                self._passing = event.tag in PIXELS
                if self._passing:
                    self._start(event)
            elif self._cutter is not None and self._passing:
                for piece in self._cutter.feed(event):
                    await self._send(piece)
        if self._parts is not None and self._order.whole:
            self._sink.whole = True
            await self._parts.end()

    def _start(self, pixels: BulkBegun) -> None:
        sink = self._sink
        if sink.answer.started:
            raise Refused(502, "another device had to be asked for what one began to send")
        sink.found = True
        if not sink.frames and pixels.length is not None:
            layout = Layout(1, 8 * pixels.length)  # uncompressed: all of it is one value
        else:
            layout = Layout.read(self._scanner.head, self._syntax, pixels)
        chosen = media.frame_type(sink.ranges, self._syntax)
        if chosen is None:
            raise Refused(406, f"its frames are in transfer syntax {self._syntax}: accept that")
        frames = sink.frames or tuple(range(1, layout.count + 1))
        self._type, single = chosen
        self._parts = Parts(sink.answer, alone=single and len(frames) == 1)
        self._cutter = Cutter(layout, pixels, frames)
        self._order = _Order(frames)

    async def _send(self, piece: Piece) -> None:
        assert self._parts is not None
        parameters = f"; transfer-syntax={media.as_said(self._syntax)}"
        for first, data in self._order.take(piece):
            if first:
                await self._parts.begin(self._type, parameters)
            await self._parts.data(data)

    async def end(self) -> int:
        """See `Taking.end`."""
        if self._sink.found and not self._sink.whole:
            return Status.PROCESSING_FAILURE
        self._sink.sent.add(self._instance)
        return Status.SUCCESS


class _Order:
    """Brings pieces of frames into the order in which they were asked for."""

    def __init__(self, frames: tuple[int, ...]) -> None:
        self._due = list(reversed(frames))  # the next one last
        self._begun = False  # the one that is due
        self._waiting: dict[int, bytearray] = {}
        self._ended: set[int] = set()
        self._size = 0

    @property
    def whole(self) -> bool:
        """Whether all have gone out."""
        return not self._due

    def take(self, piece: Piece) -> list[tuple[bool, bytes | bytearray | memoryview]]:
        """What can go out now, each with whether it is a frame's first. Raises Refused (413)."""
        if not self._due or piece.frame != self._due[-1]:
            self._size += len(piece.data)
            if self._size > MAXIMUM_WAITING:
                raise Refused(
                    413, "the frames are too large to be sent in another order than theirs"
                )
            self._waiting.setdefault(piece.frame, bytearray()).extend(piece.data)
            if piece.last:
                self._ended.add(piece.frame)
            return []
        out: list[tuple[bool, bytes | bytearray | memoryview]] = [(not self._begun, piece.data)]
        self._begun = not piece.last
        if piece.last:
            self._due.pop()
            while self._due and self._due[-1] in self._ended:
                data = self._waiting.pop(self._due.pop())
                self._size -= len(data)
                out.append((True, data))
            if self._due and self._due[-1] in self._waiting:
                # It has begun already, and goes on.
                data = self._waiting.pop(self._due[-1])
                self._size -= len(data)
                out.append((True, data))
                self._begun = True
        return out


def bulk_path(text: str) -> tuple[int, ...]:
    """Tags, and item numbers between them: "54000100/0/54001010". Raises Refused (404)."""
    words = text.split("/")
    try:
        path = tuple(int(word, 10 if at % 2 else 16) for at, word in enumerate(words))
    except ValueError:
        raise Refused(404, "no bulk data has this URL") from None
    if len(path) % 2 == 0 or len(path) > 31:
        raise Refused(404, "no bulk data has this URL")
    return path


@attrs.define(slots=True, eq=False)
class BulkSink(_OneObject):
    """Sends one value of one object (relay.router.federation.sinks.Sink), as it is stored.

    `wanted`: the object, as for FrameSink.
    """

    answer: Answer
    path: tuple[int, ...]
    alone: bool
    contexts: Sequence[tuple[str, Sequence[str]]]
    whole: bool = False
    wanted: Sequence[str] = ()
    sent: set[str] = attrs.field(factory=set)

    async def begin(self, instance: Arriving) -> Taking | int:
        """See `Sink.begin`."""
        return Status.SUCCESS if self.leaves_out(instance) else _Picking(self, instance)


class _Picking(_Reading):
    def __init__(self, sink: BulkSink, instance: Arriving) -> None:
        super().__init__(instance)
        self._sink = sink
        self._parts = Parts(sink.answer, alone=sink.alone)
        self._passing = False

    async def data(self, fragment: Buffer, last: bool) -> None:
        """See `Taking.data`. Raises Refused."""
        for event in scan(self._scanner, fragment):
            await self._pick(event)

    async def _pick(self, event: Event) -> None:
        if isinstance(event, BulkBegun):
            self._passing = self._sink.path == (event.tag,)
            if self._passing:
                await self._begin()
        elif isinstance(event, BulkEnded):
            self._sink.whole = self._sink.whole or self._passing
            self._passing = False
        elif isinstance(event, memoryview) and self._passing:
            await self._parts.data(event)

    async def _begin(self) -> None:
        if self._sink.answer.started:
            raise Refused(502, "another device had to be asked for what one began to send")
        await self._parts.begin(media.OCTETS)

    async def end(self) -> int:
        """See `Taking.end`. Raises Refused (404)."""
        if not self._sink.whole:
            value = self._value()
            await self._begin()
            await self._parts.data(value)
            self._sink.whole = True
        self._sink.sent.add(self._instance)
        await self._parts.end()
        return Status.SUCCESS

    def _value(self) -> bytes:
        """In the head."""
        try:
            found = attributes.read(bytes(self._scanner.head), encoded_in(self._syntax))
            path = self._sink.path
            for tag, number in zip(path[::2], path[1::2], strict=False):
                item = list(attributes.items(found[tag][1]))[number]
                found = attributes.read(item, EXPLICIT_VR_LITTLE_ENDIAN)
            return found[path[-1]][1]
        except (KeyError, IndexError):
            raise Refused(404, "the object has no such bulk data") from None
        except ValueError as error:
            raise Refused(502, f"the device sent what cannot be read: {error}") from None
