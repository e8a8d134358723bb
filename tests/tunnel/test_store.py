"""The object client, against a real HTTP server that behaves and misbehaves."""

import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trustme

from relay.errors import ObjectMissing, ProviderError
from relay.tunnel import store
from relay.tunnel.store import (
    AHEAD_PER_STORE,
    DELETES_PER_STORE,
    MAXIMUM_CONNECTIONS,
    TRANSFERS_PER_STORE,
    ObjectClient,
    ObjectRequest,
    open_object_client,
)
from tests.tunnel.fakes import Names

Handler = Callable[["Exchange"], Awaitable[None]]


@attrs.define
class Exchange:
    """One request as the server saw it, and the stream to answer on."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    stream: trio.abc.Stream

    async def answer(self, status: int, body: bytes = b"", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", *headers]
        await self.stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)


@attrs.define
class Server:
    origin: str
    port: int
    seen: list[Exchange]


@asynccontextmanager
async def serve(
    handler: Handler, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """An HTTP/1.1 server on a free port of localhost; `handler` answers each request."""
    seen: list[Exchange] = []

    async def connection(stream: trio.abc.Stream) -> None:
        if ssl_context is not None:
            stream = trio.SSLStream(stream, ssl_context, server_side=True, https_compatible=True)
        buffer = b""
        try:
            async with stream:
                while True:
                    while b"\r\n\r\n" not in buffer:
                        piece = await stream.receive_some()
                        if not piece:
                            return
                        buffer += piece
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    first, *lines = head.decode().split("\r\n")
                    headers = {
                        n.lower(): v.strip() for n, _, v in (s.partition(":") for s in lines)
                    }
                    length = int(headers.get("content-length", "0"))
                    while len(buffer) < length:
                        buffer += await stream.receive_some()
                    method, target, _ = first.split(" ")
                    exchange = Exchange(method, target, headers, buffer[:length], stream)
                    buffer = buffer[length:]
                    seen.append(exchange)
                    await handler(exchange)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client hung up, which some of these tests make it do

    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_tcp, connection, 0, host="127.0.0.1")
        listeners = await nursery.start(listen)
        port = listeners[0].socket.getsockname()[1]
        scheme = "http" if ssl_context is None else "https"
        yield Server(f"{scheme}://127.0.0.1:{port}", port, seen)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client_of(server: Server, **arguments: object) -> AsyncIterator[ObjectClient]:
    arguments.setdefault("allowed_origins", [server.origin])
    arguments.setdefault("ssl_context", ssl.create_default_context())
    async with open_object_client(**arguments) as client:
        yield client


def request(method: str, url: str, *headers: tuple[str, str]) -> ObjectRequest:
    return ObjectRequest(method, url, headers, expires=0)


class MemoryStore:
    """Put-if-absent, get, delete: what a well-behaved store does."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def __call__(self, exchange: Exchange) -> None:
        name = exchange.target
        if exchange.method == "PUT" and name in self.objects:
            await exchange.answer(412)
        elif exchange.method == "PUT":
            self.objects[name] = exchange.body
            await exchange.answer(201)
        elif name not in self.objects:
            await exchange.answer(404, b"no such object")
        elif exchange.method == "GET":
            await exchange.answer(200, self.objects[name])
        else:
            del self.objects[name]
            await exchange.answer(204)


async def test_a_store_that_hangs_takes_no_connection_from_another() -> None:
    """Sessions without number wait for one; those of the other go on."""

    async def hang(exchange: Exchange) -> None:
        await trio.sleep_forever()

    stored = MemoryStore()
    async with serve(hang) as dead, serve(stored) as server:
        origins = [dead.origin, server.origin]
        async with client_of(server, allowed_origins=origins) as client:
            async with trio.open_nursery() as nursery:
                for number in range(MAXIMUM_CONNECTIONS + 10):
                    url = f"{dead.origin}/{number}"
                    nursery.start_soon(client.get, request("GET", url), 1)
                while len(dead.seen) < TRANSFERS_PER_STORE:
                    await trio.sleep(0.01)
                url = f"{server.origin}/a"
                with trio.fail_after(5):
                    await client.put(request("PUT", url), b"data")
                    assert await client.get(request("GET", url), 4) == b"data"
                assert len(dead.seen) == TRANSFERS_PER_STORE
                nursery.cancel_scope.cancel()
            assert client._turns == {}


