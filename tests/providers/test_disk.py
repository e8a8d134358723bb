"""The Bridge's own store: the conformance suite, and what is the disk's own."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import attrs
import httpx
import pytest
import trio
import trio.testing

from relay.bridge.blobs import BlobEndpoint
from relay.errors import ObjectMissing, ProviderError, Refused
from relay.providers import ReadsAhead, arrivals
from relay.providers.disk import DiskProvider, open_disk_provider
from relay.providers.files import MAXIMUM_BUFFERS
from relay.web.server import listen_tcp, serve_asgi

from . import suite
from .suite import *  # noqa: F403

SPACE = 16 * 1024 * 1024


@attrs.define
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def serving(root: Path, **settings) -> AsyncIterator[DiskProvider]:
    [listener] = await listen_tcp([("127.0.0.1", 0)])
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings = {"key": b"k" * 32, "space": SPACE, "free_floor": 0, **settings}
    async with open_disk_provider(root, base_url=base_url, **settings) as provider:
        app = BlobEndpoint(provider)
        stopping = trio.Event()

        async def serve(task_status) -> None:
            await serve_asgi(app, [listener], stopping=stopping, task_status=task_status)

        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            yield provider
            nursery.cancel_scope.cancel()


@pytest.fixture
async def provider(tmp_path: Path):
    async with serving(tmp_path / "blobs") as provider:
        yield provider


@pytest.fixture
async def client():
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        yield client


def files(provider: DiskProvider) -> list[Path]:
    root = provider._objects.parent
    return [path for path in root.rglob("*") if path.is_file()]


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_expired_request_is_refused(tmp_path: Path, client) -> None:
    clock = Clock()
    async with serving(tmp_path / "blobs", clock=clock) as provider:
        signed = await provider.sign_put("ab/one", size_limit=10, lifetime=60)
        clock.now += 59
        assert (await suite.send(client, signed, b"data")).status_code == 201
        signed = await provider.sign_get("ab/one", lifetime=60)
        clock.now += 60
        answer = await suite.send(client, signed)
        assert answer.status_code == 403
        assert "expired" in answer.json()["error"]


@pytest.mark.parametrize("part", ["e", "l", "s", "a"])
async def test_no_part_of_the_query_can_be_changed(provider, client, part: str) -> None:
    signed = await provider.sign_put("ab/one", size_limit=10, lifetime=60)
    url = httpx.URL(signed.url)
    for value in ("", "9999999999", "-1", "é", "0" * 64, "1e9"):
        forged = url.copy_set_param(part, value)
        if part != "a" or value:  # none is what it has
            assert (await client.put(forged, content=b"data")).status_code == 403
    if part != "a":
        assert (await client.put(url.copy_remove_param(part), content=b"x")).status_code == 403
    assert (await client.put(url, content=b"data")).status_code == 201


async def test_another_key_signs_nothing_here(provider, client, tmp_path: Path) -> None:
    url = httpx.URL((await provider.sign_get("ab/one", lifetime=60)).url)
    base_url = str(url.copy_with(path="/", query=None))
    async with open_disk_provider(
        tmp_path / "other", base_url=base_url, key=b"o" * 32, space=SPACE
    ) as other:
        signed = await other.sign_put("ab/one", size_limit=10, lifetime=60)
    assert (await suite.send(client, signed, b"data")).status_code == 403


async def test_four_gigabytes_are_refused_at_once(provider, client) -> None:
    signed = await provider.sign_put("ab/one", size_limit=1000, lifetime=60)
    url = httpx.URL(signed.url)
    async with await trio.open_tcp_stream(url.host, url.port) as stream:
        with trio.fail_after(5):
            await stream.send_all(
                b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n" % url.raw_path
            )
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 413")
    assert files(provider) == []


async def test_compressed_body_is_not_inflated(provider, client) -> None:
    signed = await provider.sign_put("ab/one", size_limit=1000, lifetime=60)
    answer = await client.put(signed.url, content=b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert files(provider) == []


async def test_length_is_needed(provider, client) -> None:
    signed = await provider.sign_put("ab/one", size_limit=1000, lifetime=60)
    answer = await client.put(signed.url, content=pieces(b"no", b"length"))
    assert answer.status_code == 411


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "ab/..%2f..%2f..%2frelay.db",
        "%2e%2e/relay.db",
        "ab%00",
        "ab\\..\\..",
        "'; DROP TABLE session; --",
        "<script>",
        "%0d%0aX-Evil:1",
    ],
)
async def test_path_traversal(provider, client, name: str) -> None:
    url = httpx.URL((await provider.sign_get("ab/one", lifetime=60)).url)
    target = f"/v1/blobs/{name}?e=9999999999&l=10&s={'0' * 64}".replace(" ", "%20").encode()
    for method in (b"GET", b"PUT", b"DELETE"):
        async with await trio.open_tcp_stream(url.host, url.port) as stream:
            await stream.send_all(
                method + b" " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            )
            with trio.fail_after(5):
                answer = await stream.receive_some()
            assert answer[:12] in (b"HTTP/1.1 403", b"HTTP/1.1 400", b"HTTP/1.1 404")
    assert files(provider) == []


async def test_client_that_leaves_leaves_nothing(provider) -> None:
    write_blob, over = provider.write, trio.Event()

    async def watched(*arguments) -> None:
        try:
            await write_blob(*arguments)
        finally:
            over.set()

    provider.write = watched
    signed = await provider.sign_put("ab/one", size_limit=3_000_000, lifetime=60)
    url = httpx.URL(signed.url)
    async with await trio.open_tcp_stream(url.host, url.port) as stream:
        await stream.send_all(
            b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" % url.raw_path
            + bytes(2_000_000)
        )
    with trio.fail_after(5):
        await over.wait()
    assert files(provider) == []
    assert provider._usage == type(provider._usage)(stored=0, promised=0)


async def test_slow_upload_ends(tmp_path: Path) -> None:
    async with open_disk_provider(
        tmp_path, base_url="http://x", key=b"k", space=SPACE, free_floor=0
    ) as provider:

        async def never() -> AsyncIterator[bytes]:
            yield b"a"
            await trio.sleep_forever()

        with trio.move_on_after(0.1) as scope:
            await provider.write("ab/one", never(), 10)
        assert scope.cancelled_caught
        assert files(provider) == []
        assert provider._usage.promised == 0


async def test_body_must_be_as_long_as_it_says(provider) -> None:
    with pytest.raises(Refused, match="shorter"):
        await provider.write("ab/one", pieces(b"ab"), 3)
    async with aclosing(pieces(b"ab", b"cd")) as body:
        with pytest.raises(Refused, match="longer"):
            await provider.write("ab/one", body, 3)
    assert files(provider) == []
    assert provider.used == 0


async def test_space_is_bounded_and_freed(provider, client) -> None:
    assert await suite.put(provider, client, "ab/one", bytes(SPACE - 10)) == 201
    assert provider.used == SPACE - 10
    assert await suite.put(provider, client, "ab/two", bytes(11)) == 507
    assert await suite.put(provider, client, "ab/three", bytes(10)) == 201
    await provider.delete(["ab/one", "ab/one"])
    assert provider.used == 10
    assert await suite.put(provider, client, "ab/two", bytes(11)) == 201


async def test_uploads_under_way_count(provider) -> None:
    entered, go_on = trio.Event(), trio.Event()

    async def slow() -> AsyncIterator[bytes]:
        entered.set()
        await go_on.wait()
        yield bytes(SPACE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(provider.write, "ab/one", slow(), SPACE)
        await entered.wait()
        with pytest.raises(Refused, match="used up") as caught:
            await provider.write("ab/two", pieces(b"x"), 1)
        assert caught.value.status == 507
        go_on.set()
    assert provider.used == SPACE


async def test_what_is_stored_exists_though_there_is_no_room(
    tmp_path: Path, provider, client
) -> None:
    await suite.put(provider, client, "ab/one", bytes(SPACE))
    assert await suite.put(provider, client, "ab/one", bytes(SPACE)) == 409
    assert await suite.put(provider, client, "ab/two", bytes(SPACE)) == 507
    async with serving(tmp_path / "blobs") as roomy:
        await suite.put(roomy, client, "ab/one", b"data")
    async with serving(tmp_path / "blobs", free_floor=2**62) as full:
        assert await suite.put(full, client, "ab/one", b"data") == 409


async def test_a_body_in_tiny_pieces_is_not_held_as_such(provider) -> None:
    seen = []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3000):
            seen.append(len(provider._arrivals._under_way["ab/one"].pieces))
            yield b"x"

    async with aclosing(body()) as stream:
        await provider.write("ab/one", stream, 3000)
    assert max(seen) <= MAXIMUM_BUFFERS


async def test_a_full_store_is_not_ready(provider, client) -> None:
    await suite.put(provider, client, "ab/one", bytes(SPACE))
    with pytest.raises(ProviderError, match="raise blob_space"):
        await provider.ready()
    await provider.delete(["ab/one"])
    await provider.ready()


async def test_disk_keeps_its_free_floor(tmp_path: Path, client) -> None:
    async with serving(tmp_path / "blobs", free_floor=2**62) as provider:
        with pytest.raises(ProviderError, match="disk is nearly full"):
            await provider.ready()
        assert await suite.put(provider, client, "ab/one", b"data") == 507
        findings = await provider.check()
        assert not findings[0].ok
        assert "free some" in findings[0].advice


async def test_reopening_counts_and_clears_what_was_half_way(tmp_path: Path, client) -> None:
    async with serving(tmp_path / "blobs") as provider:
        await suite.put(provider, client, "ab/one", bytes(1000))
        half = provider._incoming / "half"
    write(half)
    async with serving(tmp_path / "blobs") as provider:
        assert provider.used == 1000
        assert await suite.names(provider) == ["ab/one"]
        assert not exists(half)


def write(path: Path) -> None:
    path.write_bytes(b"half")


def exists(path: Path) -> bool:
    return path.exists()


async def test_deleting_while_it_is_read_does_no_harm(provider) -> None:
    await provider.write("ab/one", pieces(bytes(600_000)), 600_000)
    blob = await provider.open("ab/one")
    await provider.remove("ab/one")
    assert sum([len(piece) async for piece in blob.pieces()]) == 600_000
    blob.close()
    with pytest.raises(ObjectMissing):
        await provider.open("ab/one")


@pytest.mark.parametrize("size", [0, 1, arrivals.READ_PIECE, 4 * 1024 * 1024 + 40])
async def test_what_is_not_in_memory_is_read_from_its_file(
    provider, client, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MAXIMUM_MEMORY", 0)
    data = os.urandom(size)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert await suite.put(provider, client, "ab/one", data) == 201
        answer = await suite.get(provider, client, "ab/one")
        assert (answer.status_code, answer.content) == (200, data)
        await provider.delete(["ab/one"])
        assert (await suite.get(provider, client, "ab/one")).status_code == 404
    assert provider._arrivals.memory.held == 0
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the client's connection


async def test_what_was_stored_just_now_is_read_without_the_disk(provider, client) -> None:
    await suite.put(provider, client, "ab/one", b"data")
    for file in files(provider):
        file.unlink()
    assert (await suite.get(provider, client, "ab/one")).content == b"data"
    await provider.delete(["ab/one"])
    assert (await suite.get(provider, client, "ab/one")).status_code == 404
    assert provider.used == 0


async def test_a_file_that_somebody_took_away(tmp_path: Path, client) -> None:
    async with serving(tmp_path / "blobs") as provider:
        await suite.put(provider, client, "ab/one", b"data")
        [file] = files(provider)
    async with serving(tmp_path / "blobs") as provider:
        assert (await suite.get(provider, client, "ab/one")).content == b"data"
        file.unlink()
        assert (await suite.get(provider, client, "ab/one")).status_code == 404


async def test_what_cannot_be_deleted_is_still_there(
    provider, client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ab/one", "ab/two", "ab/three"):
        await suite.put(provider, client, name, b"data")
    unlink = os.unlink

    def fails(path: str) -> None:
        if path.endswith("ab+two"):
            raise PermissionError(13, "Permission denied")
        unlink(path)

    monkeypatch.setattr(os, "unlink", fails)
    with pytest.raises(ProviderError, match="disk store: Permission denied"):
        await provider.delete(["ab/one", "ab/two", "ab/never", "ab/three"])
    monkeypatch.undo()
    assert await suite.names(provider) == ["ab/three", "ab/two"]
    assert provider.used == 8
    assert (await suite.get(provider, client, "ab/two")).content == b"data"
    assert (await suite.get(provider, client, "ab/one")).status_code == 404
    await provider.delete(["ab/one", "ab/two", "ab/three"])
    assert (await suite.names(provider), provider.used) == ([], 0)


async def test_a_delete_that_is_cancelled_before_it_begins_changes_nothing(provider) -> None:
    await provider.write("ab/one", pieces(b"data"), 4)
    with trio.CancelScope() as scope:
        scope.cancel()
        await provider.delete(["ab/one"])
    assert scope.cancelled_caught
    assert (provider.has("ab/one"), provider.used) == (True, 4)


async def test_an_upload_that_hung_and_came_to_its_end_is_read(provider, client) -> None:
    """Another of its name had replaced it for its readers, and was refused in the end."""
    events = trio.Event(), trio.Event()

    async def slow(number: int) -> AsyncIterator[bytes]:
        await events[number].wait()
        yield b"%d" % number

    async def refused() -> None:
        with pytest.raises(Refused, match="exists"):
            await provider.write("ab/one", slow(1), 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(provider.write, "ab/one", slow(0), 1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(refused)
        await trio.testing.wait_all_tasks_blocked()
        events[0].set()
        while not provider.has("ab/one"):
            await trio.sleep(0.01)
        events[1].set()
    assert (await suite.get(provider, client, "ab/one")).content == b"0"
    assert provider.used == 1


async def test_folder_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path / "file")
    with pytest.raises(ProviderError, match="disk store"):
        async with open_disk_provider(
            tmp_path / "file" / "blobs", base_url="http://x", key=b"k", space=1
        ):
            pass


async def test_check_says_what_cannot_be_reached(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with open_disk_provider(
        tmp_path, base_url=f"https://127.0.0.1:{port}", key=b"k", space=SPACE
    ) as provider:
        findings = await provider.check()
    assert not findings[-1].ok
    assert "127.0.0.1" in findings[-1].what
    assert "s=" not in findings[-1].advice


async def test_no_descriptor_is_left_open(provider, client) -> None:
    await suite.put(provider, client, "ab/warm", b"x")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        await suite.put(provider, client, f"ab/{number}", bytes(300_000))
        await suite.get(provider, client, f"ab/{number}")
        await suite.put(provider, client, f"ab/{number}", b"again")
    # The refused PUTs cost the client its connection, which it makes anew.
    assert len(os.listdir("/proc/self/fd")) <= before + 2


# --- ahead of time --------------------------------------------------------------------------------


async def get_ahead(provider: DiskProvider, client, name: str = "ab/one") -> httpx.Response:
    signed = await provider.sign_get_ahead(name, lifetime=60, reader=b"r" * 32)
    return await suite.send(client, signed)


@asynccontextmanager
async def putting(provider: DiskProvider, size: int) -> AsyncIterator[trio.SocketStream]:
    """A PUT of `ab/one` whose head is sent, over a connection of its own."""
    url = httpx.URL((await provider.sign_put("ab/one", size_limit=size, lifetime=60)).url)
    async with await trio.open_tcp_stream(url.host, url.port) as stream:
        head = b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        await stream.send_all(head % (url.raw_path, size))
        yield stream


def waiting(provider: DiskProvider) -> int:
    return provider._arrivals._waiting.total()


async def test_the_disk_has_readers_wait(provider) -> None:
    assert isinstance(provider, ReadsAhead)


@pytest.mark.parametrize("size", [1, 300_000, 4 * 1024 * 1024 + 40])
async def test_a_get_that_came_first_is_served(provider, client, size: int) -> None:
    data = os.urandom(size)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                answer = await get_ahead(provider, client)
                assert (answer.status_code, answer.content) == (200, data)
                assert answer.headers["content-length"] == str(size)

            nursery.start_soon(read)
            while not waiting(provider):
                await trio.sleep(0.01)
            assert await suite.put(provider, client, "ab/one", data) == 201
    assert waiting(provider) == 0
    assert (await suite.get(provider, client, "ab/one")).content == data


@pytest.mark.parametrize("memory", [arrivals.MAXIMUM_MEMORY, 0], ids=["memory", "file"])
async def test_it_is_served_while_the_rest_still_arrives(
    provider, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MAXIMUM_MEMORY", memory)
    data = os.urandom(3_000_000)
    signed = await provider.sign_get_ahead("ab/one", lifetime=60, reader=b"r")
    url = httpx.URL(signed.url)
    with trio.fail_after(20):
        async with (
            await trio.open_tcp_stream(url.host, url.port) as reader,
            putting(provider, len(data)) as writer,
        ):
            await reader.send_all(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % url.raw_path)
            got = b""
            for at in (0, 1_000_000, 2_000_000):
                await writer.send_all(data[at : at + 1_000_000])
                while len(got.partition(b"\r\n\r\n")[2]) < at + 999_999:
                    got += await reader.receive_some()
            assert (await writer.receive_some()).startswith(b"HTTP/1.1 201")
            while len(got.partition(b"\r\n\r\n")[2]) < len(data):
                got += await reader.receive_some()
    assert got.partition(b"\r\n\r\n")[2] == data
    assert b"content-length: 3000000" in got[:500].lower()


async def test_a_put_cut_short_cuts_the_get_and_the_next_one_replaces_it(provider, client) -> None:
    outcome: list[object] = []

    async def read() -> None:
        try:
            answer = await get_ahead(provider, client)
            outcome.append(answer.content if answer.status_code == 200 else "cut")
        except httpx.RemoteProtocolError:
            outcome.append("cut")  # when something had come already

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, putting(provider, 600_000) as writer:
            await writer.send_all(bytes(300_000))
            nursery.start_soon(read)
            while provider._arrivals._under_way["ab/one"]._users == 1:
                await trio.sleep(0.01)
        assert outcome == ["cut"]
        assert files(provider) == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            while not waiting(provider):
                await trio.sleep(0.01)
            assert await suite.put(provider, client, "ab/one", b"again") == 201
    assert outcome[1] == b"again"


async def test_what_does_not_come_is_answered_with_nothing(provider, client, monkeypatch) -> None:
    monkeypatch.setattr(arrivals, "AHEAD_WAIT", 0.05)
    answer = await get_ahead(provider, client)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await suite.get(provider, client, "ab/one")).status_code == 404


async def test_too_many_of_one_router_are_answered_at_once(
    provider, client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MAXIMUM_AHEAD_OF_ROUTER", 5)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(arrivals.MAXIMUM_AHEAD_OF_ROUTER):
                nursery.start_soon(get_ahead, provider, client)
            while waiting(provider) < arrivals.MAXIMUM_AHEAD_OF_ROUTER:
                await trio.sleep(0.01)
            assert (await get_ahead(provider, client)).status_code == 204
            provider.let_nobody_wait()


async def test_a_reader_that_leaves_makes_room(provider) -> None:
    signed = await provider.sign_get_ahead("ab/one", lifetime=60, reader=b"r")
    url = httpx.URL(signed.url)
    with trio.fail_after(10):
        async with await trio.open_tcp_stream(url.host, url.port) as reader:
            await reader.send_all(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % url.raw_path)
            while not waiting(provider):
                await trio.sleep(0.01)
        while waiting(provider):
            await trio.sleep(0.01)


async def test_only_what_was_signed_for_it_waits(provider, client) -> None:
    signed = await provider.sign_get("ab/one", lifetime=60)
    assert (await client.get(signed.url + "&a=0123456789abcdef")).status_code == 403
    ahead = await provider.sign_get_ahead("ab/one", lifetime=60, reader=b"r")
    assert (await client.get(ahead.url.rpartition("&")[0])).status_code == 403
    forged = ahead.url[:-1] + ("0" if ahead.url[-1] != "0" else "1")
    assert (await client.get(forged)).status_code == 403
    assert ahead.url != (await provider.sign_get_ahead("ab/one", lifetime=60, reader=b"s")).url
