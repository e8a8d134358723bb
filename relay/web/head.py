"""A request's head (RFC 9112 §2 to §6): read strictly, and by few steps.

Whatever two readers might take differently is refused, so that nobody in between can be made to see
another request than we do. With h11, which takes more and looks twice at each header, a request
without a body took 150 µs of processor time in all, and not 72.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

import attrs

Headers = list[tuple[bytes, bytes]]

# A request line with a signed URL (4,096 at most) and its headers.
MAXIMUM_HEADER: Final = 16 * 1024
END: Final = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 §5.6.2
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/([0-9])\.([0-9])")
# No line is continued by a next one, and nothing in it ends a line for somebody else (§5). Blanks
# around the value belong to it here: a pattern that took them for itself, and the value might too,
# would try a line of 16 KiB that is none in each of its ways, for a second.
FIELD = re.compile(rb"(" + _TOKEN + rb"):([^\x00-\x08\x0a-\x1f\x7f]*)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class BadRequest(Exception):
    """It is no request that we take; `status` says which kind of none."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@attrs.frozen(slots=True)
class Head:
    """What a request's head says. Names of headers are in lower case."""

    method: str
    target: bytes
    path: str  # its text, without escapes
    query: bytes
    minor: int  # of the version, 1.x
    headers: Headers
    length: int | None  # of the body; None where it comes in chunks
    keeps: bool  # whether another request may follow
    invited: bool  # whether the body waits for 100 (Continue)

    def get(self, name: bytes) -> bytes:
        """The header's value, the last where it comes twice; empty where there is none."""
        value = b""
        for key, said in self.headers:
            if key == name:
                value = said
        return value


def take(ahead: bytearray, seen: int) -> Head | None:
    """The head that `ahead` begins with, taken from it; None where more must come.

    In its first `seen` bytes there is no end of one. Raises BadRequest.
    """
    if ahead[:2] == b"\r\n":  # behind somebody's last body (RFC 9112 §2.2)
        del ahead[:2]
    if ahead and ahead[0] <= 0x20 and ahead != b"\r":
        raise BadRequest(400, "no request line")  # at once, not when its time is over
    end = ahead.find(END, max(0, seen - len(END) + 1))
    if end > MAXIMUM_HEADER or (end < 0 and len(ahead) > MAXIMUM_HEADER):
        raise BadRequest(431, f"a header of more than {MAXIMUM_HEADER} bytes")
    if end < 0:
        return None
    data = bytes(ahead[:end])
    del ahead[: end + len(END)]
    return parse(data)


def parse(data: bytes) -> Head:
    """The head in `data`, without the empty line at its end. Raises BadRequest."""
    first, *lines = data.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise BadRequest(400, "no request line")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise BadRequest(505, "HTTP/1.1 is spoken here")
    headers: Headers = []
    # The headers by which a message's end is found, and the connection's.
    special: dict[bytes, bytes] = {}
    for line in lines:
        field = FIELD.fullmatch(line)
        if field is None:
            raise BadRequest(400, "no header line")
        name, value = field[1].lower(), field[2].strip(b" \t")
        headers.append((name, value))
        if name in _SPECIAL:
            if name not in special:
                special[name] = value
            elif name == b"connection":
                special[name] += b"," + value
            else:
                raise BadRequest(400, f"{name.decode()} comes twice")
    keeps = minor != b"0"
    if keeps and b"host" not in special:
        raise BadRequest(400, "no Host")
    if (connection := special.get(b"connection")) and b"close" in tokens(connection):
        keeps = False
    length = _length(special, chunks=minor != b"0")
    path, _, query = target.partition(b"?")
    return Head(
        method=method.decode("ascii"),
        target=target,
        path=_text(path),
        query=query,
        minor=int(minor),
        headers=headers,
        length=length,
        keeps=keeps,
        invited=minor != b"0" and special.get(b"expect", b"").lower() == b"100-continue",
    )


_SPECIAL = frozenset(
    {b"host", b"connection", b"content-length", b"transfer-encoding", b"expect", b"upgrade"}
)


def tokens(value: bytes) -> list[bytes]:
    """What a header lists, in lower case."""
    return [token.strip() for token in value.lower().split(b",")]


def _length(special: dict[bytes, bytes], *, chunks: bool) -> int | None:
    """How long the body is; None for one in chunks (RFC 9112 §6.3)."""
    length = special.get(b"content-length")
    if (encoding := special.get(b"transfer-encoding")) is not None:
        # Somebody in between may read another end than we (§6.1).
        if length is not None:
            raise BadRequest(400, "both Content-Length and Transfer-Encoding")
        if not chunks:
            raise BadRequest(400, "Transfer-Encoding in HTTP/1.0")
        if encoding.lower() != b"chunked":
            raise BadRequest(501, "no Transfer-Encoding but chunked is taken")
        return None
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise BadRequest(400, "Content-Length is no number")
    return int(length)


def _text(path: bytes) -> str:
    try:
        if b"%" not in path:
            return path.decode("ascii")
        if _BAD_ESCAPE.search(path):
            raise BadRequest(400, "a path with an escape that is none")
        return unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(400, "a path that is no text") from None
