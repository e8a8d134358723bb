"""Connections to stores: how answers are read, and which connection is used again."""

import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from relay.byte_stream import Buffer, PlainStream
from relay.tunnel.connections import MAXIMUM_HEAD, PIECE, Connection, NoAnswer, Patience, Pool
from relay.tunnel.heads import fields_of
from relay.tunnel.origin import Origin

PATIENCE = Patience(connect=5.0, piece=5.0)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Respond = Callable[[trio.SocketStream, bytes], Awaitable[bool]]


@attrs.define
class Server:
    """What answers each request with `answer`, and counts connections."""

    answer: bytes = OK
    connections: int = 0
    origin: Origin = attrs.field(init=False)
    requests: list[bytes] = attrs.Factory(list)
    close: bool = False  # behind each answer
    silent: bool = False
    drain: bool = False  # a body that is not awaited
    ended: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        try:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = await stream.receive_some()
                    if not piece:
                        self.ended += 1
                        return
                    head += piece
                self.requests.append(head)
                if self.silent:
                    await trio.sleep_forever()
                await stream.send_all(self.answer)
                while self.drain and await stream.receive_some(2**20):
                    pass
                if self.close:
                    await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the test is over with it

    async def connect(self, origin: Origin) -> Connection:
        stream = await trio.open_tcp_stream(origin.host, origin.port)
        return Connection(PlainStream(stream), PATIENCE)


@asynccontextmanager
async def serving(**settings: object) -> AsyncIterator[Server]:
    server = Server(**settings)  # type: ignore[arg-type]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, server.serve, [listener])
            server.origin = Origin("http", "127.0.0.1", listener.socket.getsockname()[1])
            yield server
            nursery.cancel_scope.cancel()


def pool(server: Server, *, maximum: int = 4, kept_for: float = 30.0) -> Pool:
    return Pool(server.connect, maximum=maximum, kept_for=kept_for)


async def ask(
    pool: Pool, origin: Origin, limit: int = 1000, method: str = "GET", *parts: bytes
) -> bytes | None:
    headers = [("Host", origin.authority)]
    if parts:
        headers.append(("Content-Length", str(sum(map(len, parts)))))
    async with pool.connection(origin) as connection:
        answer = await connection.request(method, "/a", fields_of(headers), parts)
        body = await answer.read(limit)
    return None if body is None else bytes(body)


async def test_a_steady_flow_opens_no_connection_anew() -> None:
    """As many as there are requests at once, and no more however many come behind."""
    async with serving() as server:
        connections = pool(server, maximum=8)

        async def flow() -> None:
            for _ in range(20):
                assert await ask(connections, server.origin) == b"ok"

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(flow)
        assert len(server.requests) == 160
        assert server.connections <= 8
        await connections.aclose()


async def test_warm_connections_are_there_for_who_comes() -> None:
    async with serving() as server:
        connections = pool(server, maximum=8)
        await connections.warm(server.origin, 3)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, connections, server.origin)
        assert server.connections == 3
        await connections.warm(server.origin, 3)
        await connections.warm(server.origin, 2)
        assert server.connections == 3
        await connections.warm(server.origin, 100)
        await trio.testing.wait_all_tasks_blocked()
        assert server.connections == 8
        await connections.aclose()


async def test_who_comes_while_they_are_made_begins_no_other() -> None:
    async with serving() as server:
        connections = pool(server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connections.warm, server.origin, 2)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(2):
                nursery.start_soon(ask, connections, server.origin)
        assert server.connections == 2
        await connections.aclose()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, b"ok"),
        (b"HTTP/1.1 204 No\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
    ],
)
async def test_a_whole_answer_leaves_the_connection_usable(answer: bytes, expected: bytes) -> None:
    async with serving(answer=answer) as server:
        connections = pool(server)
        for _ in range(3):
            assert await ask(connections, server.origin) == expected
        assert server.connections == 1
        await connections.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",  # for the next request
    ],
    ids=["close", "1.0", "more"],
)
async def test_a_connection_that_says_otherwise_is_not_used_again(answer: bytes) -> None:
    async with serving(answer=answer) as server:
        connections = pool(server)
        for _ in range(3):
            assert await ask(connections, server.origin) == b"ok"
        assert server.connections == 3
        await connections.aclose()