async def test_slow_deletes_hold_up_no_transfer() -> None:
    stored = MemoryStore()

    async def slow_to_delete(exchange: Exchange) -> None:
        if exchange.method == "DELETE":
            await trio.sleep_forever()
        await stored(exchange)

    async with (
        serve(slow_to_delete) as server,
        client_of(server) as client,
        trio.open_nursery() as nursery,
    ):
        for number in range(MAXIMUM_CONNECTIONS + 10):
            url = f"{server.origin}/{number}"
            nursery.start_soon(client.delete, request("DELETE", url))
        while len(server.seen) < DELETES_PER_STORE:
            await trio.sleep(0.01)
        url = f"{server.origin}/a"
        with trio.fail_after(5):
            await client.put(request("PUT", url), b"data")
        nursery.cancel_scope.cancel()


async def test_put_get_delete() -> None:
    stored = MemoryStore()
    data = bytes(range(256)) * 4096
    async with serve(stored) as server, client_of(server) as client:
        url = f"{server.origin}/a?sig=1"
        await client.put(request("PUT", url, ("If-None-Match", "*")), memoryview(data))
        assert stored.objects == {"/a?sig=1": data}
        assert server.seen[0].headers["if-none-match"] == "*"
        assert server.seen[0].headers["content-length"] == str(len(data))
        assert "transfer-encoding" not in server.seen[0].headers

        assert await client.get(request("GET", url), len(data)) == data
        await client.delete(request("DELETE", url))
        await client.delete(request("DELETE", url))
        assert stored.objects == {}
        statistics = client.statistics()
        assert (statistics.puts, statistics.gets, statistics.deletes) == (1, 1, 2)
        assert (statistics.bytes_put, statistics.bytes_got) == (len(data), len(data))
        assert statistics.failures == 0


async def test_parts_are_one_object() -> None:
    stored = MemoryStore()
    whole = bytes(range(256)) * 4096
    parts = [whole[:1], memoryview(whole)[1:300_000], b"", bytearray(whole[300_000:])]
    async with serve(stored) as server, client_of(server) as client:
        await client.put(request("PUT", f"{server.origin}/a"), parts)
        assert stored.objects == {"/a": whole}
        assert client.statistics().bytes_put == len(whole)
        await client.put(request("PUT", f"{server.origin}/empty"), [])
        assert stored.objects["/empty"] == b""


async def test_a_steady_flow_keeps_its_connections() -> None:
    """As many transfers and deletes as a store gets at once, and none opens a connection anew."""
    stored = MemoryStore()
    async with serve(stored) as server, client_of(server) as client:

        async def flow(lane: int) -> None:
            for number in range(10):
                url = f"{server.origin}/{lane}/{number}"
                await client.put(request("PUT", url), b"data")
                assert await client.get(request("GET", url), 4) == b"data"
                await client.delete(request("DELETE", url))

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for lane in range(TRANSFERS_PER_STORE + DELETES_PER_STORE):
                    nursery.start_soon(flow, lane)
        peers = {exchange.stream for exchange in server.seen}
        assert len(server.seen) == 30 * (TRANSFERS_PER_STORE + DELETES_PER_STORE)
        assert len(peers) <= TRANSFERS_PER_STORE + DELETES_PER_STORE


