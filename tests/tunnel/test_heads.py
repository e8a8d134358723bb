"""Heads of HTTP by hand: what is said, and what is read of plain answers as h11 reads it."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import LocalProtocolError
from relay.tunnel.heads import PlainHead, fields_of, request_head

STORE = (
    b"HTTP/1.1 200 OK\r\nx-amz-id-2: a/b+c=\r\nDate: Sat, 28 Nov 2026 12:00:00 GMT\r\n"
    b'ETag: "0"\r\ncontent-LENGTH:\t12 \r\nServer: S3\r\n\r\n'
)

PLAIN = {
    STORE + b"hello world!": PlainHead(200, 12, True, len(STORE)),
    b"HTTP/1.1 204 No Content\r\n\r\n": PlainHead(204, 0, True, 27),
    # Lengths are no lengths there (RFC 9110 §8.6).
    b"HTTP/1.1 304 \r\nContent-Length: 7\r\n\r\n": PlainHead(304, 0, True, 36),
    b"HTTP/1.1 404 N\xe4h\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n": PlainHead(
        404, 0, False, 58
    ),
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok": PlainHead(
        200, 2, True, 62
    ),
}

# Left to h11, which reads some of them and refuses others.
OTHERS = [
    b"",
    STORE[:-1],
    b"\r\n" + STORE,
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 99 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    b"HTTP/1.1 200 OK\r\n\r\nto the end",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\r\n Content-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: a, close\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection:\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nConnection: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
]


@pytest.mark.parametrize("data", PLAIN)
def test_a_plain_head_is_read(data: bytes) -> None:
    assert PlainHead.decode(data) == PLAIN[data]
    assert PlainHead.decode(bytearray(data)) == PLAIN[data]


@pytest.mark.parametrize("data", OTHERS)
def test_what_is_not_plain_is_left_to_others(data: bytes) -> None:
    assert PlainHead.decode(data) is None


@pytest.mark.parametrize("data", PLAIN)
def test_a_head_that_is_not_whole_is_none(data: bytes) -> None:
    size = PLAIN[data].size
    assert all(PlainHead.decode(data[:cut]) is None for cut in range(size))


PIECES = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 404 No\r\n", b"\r\n", b"Content-Length: 2\r\n", b":"),
        *(b"Content-Length: 07\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
        *(b"X: y\r\n", b"X:\r\n", b" z\r\n", b"\0", b"\n", b"\r", b"content-length:3", b"ok"),
    ]
)


@given(st.lists(PIECES, max_size=8).map(lambda pieces: b"HTTP/1.1 200 OK\r\n" + b"".join(pieces)))
def test_what_is_read_h11_reads_the_same(data: bytes) -> None:
    found = PlainHead.decode(data)
    if found is None:
        return
    engine = h11.Connection(h11.CLIENT)
    engine.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    engine.receive_data(data)
    response = engine.next_event()
    assert isinstance(response, h11.Response)
    headers = dict(response.headers)
    assert response.status_code == found.status
    assert int(headers[b"content-length"]) == found.length
    assert b"transfer-encoding" not in headers
    assert (b"close" not in headers.get(b"connection", b"")) == found.keeps
    assert engine.trailing_data[0] == data[found.size :]


def test_what_is_said_is_what_h11_would_hear() -> None:
    fields = fields_of([("Host", "store.example"), ("X-Amz-Date", "2026 a\tb"), ("Empty", "")])
    engine = h11.Connection(h11.SERVER)
    engine.receive_data(request_head("PUT", "/a?b=%20&c", fields + b"Content-Length: 3\r\n"))
    request = engine.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"PUT", b"/a?b=%20&c")
    assert list(request.headers) == [
        (b"host", b"store.example"),
        (b"x-amz-date", b"2026 a\tb"),
        (b"empty", b""),
        (b"content-length", b"3"),
    ]


@pytest.mark.parametrize(
    "header",
    [
        *(("X", "a\r\nEvil: 1"), ("X", "a\nb"), ("X", "\0"), ("X", "\xe4")),
        *(("X:", "a"), ("", "a"), ("X Y", "a"), ("X\r\nEvil", "a")),
    ],
)
def test_a_header_that_http_cannot_say(header: tuple[str, str]) -> None:
    with pytest.raises(LocalProtocolError, match="header"):
        fields_of([header])


@pytest.mark.parametrize("target", ["", "/a b", "/a\r\n", "/\xe4", "/a\0"])
def test_a_target_that_http_cannot_say(target: str) -> None:
    with pytest.raises(LocalProtocolError, match="target"):
        request_head("GET", target, b"")


@pytest.mark.parametrize("name", [b"Connection", b"Content-Length", b"X"])
@pytest.mark.parametrize("long", [b" ", b"\t", b"a", b"1", b"a "])
def test_a_long_line_is_read_at_once(name: bytes, long: bytes) -> None:
    """What tries such a line in every way needs hours for a megabyte."""
    whole = long * (2**20 // len(long))
    head = b"HTTP/1.1 200 OK\r\n" + name + b":" + whole + b"!\r\n"
    assert PlainHead.decode(head) is None
    assert (PlainHead.decode(head + b"Content-Length: 2\r\n\r\n") is None) == (name != b"X")