async def test_a_connection_that_was_closed_meanwhile_is_not_tried() -> None:
    async with serving(close=True) as server:
        connections = pool(server)
        for number in range(3):
            assert await ask(connections, server.origin) == b"ok"
            assert server.connections == number + 1
            await trio.sleep(0.05)  # the end is on its way behind the answer
        await connections.aclose()


async def test_what_was_idle_for_too_long_is_closed() -> None:
    async with serving() as server:
        connections = pool(server, kept_for=0.0)
        for _ in range(3):
            await ask(connections, server.origin)
        assert server.connections == 3
        await connections.aclose()


async def test_what_is_idle_is_closed_in_its_time_where_no_request_comes() -> None:
    async with serving() as server, trio.open_nursery() as nursery:
        connections = pool(server, kept_for=0.1)
        nursery.start_soon(connections.close_idle)
        async with trio.open_nursery() as asking:
            for _ in range(3):
                asking.start_soon(ask, connections, server.origin)
        while server.ended < server.connections:
            await trio.sleep(0.01)
        assert connections._kept == 0
        assert await ask(connections, server.origin) == b"ok"
        while server.ended < server.connections:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_idle_connections_make_room_for_those_of_others() -> None:
    async with serving() as first, serving() as second:
        connections = pool(first, maximum=2)

        async def two(server: Server) -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(ask, connections, server.origin)

        await two(first)
        await two(second)
        assert connections._kept <= 2
        while first.ended < 2:
            await trio.sleep(0.01)
        await connections.aclose()


async def test_what_hangs_is_bounded_and_the_others_wait() -> None:
    async with serving(silent=True) as server:
        connections = pool(server, maximum=3)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, connections, server.origin)
            while len(server.requests) < 3:
                await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert server.connections == 3
            nursery.cancel_scope.cancel()
        assert connections._kept == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * (2 * MAXIMUM_HEAD),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
    ids=["endless head", "two lengths", "negative", "ssh", "no chunk", "101"],
)
async def test_what_is_no_answer(answer: bytes) -> None:
    async with serving(answer=answer) as server:
        connections = pool(server)
        with pytest.raises(NoAnswer, match="RemoteProtocolError"):
            await ask(connections, server.origin)
        await connections.aclose()


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
async def test_an_answer_that_is_cut_short(framing: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nab"
    async with serving(answer=answer, close=True) as server:
        connections = pool(server)
        with pytest.raises(NoAnswer, match="RemoteProtocolError"):
            await ask(connections, server.origin)
        await connections.aclose()


@pytest.mark.parametrize("framing", [b"Content-Length: 11\r\n\r\n", b"\r\n"])
async def test_a_body_over_the_limit_is_none(framing: bytes) -> None:
    async with serving(answer=b"HTTP/1.1 200 OK\r\n" + framing + b"hello world") as server:
        connections = pool(server)
        assert await ask(connections, server.origin, 10) is None
        assert connections._kept == 0
        await connections.aclose()


async def test_an_answer_that_comes_before_the_body_is_whole_is_heard() -> None:
    """Who refuses a body answers and closes; how far the body got does not matter."""
    refusal = b"HTTP/1.1 507 Full\r\nContent-Length: 4\r\n\r\nfull"
    async with serving(answer=refusal, drain=True) as server:
        connections = pool(server)
        parts = [bytes(1_000_000)] * 8
        headers = [("Host", "x"), ("Content-Length", "8000000")]
        async with connections.connection(server.origin) as connection:
            with trio.move_on_after(5):
                answer = await connection.request("PUT", "/a", fields_of(headers), parts)
        assert answer.status == 507


async def test_who_refuses_a_body_and_closes_without_reading_it_is_heard() -> None:
    """The write fails; the answer lies there."""
    refusal = b"HTTP/1.1 413 Too much\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch"

    class Deaf(PlainStream):
        async def send_all(self, data: Buffer) -> None:
            await super().send_all(data)
            await trio.sleep(0.1)  # the answer, and the end of the connection, overtake us

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(100)
        await stream.send_all(refusal)
        stream.socket.shutdown(socket.SHUT_RDWR)
        await trio.sleep_forever()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            stream = await trio.open_tcp_stream(*listener.socket.getsockname())
            connection = Connection(Deaf(stream), PATIENCE)
            headers = [("Host", "x"), ("Content-Length", "8000000")]
            answer = await connection.request(
                "PUT", "/a", fields_of(headers), [bytes(1_000_000)] * 8
            )
            assert (answer.status, bytes(await answer.read(10) or b"")) == (413, b"much")
            assert not connection.reusable
            await connection.aclose()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("framing", "delimited"),
    [(b"Content-Length: 2\r\n", True), (b"Transfer-Encoding: chunked\r\n", True), (b"", False)],
)
async def test_whether_a_cut_is_seen(framing: bytes, delimited: bool) -> None:
    async with serving(answer=b"HTTP/1.1 200 OK\r\n" + framing + b"\r\nok") as server:
        connections = pool(server)
        async with connections.connection(server.origin) as connection:
            answer = await connection.request("GET", "/a", b"Host: x\r\n")
        assert answer.delimited is delimited


