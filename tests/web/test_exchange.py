"""Requests and answers on one connection: how they are framed, and when another may follow."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from relay.web.exchange import MAXIMUM_AHEAD, PeerGone

from .conftest import PATIENCE, both, causes, read_all, read_until

Handler = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Any], Awaitable[None]]

GET = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
OK = {"type": "http.response.start", "status": 200}


def start(length: int | None = None) -> dict[str, Any]:
    return {**OK, "headers": [] if length is None else [(b"content-length", b"%d" % length)]}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@both
async def test_requests_that_come_at_once_are_answered_in_turn(running, tls: bool) -> None:
    async with running(tls=tls) as server:
        last = GET.replace(b"Host: x", b"Host: x\r\nConnection: close")
        answer = await server.says(GET + GET + last)
        assert answer.count(b"HTTP/1.1 200") == 3
        assert answer.count(b"hello") == 3


async def test_a_body_is_invited_only_where_it_is_wanted(running) -> None:
    head = b"%s HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with running() as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(head % b"PUT /count")
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            await stream.send_all(b"abc")
            assert (await read_until(stream, b'{"bytes":3}')).startswith(b"HTTP/1.1 200")
            await stream.send_all(head % b"PUT /refuse")
            assert (await read_all(stream)).startswith(b"HTTP/1.1 413")


async def test_a_chunked_body_arrives(running) -> None:
    chunks = b"3\r\nabc\r\n" + b"fff\r\n" + bytes(0xFFF) + b"\r\n0\r\n\r\n"
    async with running() as server:
        answer = await server.says(
            b"PUT /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks
        )
        assert answer.endswith(b'{"bytes":%d}' % (3 + 0xFFF))


async def test_chunks_that_are_none_are_a_body_cut_short(running) -> None:
    async with running() as server:
        await server.says(
            b"PUT /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"
        )
        assert server.seen.disconnected.is_set()
        assert await server.is_well()


async def test_a_head_has_no_body_behind_it(running) -> None:
    async with running() as server:
        head = b"HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = await server.says(
            head + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        first, second = answer.split(b"\r\n\r\n", 1)
        assert b"content-length: 5" in first.lower()
        assert second.startswith(b"HTTP/1.1 200")


async def test_an_answer_without_length_comes_in_chunks(running) -> None:
    async def app(scope, receive, send) -> None:
        await send(start())
        await send(body(b"abc", more=True))
        await send(body(b"defg"))

    async with running(app=app) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            for _ in range(2):
                await stream.send_all(GET)
                answer = await read_until(stream, b"0\r\n\r\n")
                assert answer.endswith(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")


@pytest.mark.parametrize("sent", [b"", b"abc"])
async def test_an_answer_that_is_not_finished_ends_the_connection(running, sent: bytes) -> None:
    async def app(scope, receive, send) -> None:
        await send(start(10))
        if sent:
            await send(body(sent, more=True))

    async with running(app=app) as server:
        answer = await server.says(GET)
        if sent:
            assert answer.endswith(b"\r\n\r\nabc")
        else:
            assert answer.startswith(b"HTTP/1.1 500")


async def test_no_answer_is_a_500(running) -> None:
    async def app(scope, receive, send) -> None:
        pass

    async with running(app=app) as server:
        assert (await server.says(GET)).startswith(b"HTTP/1.1 500")


async def test_more_than_was_announced_is_not_sent(running, logs) -> None:
    async def app(scope, receive, send) -> None:
        await send(start(2))
        await send(body(b"abc"))

    async with running(app=app) as server:
        assert b"abc" not in await server.says(GET)
    assert [line["message"] for line in logs] == ["Error in ASGI Framework"]


async def test_an_app_learns_that_the_peer_has_gone(running) -> None:
    seen: list[str] = []
    over = trio.Event()

    async def app(scope, receive, send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            seen.append(message["type"])
        with pytest.raises(PeerGone):
            await send(start(1))
        seen.append("gone")
        over.set()

    async with running(app=app) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(GET)
            await stream.aclose()
            await over.wait()
    assert seen == ["http.request", "gone"]


async def test_a_next_request_does_not_look_like_a_peer_that_has_gone(running) -> None:
    disconnected: list[bool] = []

    async def app(scope, receive, send) -> None:
        assert (await receive())["type"] == "http.request"
        with trio.move_on_after(0.2) as waiting:
            await receive()
        disconnected.append(not waiting.cancelled_caught)
        await send(start(2))
        await send(body(b"ok"))

    async with running(app=app) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(GET)
            await stream.send_all(GET)
            await read_until(stream, b"ok")
            await read_until(stream, b"ok")
    assert disconnected == [False, False]


async def test_what_is_sent_ahead_is_bounded(running) -> None:
    over = trio.Event()

    async def app(scope, receive, send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        over.set()

    async with running(app=app) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(GET)
            await stream.send_all(GET * (3 * MAXIMUM_AHEAD // len(GET)))
            await over.wait()


async def test_a_peer_that_goes_in_an_answer_is_no_fault_of_the_app(running, logs) -> None:
    over = trio.Event()

    async def app(scope, receive, send) -> None:
        try:
            await send(start(2**30))
            while True:
                await send(body(bytes(2**20), more=True))
        finally:
            over.set()

    async with running(app=app) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            await stream.send_all(GET)
            await read_until(stream, b"\r\n\r\n")
            await stream.aclose()
            await over.wait()
    assert "Error in ASGI Framework" not in str(logs)
    assert causes(logs) <= {None}


async def test_a_body_that_nobody_asked_for_ends_the_connection(running) -> None:
    async with running() as server:
        answer = await server.says(
            b"PUT /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc" + GET
        )
        assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("target", [b"/%zz", b"/%ff", b"/%"])
async def test_a_path_that_is_no_text_is_refused(running, target: bytes) -> None:
    async with running() as server:
        answer = await server.says(GET.replace(b"/hello", target))
        assert answer.startswith(b"HTTP/1.1 400")
        assert await server.is_well()


async def test_an_answer_that_is_shorter_than_it_says_ends_the_connection(running, logs) -> None:
    async def app(scope, receive, send) -> None:
        await send(start(10))
        await send(body(b"abc"))

    async with running(app=app) as server:
        assert (await server.says(GET + GET)).count(b"HTTP/1.1") == 1
    assert [line["message"] for line in logs] == ["Error in ASGI Framework"]


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: b", b"a\nb", b"a\rb"])
async def test_a_header_that_would_make_another_is_not_sent(running, logs, value: bytes) -> None:
    async def app(scope, receive, send) -> None:
        await send({**OK, "headers": [(b"x", value)]})
        await send(body(b""))

    async with running(app=app) as server:
        answer = await server.says(GET)
        assert answer.startswith(b"HTTP/1.1 500")
        assert b"\nb" not in answer
        assert b"Set-Cookie" not in answer
    assert [line["message"] for line in logs] == ["Error in ASGI Framework"]


async def test_to_http_1_0_a_body_ends_with_the_connection(running) -> None:
    async def app(scope, receive, send) -> None:
        await send(start())
        await send(body(b"abc", more=True))
        await send(body(b"def"))

    async with running(app=app) as server:
        answer = await server.says(b"GET / HTTP/1.0\r\n\r\n")
        assert b"chunked" not in answer
        assert answer.endswith(b"\r\n\r\nabcdef")


async def test_an_app_may_end_the_connection(running) -> None:
    async def app(scope, receive, send) -> None:
        await send({**OK, "headers": [(b"Connection", b"close"), (b"content-length", b"0")]})
        await send(body(b""))

    async with running(app=app) as server:
        answer = await server.says(GET + GET)
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.lower().count(b"connection: close") == 1


async def test_a_small_body_that_nobody_asked_for_is_left_out(running) -> None:
    async with running() as server:
        whole = b"PUT /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        chunked = (
            b"PUT /refuse HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\n\r\n"
        )
        last = GET.replace(b"Host: x", b"Host: x\r\nConnection: close")
        answer = await server.says(whole + chunked + last)
        assert answer.count(b"HTTP/1.1 413") == 2
        assert answer.endswith(b"hello")


async def test_an_empty_line_before_a_request_is_overlooked(running) -> None:
    async with running() as server:
        last = GET.replace(b"Host: x", b"Host: x\r\nConnection: close")
        assert (await server.says(GET + b"\r\n" + last)).count(b"hello") == 2