async def test_ahead_of_time() -> None:
    answers = [(200, b"sealed"), (204, b""), (200, b"too long"), (503, b"")]

    async def handler(exchange: Exchange) -> None:
        await exchange.answer(*answers.pop(0))

    async with serve(handler) as server, client_of(server) as client:
        ahead = request("GET", f"{server.origin}/a?a=1")
        assert await client.get_ahead(ahead, 6) == b"sealed"
        assert await client.get_ahead(ahead, 6) is None
        with pytest.raises(ProviderError, match="larger than 6"):
            await client.get_ahead(ahead, 6)
        with pytest.raises(ProviderError, match="503"):
            await client.get_ahead(ahead, 6)
        statistics = client.statistics()
        assert (statistics.gets, statistics.bytes_got, statistics.failures) == (1, 6, 2)


async def test_who_has_spoken_to_a_store_may_have_connections_ready() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, b"sealed")

    async with serve(handler) as server, client_of(server) as client:
        await client.warm(2)  # with which?
        get = request("GET", f"{server.origin}/a")
        begun: list[bool] = []
        assert await client.get_ahead(get, 6, lambda: begun.append(True)) == b"sealed"
        assert begun == [True]
        await client.warm(3)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(client.get, get, 6)
        assert len({exchange.stream for exchange in server.seen}) == 3


async def test_ahead_of_time_an_object_without_a_length_is_not_taken() -> None:
    """One that is cut would look whole."""

    async def handler(exchange: Exchange) -> None:
        await exchange.stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await exchange.stream.aclose()

    async with serve(handler) as server, client_of(server) as client:
        with trio.fail_after(10), pytest.raises(ProviderError, match="without a length"):
            await client.get_ahead(request("GET", f"{server.origin}/a"), 100)


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1"])
async def test_a_url_without_a_host_is_refused(proxy: str | None) -> None:
    async with open_object_client(ssl_context=ssl.create_default_context(), proxy=proxy) as client:
        for url in ("https:///a", "https://:443/a"):
            with pytest.raises(ProviderError, match="names no host"):
                await client.get(request("GET", url), 1)


async def test_ahead_of_time_a_store_may_take_long_to_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler(exchange: Exchange) -> None:
        await trio.sleep(0.3)
        await exchange.answer(200, b"x")

    monkeypatch.setattr(store, "PIECE_TIMEOUT", 0.1)
    async with serve(handler) as server, client_of(server) as client:
        url = f"{server.origin}/a"
        with trio.fail_after(10):
            assert await client.get_ahead(request("GET", url), 1) == b"x"
            with pytest.raises(ProviderError, match="ReadTimeout"):
                await client.get(request("GET", url), 1)
        monkeypatch.setattr(store, "AHEAD_PATIENCE", 0.1)
        with trio.fail_after(10), pytest.raises(ProviderError, match="ReadTimeout"):
            await client.get_ahead(request("GET", url), 1)


async def test_who_waits_ahead_of_time_takes_no_turn_from_who_does_not() -> None:
    stored = MemoryStore()

    async def handler(exchange: Exchange) -> None:
        if exchange.target.endswith("?a=1"):
            await trio.sleep_forever()
        await stored(exchange)

    async with serve(handler) as server, client_of(server) as client:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                ahead = request("GET", f"{server.origin}/a?a=1")
                for _ in range(AHEAD_PER_STORE):
                    nursery.start_soon(client.get_ahead, ahead, 10)
                while len(server.seen) < AHEAD_PER_STORE:
                    await trio.sleep(0.01)
                with pytest.raises(trio.WouldBlock):
                    await client.get_ahead(ahead, 10)
                await client.put(request("PUT", f"{server.origin}/a"), b"data")
                assert await client.get(request("GET", f"{server.origin}/a"), 4) == b"data"
                nursery.cancel_scope.cancel()
        assert client._turns == {}


async def test_nothing_of_relays_goes_to_a_store() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, b"", "Set-Cookie: id=1")

    async with serve(handler) as server, client_of(server) as client:
        for _ in range(2):
            await client.put(request("PUT", f"{server.origin}/a"), b"x")
    for exchange in server.seen:
        assert not {"authorization", "cookie", "referer"} & set(exchange.headers)


