"""Multipart bodies (RFC 2046 §5.1, RFC 2387), written and read piece by piece."""

import secrets
from enum import Enum, auto
from typing import Final

import attrs

from relay.errors import Refused
from relay.router.dicomweb import media

# A part's header is a Content-Type, a Content-Location and a length.
MAXIMUM_HEADER: Final = 16 * 1024
MAXIMUM_BOUNDARY: Final = 70  # RFC 2046 §5.1.1


class Writer:
    """Makes the bytes between the data of the parts."""

    def __init__(self, part_type: str) -> None:
        """`part_type` is the media type of the parts."""
        self.boundary = secrets.token_hex(16)
        self.content_type = f'{media.MULTIPART}; type="{part_type}"; boundary={self.boundary}'
        self._begun = False

    def begin(self, content_type: str, location: str = "") -> bytes:
        """What stands before a part's data."""
        lines = [f"--{self.boundary}", f"Content-Type: {content_type}"]
        if location:
            lines.append(f"Content-Location: {location}")
        before = "\r\n" if self._begun else ""
        self._begun = True
        return (before + "\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def end(self) -> bytes:
        """What stands behind the last part."""
        return f"\r\n--{self.boundary}--\r\n".encode("ascii")


@attrs.frozen(slots=True)
class PartBegun:
    """A part whose data follows."""

    content_type: str


class PartEnded(Enum):
    """What comes behind a part's data."""

    PART_ENDED = auto()


Event = PartBegun | PartEnded | bytes


class _State(Enum):
    PREAMBLE = auto()
    BOUNDARY = auto()  # behind one: is it the last?
    HEADER = auto()
    DATA = auto()
    EPILOGUE = auto()


class Reader:
    """Takes the parts out of a body."""

    def __init__(self, boundary: str) -> None:
        """Raises Refused (400) for what is no boundary."""
        if not 0 < len(boundary) <= MAXIMUM_BOUNDARY or not boundary.isascii():
            raise Refused(400, "Content-Type: no boundary, or one that is none")
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._state = _State.PREAMBLE
        # As if a line's end stood before the first boundary, which is how it is then found.
        self._ahead = bytearray(b"\r\n")

    @property
    def whole(self) -> bool:
        """Whether the last boundary has come."""
        return self._state is _State.EPILOGUE

    def feed(self, piece: bytes | bytearray) -> list[Event]:
        """What `piece` completes. Raises Refused (400)."""
        self._ahead += piece
        events: list[Event] = []
        while self._step(events):
            pass
        return events

    def _step(self, events: list[Event]) -> bool:
        """Whether anything came of what is ahead, so that more may."""
        ahead = self._ahead
        match self._state:
            case _State.PREAMBLE | _State.DATA:
                return self._data(events)
            case _State.BOUNDARY:
                if len(ahead) < 2:
                    return False
                if ahead[:2] == b"--":
                    self._end_part(events)
                    self._state = _State.EPILOGUE
                    return True
                end = ahead.find(b"\r\n", 0, MAXIMUM_HEADER)
                if end < 0:
                    return self._short("a boundary's line")
                if ahead[:end].strip(b" \t"):
                    raise Refused(400, "multipart body: more than a boundary on its line")
                self._end_part(events)
                del ahead[:end]  # its end may be that of the header, too
                self._state = _State.HEADER
                return True
            case _State.HEADER:
                end = ahead.find(b"\r\n\r\n", 0, MAXIMUM_HEADER)
                if end < 0:
                    return self._short("a part's header")
                events.append(PartBegun(_content_type(bytes(ahead[:end]))))
                # The line's end before the data may be the beginning of the next boundary.
                del ahead[: end + 2]
                self._state = _State.DATA
                self._skip = 2
                return True
            case _State.EPILOGUE:
                ahead.clear()
        return False

    _skip = 0  # bytes of the header's end that still stand before the data

    def _data(self, events: list[Event]) -> bool:
        ahead = self._ahead
        at = ahead.find(self._delimiter)
        if at < 0:
            # All but what may be the beginning of a boundary.
            self._emit(events, max(0, len(ahead) - len(self._delimiter)))
            return False
        self._emit(events, at)
        self._in_part = self._state is _State.DATA
        del ahead[: len(self._delimiter)]
        self._skip = 0
        self._state = _State.BOUNDARY
        return True

    # Whether a part ends with the boundary, once its line shows that it is one: what only begins
    # like it must not make the beginning of an object a whole one.
    _in_part = False

    def _end_part(self, events: list[Event]) -> None:
        if self._in_part:
            events.append(PartEnded.PART_ENDED)
        self._in_part = False

    def _emit(self, events: list[Event], count: int) -> None:
        if self._state is _State.DATA and count > self._skip:
            events.append(bytes(self._ahead[self._skip : count]))
        self._skip = max(0, self._skip - count)
        del self._ahead[:count]

    def _short(self, what: str) -> bool:
        if len(self._ahead) >= MAXIMUM_HEADER:
            raise Refused(400, f"multipart body: {what} of more than {MAXIMUM_HEADER} bytes")
        return False


def _content_type(header: bytes) -> str:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            return value.strip().decode("latin-1")
    return ""