async def test_a_kept_connection_that_hears_nothing_takes_its_like_along() -> None:
    """A firewall forgets all that was idle, and tells nobody: one patience is lost, not three."""
    async with serving() as server:
        connections = pool(server)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, connections, server.origin)
        assert connections._kept == 3
        server.silent = True
        impatient = connections._idle[server.origin][-1]
        impatient._patience = Patience(connect=5.0, piece=0.1)
        with pytest.raises(NoAnswer, match="ReadTimeout"):
            await ask(connections, server.origin)
        assert connections._kept == 0


async def test_what_does_not_arrive_has_no_more_patience_than_any_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Who tries again needs the rest of the time; a slow line, which takes some, gets more."""

    @attrs.define
    class Line:
        left: list[int]

        async def send_parts(self, parts: object) -> None:
            pass

        async def receive_some(self, size: int) -> bytes:
            await trio.sleep_forever()
            raise AssertionError

        @property
        def unacknowledged(self) -> int:
            return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    for left, patience in (([100], 5.0), ([0], 5.0), ([100, 100, 90, 90, 90], 7.5)):
        connection = Connection(Line(left), PATIENCE)  # type: ignore[arg-type]
        began = trio.current_time()
        with pytest.raises(NoAnswer, match="ReadTimeout"):
            await connection.request("PUT", "/a", b"Host: x\r\nContent-Length: 1\r\n", [b"x"])
        assert trio.current_time() - began == pytest.approx(patience)


async def test_a_slow_line_is_served_while_it_moves(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each piece has the patience of one; a line that stops in between is given up."""

    @attrs.define
    class Line:
        pace: list[float]
        unacknowledged: int = 0

        async def pause(self) -> None:
            await trio.sleep(self.pace.pop(0) if len(self.pace) > 1 else self.pace[0])

        async def send_parts(self, parts: object) -> None:
            await self.pause()

        async def receive_some(self, size: int) -> bytes:
            return b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"

        async def receive_into(self, buffer: memoryview) -> int:
            await self.pause()
            return 1

    async def exchange(pace: list[float]) -> float:
        began = trio.current_time()
        connection = Connection(Line(pace), PATIENCE)  # type: ignore[arg-type]
        answer = await connection.request("PUT", "/a", b"Host: x\r\n", [bytes(8 * PIECE - 100)])
        assert await answer.read(10) == bytes(10)
        return trio.current_time() - began

    assert await exchange([3.0]) == pytest.approx((8 + 10) * 3.0)
    began = trio.current_time()
    with pytest.raises(NoAnswer, match="WriteTimeout"):
        await exchange([3.0, 3.0, math.inf])
    assert trio.current_time() - began == pytest.approx(3.0 + 3.0 + 5.0)
    began = trio.current_time()
    with pytest.raises(NoAnswer, match="ReadTimeout"):
        await exchange([3.0] * 10 + [math.inf])
    assert trio.current_time() - began == pytest.approx(10 * 3.0 + 5.0)


async def test_a_target_that_http_cannot_say() -> None:
    async with serving() as server:
        connections = pool(server)
        async with connections.connection(server.origin) as connection:
            with pytest.raises(NoAnswer, match="LocalProtocolError"):
                await connection.request("GET", "/a b", b"Host: x\r\n")
        assert server.requests == []