@pytest.mark.parametrize("status", [409, 412])
async def test_an_object_that_exists_counts_as_put(status: int) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(status, b"exists")

    async with serve(handler) as server, client_of(server) as client:
        await client.put(request("PUT", f"{server.origin}/a"), b"x")


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(500, False), (503, False), (429, False), (403, True), (400, True), (301, True), (307, True)],
)
async def test_failures_say_whether_to_try_again(status: int, permanent: bool) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(status, b"no", f"Location: http://127.0.0.1:{server.port}/elsewhere")

    async with serve(handler) as server, client_of(server) as client:
        for method, call in (
            ("PUT", lambda r: client.put(r, b"x")),
            ("GET", lambda r: client.get(r, 1)),
            ("DELETE", client.delete),
        ):
            with pytest.raises(ProviderError) as caught:
                await call(request(method, f"{server.origin}/secret?sig=canary"))
            assert caught.value.permanent is permanent
            assert "canary" not in str(caught.value)
        # Redirects are not followed.
        assert all(exchange.target.startswith("/secret") for exchange in server.seen)
        assert client.statistics().failures == 3


async def test_a_missing_object_is_named() -> None:
    async with serve(MemoryStore()) as server, client_of(server) as client:
        with pytest.raises(ObjectMissing):
            await client.get(request("GET", f"{server.origin}/a"), 10)


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
async def test_an_oversize_object_is_cut_off(framing: str) -> None:
    sent = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.stream.send_all(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        chunked = "chunked" in framing
        while True:
            await exchange.stream.send_all(b"a\r\n" * chunked + b"x" * 10 + b"\r\n" * chunked)
            sent += 10

    async with serve(handler) as server, client_of(server) as client:
        with trio.fail_after(10), pytest.raises(ProviderError, match="larger than 1000"):
            await client.get(request("GET", f"{server.origin}/a"), 1000)


@pytest.mark.parametrize("short", [b"", b"x" * 999])
async def test_a_truncated_object_is_a_failure(short: bytes) -> None:
    async def lies(exchange: Exchange) -> None:
        """A whole answer of a short object."""
        await exchange.answer(200, short)

    async def breaks(exchange: Exchange) -> None:
        """A connection that ends before the length it promised."""
        await exchange.stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + short)
        await exchange.stream.aclose()

    for handler in (lies, breaks):
        async with serve(handler) as server, client_of(server) as client:
            with pytest.raises(ProviderError) as caught:
                await client.get(request("GET", f"{server.origin}/a"), 1000)
            assert not caught.value.permanent


async def test_a_silent_store_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(exchange: Exchange) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(store, "PIECE_TIMEOUT", 0.05)
    async with serve(silent) as server, client_of(server) as client:
        with trio.fail_after(10), pytest.raises(ProviderError, match="ReadTimeout"):
            await client.get(request("GET", f"{server.origin}/a"), 1000)


async def test_a_dripping_store_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await exchange.stream.send_all(b"x")
            await trio.sleep(0.01)

    monkeypatch.setattr(store, "REQUEST_TIMEOUT", 0.1)
    async with serve(drip) as server, client_of(server) as client:
        with trio.fail_after(10), pytest.raises(ProviderError, match="TooSlowError"):
            await client.get(request("GET", f"{server.origin}/a"), 1000)


async def test_no_server_is_a_transient_failure() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    server = Server(origin, 0, [])
    async with client_of(server) as client:
        with pytest.raises(ProviderError) as caught:
            await client.put(request("PUT", f"{origin}/a"), b"x")
        assert not caught.value.permanent


