"""A request's head: what is taken of it, and that nothing is which two could read differently."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.web.head import END, MAXIMUM_HEADER, BadRequest, Head, parse, take

LINE = b"PUT /v1/blobs/a%20b?e=1&s=%41 HTTP/1.1\r\nHost: x"


def head(*lines: bytes, first: bytes = LINE) -> Head:
    return parse(b"\r\n".join([first, *lines]))


def refused(*lines: bytes, first: bytes = LINE) -> int:
    with pytest.raises(BadRequest) as caught:
        head(*lines, first=first)
    return caught.value.status


def test_what_it_says() -> None:
    read = head(b"Content-Length: 12", b"X-Thing:  a b \t", b"Empty:", b"Expect: 100-Continue")
    assert read == Head(
        method="PUT",
        target=b"/v1/blobs/a%20b?e=1&s=%41",
        path="/v1/blobs/a b",
        query=b"e=1&s=%41",
        minor=1,
        headers=[
            (b"host", b"x"),
            (b"content-length", b"12"),
            (b"x-thing", b"a b"),
            (b"empty", b""),
            (b"expect", b"100-Continue"),
        ],
        length=12,
        keeps=True,
        invited=True,
    )
    assert read.get(b"x-thing") == b"a b"
    assert read.get(b"y") == b""


def test_where_the_body_ends() -> None:
    assert head().length == 0
    assert head(b"Content-Length: 007").length == 7
    assert head(b"Transfer-Encoding: Chunked").length is None


@pytest.mark.parametrize(
    ("lines", "first", "keeps"),
    [
        ([], LINE, True),
        ([b"Connection: close"], LINE, False),
        ([b"Connection: TE, Close"], LINE, False),
        ([b"Connection: te", b"Connection: close"], LINE, False),
        ([b"Connection: closed"], LINE, True),
        ([], b"GET / HTTP/1.0", False),
        ([b"Connection: keep-alive"], b"GET / HTTP/1.0", False),
    ],
)
def test_whether_another_may_follow(lines: list[bytes], first: bytes, *, keeps: bool) -> None:
    assert head(*lines, first=first).keeps is keeps


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"GET / HTTP/11",
        b"GET / http/1.1",
        b"GET /\n HTTP/1.1",
    ],
)
def test_what_is_no_request_line(first: bytes) -> None:
    assert refused(b"Host: x", first=first) == 400


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no colon",
        b": no name",
        b"Name : a",
        b" Name: a",
        b"\tcontinued",
        b"N\xc3\xa4me: a",
        b"Name: a\x00b",
        b"Name: a\nHost: y",
        b"Name: a\rb",
        b"Host: y",
        b"Content-Length: 1\r\nContent-Length: 1",
        b"Content-Length: +1",
        b"Content-Length: -1",
        b"Content-Length: 1, 1",
        b"Content-Length: 1_0",
        b"Content-Length: \xd9\xa1",
        b"Content-Length: ",
        b"Content-Length: " + b"1" * 30,
        b"Content-Length: 1\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(line: bytes) -> None:
    assert refused(line) == 400


@pytest.mark.parametrize("long", [b" ", b"\t", b" \t", b"a", b"a ", b"a:", b":", b","])
def test_a_line_that_is_none_is_refused_at_once_however_long(long: bytes) -> None:
    """What tries such a line in every way needs hours for a megabyte."""
    whole = long * (2**20 // len(long))
    assert refused(b"Name:" + whole + b"\0") == 400
    assert refused(b"Name:" + whole + b"a\0") == 400
    assert refused(whole + b"\0") == 400
    assert refused(b"Content-Length:1" + whole + b"1") == 400
    assert refused(first=whole + b"\0") == 400
    assert refused(first=b"GET " + whole + b"\0") == 400
    assert head(b"Name:" + whole + b"a" + whole).get(b"name") == (whole + b"a" + whole).strip()


def test_what_is_asked_of_another_version() -> None:
    assert refused(first=b"GET / HTTP/2.0") == 505
    assert refused(first=b"GET / HTTP/1.1") == 400, "without a Host"
    assert refused(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0") == 400
    assert refused(b"Transfer-Encoding: gzip, chunked") == 501
    assert not head(b"Expect: 100-continue", first=b"POST / HTTP/1.0").invited


@pytest.mark.parametrize("path", [b"/%", b"/%4", b"/%zz", b"/%+1", b"/%ff", b"/%ed%a0%80"])
def test_a_path_that_is_no_text(path: bytes) -> None:
    assert refused(b"Host: x", first=b"GET " + path + b" HTTP/1.1") == 400


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_head_or_refused(data: bytes) -> None:
    for begun in (data, LINE + b"\r\n" + data):
        with suppress(BadRequest):
            assert parse(begun).minor in range(10)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_head_is_taken_where_it_ends(step: int) -> None:
    """However its pieces come, with an empty line before it and a body behind it."""
    data = b"\r\n" + LINE + END + b"body"
    ahead, taken = bytearray(), None
    at = seen = 0
    while taken is None:
        seen = len(ahead)
        ahead += data[at : at + step]
        at += step
        taken = take(ahead, seen)
    assert taken == parse(LINE)
    assert bytes(ahead) + data[at:] == b"body"


def test_a_head_has_an_end() -> None:
    long = LINE + b"\r\nX: " + b"a" * MAXIMUM_HEADER
    for ahead in (long, long + END):
        with pytest.raises(BadRequest) as caught:
            take(bytearray(ahead), 0)
        assert caught.value.status == 431


@pytest.mark.parametrize("begun", [b"\0", b" GET", b"\r\n\r\n", b"\n"])
def test_what_begins_no_request_is_not_waited_for(begun: bytes) -> None:
    with pytest.raises(BadRequest):
        take(bytearray(begun), 0)
