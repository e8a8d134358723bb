"""The HTTP server: floods keep nobody out, it ends gracefully, and its sockets are its own."""

import os
import socket
import stat
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
from starlette.responses import PlainTextResponse

from relay.errors import RelayError
from relay.web import server as server_module
from relay.web.server import listen_tcp, listen_unix, serve_asgi

from .conftest import PATIENCE, UPGRADE, both, causes, read_all, read_until

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303")


async def test_frozen_handshake_blocks_nobody(running) -> None:
    async with running(tls=True) as server:
        frozen = [await server.connect(tls=False) for _ in range(20)]
        for stream in frozen[:10]:
            await stream.send_all(CLIENT_HELLO)
        with trio.fail_after(2):
            assert await server.is_well()
        for stream in frozen:
            await stream.aclose()


@both
async def test_flood_of_half_open_connections_keeps_nobody_out(
    running, tls: bool, monkeypatch
) -> None:
    monkeypatch.setattr(server_module, "SETTLING", 0.05)
    async with running(tls=tls, maximum_waiting=16, maximum_connections=24) as server:
        flood = []
        for _ in range(200):
            stream = await server.connect(tls=False)
            await stream.send_all(b"\x16" if tls else b"G")
            flood.append(stream)
        with trio.fail_after(PATIENCE):
            assert await server.is_well()
            # The oldest made room.
            assert await read_all(flood[0]) == b""
        for stream in flood:
            await stream.aclose()


async def test_who_came_just_now_is_not_pushed_out(running, monkeypatch) -> None:
    """Who comes meanwhile waits until there is room."""
    monkeypatch.setattr(server_module, "SETTLING", 3600)
    async with running(maximum_waiting=4) as server:

        async def comes() -> None:
            assert await server.is_well()

        with trio.fail_after(PATIENCE):
            early = [await server.connect() for _ in range(4)]
            for stream in early:
                await stream.send_all(b"G")
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(comes)
                await trio.testing.wait_all_tasks_blocked(cushion=0.01)
                await early[3].aclose()
            for stream in early[:3]:
                await stream.send_all(b"ET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
                await read_until(stream, b"hello")


async def test_busy_connections_are_never_pushed_out(running, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "SETTLING", 0.05)
    async with running(maximum_waiting=4, maximum_connections=8) as server:
        with trio.fail_after(PATIENCE):
            busy = await server.connect()
            await busy.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await server.seen.entered.wait()
            flood = [await server.connect() for _ in range(50)]
            assert await server.is_well()
            server.seen.go_on.set()
            assert (await read_until(busy, b"done")).startswith(b"HTTP/1.1 200")
            for stream in flood:
                await stream.aclose()


async def test_busy_connections_are_capped(running) -> None:
    async with running(maximum_connections=3) as server:
        with trio.fail_after(PATIENCE):
            busy = []
            for _ in range(3):
                stream = await server.connect()
                await stream.send_all(UPGRADE)
                await read_until(stream, b"\r\n\r\n")
                busy.append(stream)
            assert await server.says(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n") == b""
            for stream in busy:
                await stream.aclose()
            await server.seen.socket_closed.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert await server.is_well()


async def test_failing_app_is_answered_and_logged_without_its_query(running, logs) -> None:
    async with running() as server:
        answer = await server.says(
            b"GET /fails?s=SIGNATURE HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 500")
        assert [line["message"] for line in logs] == ["Error in ASGI Framework"]
        assert "SIGNATURE" not in str(logs)
        assert await server.is_well()


async def test_many_requests_on_one_connection(running) -> None:
    async with running() as server, httpx.AsyncClient() as client:
        for _ in range(50):
            answer = await client.get(f"http://127.0.0.1:{server.port}/hello")
            assert answer.text == "hello"
            assert "server" not in answer.headers


# --- stopping -----------------------------------------------------------------------------------


@both
async def test_requests_that_come_at_once_leave_others_their_turn(running, tls: bool) -> None:
    many, turns, seen = 100, 0, []

    async def app(scope: object, receive: object, send) -> None:
        seen.append(turns)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with running(tls=tls, app=app) as server:
        with trio.fail_after(PATIENCE):
            stream = await server.connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * many)
                answers = b""
                while answers.count(b"HTTP/1.1 204") < many:
                    answers += await stream.receive_some(65536)
                nursery.cancel_scope.cancel()
    assert len(set(seen)) >= many // 2, "of two tasks either may be the first in a turn"


async def test_stopping_lets_a_request_finish_and_closes_idle_ones(running) -> None:
    async with running() as server:
        with trio.fail_after(PATIENCE):
            idle = await server.connect()
            busy = await server.connect()
            await busy.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await server.seen.entered.wait()
            server.stopping.set()
            assert await read_all(idle) == b""
            server.seen.go_on.set()
            answer = await read_all(busy)
            assert answer.endswith(b"done")
            assert b"connection: close" in answer
            await server.stopped.wait()
            with pytest.raises(OSError, match=r"."):
                await server.connect()


async def test_grace_ends(running) -> None:
    async with running(grace=0.2) as server:
        with trio.fail_after(PATIENCE):
            busy = await server.connect()
            await busy.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await server.seen.entered.wait()
            reader = await server.connect()
            await reader.send_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            server.stopping.set()
            await server.stopped.wait()


# --- sockets ------------------------------------------------------------------------------------


async def test_port_in_use_names_the_address() -> None:
    first = await listen_tcp([("127.0.0.1", 0)])
    port = first[0].getsockname()[1]
    with pytest.raises(RelayError, match=f"127.0.0.1:{port}"):
        await listen_tcp([("127.0.0.1", 0), ("127.0.0.1", port)])
    first[0].close()


async def test_unknown_host_names_the_address() -> None:
    with pytest.raises(RelayError, match=r"host\.invalid:1"):
        await listen_tcp([("host.invalid", 1)])


async def serve_hello(path: Path, stopping: trio.Event, task_status) -> None:
    await serve_asgi(
        PlainTextResponse("hello"),
        [listen_unix(path)],
        stopping=stopping,
        task_status=task_status,
    )


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_unix_socket_is_private_serves_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_hello, path, stopping)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get("http://relay/")).text == "hello"
        with pytest.raises(RelayError, match="running already"):
            listen_unix(path)
        stopping.set()
    assert names(tmp_path) == []


async def test_another_user_is_turned_away(tmp_path: Path, monkeypatch, logs) -> None:
    monkeypatch.setattr(server_module.os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(server_module, "_UCRED", _UserOf(4242))
    path = tmp_path / "relay.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_hello, path, trio.Event())
        stream = await trio.open_unix_socket(path)
        with trio.fail_after(PATIENCE):
            assert await read_all(stream) == b""
        await stream.aclose()
        assert causes(logs) == {"another user on the Unix socket"}
        nursery.cancel_scope.cancel()


class _UserOf:
    """SO_PEERCRED's record as if that user had connected: a test cannot become one."""

    size = 12

    def __init__(self, user: int) -> None:
        self.user = user

    def unpack(self, data: bytes) -> tuple[int, int, int]:
        return 1, self.user, self.user


def test_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listen_unix(path).close()


def test_file_in_the_place_of_the_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    path.write_text("precious")
    with pytest.raises(RelayError, match="not a socket"):
        listen_unix(path)
    assert path.read_text() == "precious"


def test_unix_path_too_long(tmp_path: Path) -> None:
    with pytest.raises(RelayError, match="107"):
        listen_unix(tmp_path / ("x" * 120))