async def test_cancelling_a_transfer_leaves_the_client_usable() -> None:
    stored = MemoryStore()

    async def handler(exchange: Exchange) -> None:
        if exchange.target == "/hang":
            await trio.sleep_forever()
        await stored(exchange)

    async with serve(handler) as server, client_of(server) as client:
        for _ in range(store.MAXIMUM_CONNECTIONS + 1):
            with trio.move_on_after(0.005):
                await client.put(request("PUT", f"{server.origin}/hang"), b"x")
        with trio.fail_after(5):
            await client.put(request("PUT", f"{server.origin}/a"), b"x")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://store.example/a", "only https"),
        ("https://127.0.0.1/a", "not public"),
        ("https://127.1/a", "not public"),
        ("https://localhost/a", "not public"),
        ("https://[::1]/a", "not public"),
        ("https://[::ffff:10.0.0.1]/a", "not public"),
        ("https://10.1.2.3/a", "not public"),
        ("https://192.168.1.1:8443/a", "not public"),
        ("https://169.254.169.254/latest/meta-data", "not public"),
        ("https://user:password@8.8.8.8/a", "user name"),
        ("ftp://8.8.8.8/a", "only https"),
        ("file:///etc/passwd", "only https"),
        ("//8.8.8.8/a", "only https"),
        ("", "only https"),
        ("http://xn--/a", "only https"),
        ("http://[::1%25é]/a", "Unicode"),
        ("https://[::1", "InvalidURL"),
    ],
)
async def test_urls_that_lead_inside_are_refused(url: str, why: str) -> None:
    async with client_of(Server("https://bridge.example", 0, [])) as client:
        with pytest.raises(ProviderError, match=why) as caught:
            await client.get(request("GET", url), 10)
        assert "password" not in str(caught.value)


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding"])
async def test_a_signer_may_not_frame_the_request(name: str) -> None:
    async with serve(MemoryStore()) as server, client_of(server) as client:
        with pytest.raises(ProviderError, match="may not be set"):
            await client.put(request("PUT", f"{server.origin}/a", (name, "1")), b"x")
        with pytest.raises(ProviderError, match="signed for 'GET'"):
            await client.put(request("GET", f"{server.origin}/a"), b"x")
        assert server.seen == []


async def test_a_signer_may_not_say_what_http_cannot() -> None:
    async with serve(MemoryStore()) as server, client_of(server) as client:
        for header in (("x-a", "b\r\nevil: 1"), ("x\r\nevil", "1"), ("x-a", "\xe4")):
            with pytest.raises(ProviderError, match="LocalProtocolError"):
                await client.get(request("GET", f"{server.origin}/a", header), 1)
        assert server.seen == []


async def test_a_name_is_checked_by_its_addresses() -> None:
    async with client_of(Server("https://bridge.example", 0, [])) as client:
        for inside in (["127.0.0.1"], ["8.8.8.8", "10.0.0.1"]):
            trio.socket.set_custom_hostname_resolver(Names(inside))
            with pytest.raises(ProviderError, match="not public"):
                await client.get(request("GET", "https://store.example/a"), 10)


