"""A request's body in chunks (RFC 9112 §7.1): where each ends, and where the body does."""

import re
from typing import Final

from relay.web.head import FIELD

# A chunk's line with whatever extensions, or the trailers, at most.
MAXIMUM_LINE: Final = 4 * 1024

# The size, up to 2**60 bytes, and extensions, which nobody reads (§7.1.1). Blanks may stand only
# before those.
_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class BadChunks(Exception):
    """What comes is no body in chunks."""


class Chunks:
    """Takes a body out of what comes."""

    def __init__(self) -> None:
        self._left = 0  # of the chunk that is coming in
        self._began = False  # a chunk, whose end is a line's
        self._trailers = 0  # bytes of them
        self._last = False
        self.whole = False

    def take(self, ahead: bytearray) -> bytes:
        """Some of the body, removed from `ahead`; none where more must come or it is `whole`.

        Raises BadChunks.
        """
        pieces: list[bytes] = []  # together: chunks may be of one byte each
        while not self.whole:
            if self._left:
                piece = bytes(ahead[: self._left])
                if not piece:
                    break
                del ahead[: len(piece)]
                self._left -= len(piece)
                pieces.append(piece)
                continue
            line = self._line(ahead)
            if line is None:
                break
            self._read(line)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, line: bytes) -> None:
        if self._last:
            self._trailers += len(line)
            if self._trailers > MAXIMUM_LINE:
                raise BadChunks("trailers are too long")
            # Nobody reads them, but what ends a line for somebody else must not be in them.
            if line and FIELD.fullmatch(line) is None:
                raise BadChunks("no trailer")
            self.whole = not line
        elif self._began:
            if line:
                raise BadChunks("a chunk is longer than it says")
            self._began = False
        else:
            match = _LINE.fullmatch(line)
            if match is None:
                raise BadChunks("no chunk's size")
            self._left = int(match[1], 16)
            self._began, self._last = bool(self._left), not self._left

    def _line(self, ahead: bytearray) -> bytes | None:
        end = ahead.find(b"\r\n", 0, MAXIMUM_LINE)
        if end < 0:
            if len(ahead) >= MAXIMUM_LINE:
                raise BadChunks("a line is too long")
            return None
        line = bytes(ahead[:end])
        del ahead[: end + 2]
        return line