async def test_a_store_is_spoken_to_at_the_address_that_was_checked() -> None:
    """No second look-up in which a name could change; TLS and Host still go by the name."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("store.example").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    loopback = ipaddress.ip_address("127.0.0.1")

    async with serve(MemoryStore(), server_context) as server:
        url = f"https://store.example:{server.port}/a"
        async with client_of(
            server,
            allowed_origins=[],
            ssl_context=client_context,
            permitted=lambda address: address == loopback,
        ) as client:
            trio.socket.set_custom_hostname_resolver(Names(["127.0.0.1"]))
            await client.put(request("PUT", url), b"x")
            assert await client.get(request("GET", url), 1) == b"x"
            assert server.seen[0].headers["host"] == f"store.example:{server.port}"

            # A certificate for another name is refused.
            trio.socket.set_custom_hostname_resolver(Names(["127.0.0.1"]))
            with pytest.raises(ProviderError, match="its certificate does not hold"):
                await client.get(request("GET", f"https://other.example:{server.port}/a"), 1)


async def test_what_a_proxy_says_is_told_on_as_far_as_people_read_it() -> None:
    async def proxy(exchange: Exchange) -> None:
        await exchange.stream.send_all(b"HTTP/1.1 407 " + b"no " * 5000 + b"\r\n\r\n")

    async with (
        serve(proxy) as server,
        client_of(server, allowed_origins=[], proxy=server.origin) as client,
    ):
        with pytest.raises(ProviderError, match="407 no no") as caught:
            await client.get(request("GET", "https://store.example/a"), 10)
        assert len(str(caught.value)) < 150


async def test_behind_a_proxy_names_are_the_proxys_to_resolve() -> None:
    asked: list[str] = []

    async def proxy(exchange: Exchange) -> None:
        asked.append(f"{exchange.method} {exchange.target}")
        await exchange.answer(403)

    async with (
        serve(proxy) as server,
        client_of(server, allowed_origins=[], proxy=server.origin) as client,
    ):
        with pytest.raises(ProviderError, match=r"^store\.example: the proxy does not .*403"):
            await client.get(request("GET", "https://store.example/a"), 10)
        with pytest.raises(ProviderError, match="not public"):
            await client.get(request("GET", "https://10.0.0.1/a"), 10)
    assert asked == ["CONNECT store.example:443"]


async def test_a_store_that_fails_is_remembered_until_it_works_again() -> None:
    broken = True

    async def handler(exchange: Exchange) -> None:
        await exchange.answer(503 if broken else 201)

    async with serve(handler) as server, client_of(server) as client:
        put = request("PUT", f"{server.origin}/a?sig=canary")
        with pytest.raises(ProviderError):
            await client.put(put, b"x")
        assert client.statistics().failing == {server.origin: "127.0.0.1: answered 503"}
        broken = False
        await client.put(put, b"x")
        assert client.statistics().failing == {}


async def test_a_missing_object_is_no_failing_store_and_an_inner_address_is() -> None:
    async with serve(MemoryStore()) as server, client_of(server) as client:
        with pytest.raises(ObjectMissing):
            await client.get(request("GET", f"{server.origin}/a"), 1)
        assert client.statistics().failing == {}
        with pytest.raises(ProviderError):
            await client.put(request("PUT", "https://10.0.0.1:9000/a"), b"x")
        ((origin, why),) = client.statistics().failing.items()
        assert origin == "https://10.0.0.1:9000"
        assert "not in allowed_origins" in why


async def test_stores_without_number_are_not_remembered() -> None:
    async with serve(MemoryStore()) as server, client_of(server) as client:
        for number in range(2 * store.MAXIMUM_FAILING):
            with pytest.raises(ProviderError):
                await client.put(request("PUT", f"https://10.0.0.1:{9000 + number}/a"), b"x")
        failing = client.statistics().failing
        assert len(failing) == store.MAXIMUM_FAILING
        assert f"https://10.0.0.1:{9000 + number}" in failing


async def test_a_name_that_is_none_is_said() -> None:
    async with serve(MemoryStore()) as server, client_of(server) as client:
        with pytest.raises(ProviderError, match=r"^store\.invalid: .*no such host: store\.invalid"):
            await client.put(request("PUT", "https://store.invalid/a"), b"x")


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "OperationAborted"])
async def test_a_put_that_meets_another_under_way_is_tried_again(code: str) -> None:
    """S3 answers 409 while an attempt that was given up still runs: that one may yet fail."""
    answers = [(409, f"<Error><Code>{code}</Code></Error>".encode()), (409, b"it exists")]

    async def handler(exchange: Exchange) -> None:
        await exchange.answer(*answers.pop(0))

    async with serve(handler) as server, client_of(server) as client:
        put = request("PUT", f"{server.origin}/a")
        with pytest.raises(ProviderError, match="under way") as caught:
            await client.put(put, b"x")
        assert not caught.value.permanent
        await client.put(put, b"x")
