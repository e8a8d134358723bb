"""What the other end of a webhook gets, and what it can do to us: nothing."""

import json
import ssl
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import h11
import pytest
import trio
import trustme

from relay.router.queue.pauses import Pauses
from relay.router.queue.webhook import MAXIMUM_WAITING, TRIES, Webhook
from tests.waiting import until

Logs = list[MutableMapping[str, Any]]
AT_ONCE = Pauses(first=0.001, factor=1, cap=0.001)
BODY = {"warning": "failed", "state": "begun", "words": "São João"}


@attrs.define
class Receiver:
    """A server of somebody else's: it keeps what it is sent, and answers as it is told.

    `answers` are whole HTTP responses; the last is given again and again. None: no answer.
    """

    answers: list[bytes | None]
    port: int = 0
    requests: list[h11.Request] = attrs.field(factory=list)
    bodies: list[Any] = attrs.field(factory=list)
    arrived: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        async with stream:
            parser = h11.Connection(h11.SERVER)
            body = b""
            while True:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    parser.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Request):
                    self.requests.append(event)
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    break
            if body:
                self.bodies.append(json.loads(body))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            self.arrived.set()
            self.arrived = trio.Event()
            if answer is None:
                await trio.sleep_forever()
            else:
                await stream.send_all(answer)


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def receiving(
    *answers: bytes | None, context: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(answers))
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    receiver.port = listener.socket.getsockname()[1]
    served: list[trio.abc.Listener[Any]] = [listener]
    if context is not None:
        served = [trio.SSLListener(listener, context, https_compatible=True)]

    async def serve(stream: trio.abc.HalfCloseableStream) -> None:
        with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):  # it gave up on us
            await receiver.serve(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, served)
        yield receiver
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def posting(
    url: str,
    *,
    context: ssl.SSLContext | None = None,
    proxy: str | None = None,
    deadline: float = 10,
) -> AsyncIterator[Webhook]:
    context = context or ssl.create_default_context()
    webhook = Webhook(url, ssl_context=context, proxy=proxy, deadline=deadline, pauses=AT_ONCE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(webhook.run)
        yield webhook
        nursery.cancel_scope.cancel()


def failures(logs: Logs) -> list[Any]:
    return [line["why"] for line in logs if line["event"] == "webhook failed"]


async def test_a_post_is_one_json_object(logs: Logs) -> None:
    async with (
        receiving(answer(204)) as receiver,
        posting(f"http://127.0.0.1:{receiver.port}/hook?key=hunter2") as webhook,
    ):
        webhook.post(BODY)
        await until(lambda: len(receiver.bodies) == 1)
        webhook.post(BODY | {"state": "over"})
        await until(lambda: len(receiver.bodies) == 2)
        assert webhook.failures == 0
    assert receiver.bodies == [BODY, BODY | {"state": "over"}]
    request = receiver.requests[0]
    assert (request.method, request.target) == (b"POST", b"/hook?key=hunter2")
    assert dict(request.headers)[b"content-type"] == b"application/json"
    assert not failures(logs)


async def test_what_passes_is_tried_again(logs: Logs) -> None:
    async with (
        receiving(answer(503), answer(429), answer(200)) as receiver,
        posting(f"http://127.0.0.1:{receiver.port}") as webhook,
    ):
        webhook.post(BODY)
        await until(lambda: len(receiver.bodies) == 3)
        webhook.post({})  # behind it, so that the first is over
        await until(lambda: len(receiver.bodies) == 4)
        assert webhook.failures == 0
    assert receiver.bodies[:3] == [BODY] * 3


async def test_three_tries_and_no_more(logs: Logs) -> None:
    async with (
        receiving(answer(500)) as receiver,
        posting(f"http://127.0.0.1:{receiver.port}/hunter2") as webhook,
    ):
        webhook.post(BODY)
        await until(lambda: webhook.failures == 1)
        assert len(receiver.bodies) == TRIES == 3
    assert failures(logs) == ["HTTP 500"]
    [line] = [line for line in logs if line["event"] == "webhook failed"]
    assert (line["host"], line["warning"], line["state"]) == ("127.0.0.1", "failed", "begun")
    assert "hunter2" not in str(logs)


@pytest.mark.parametrize("status", [400, 401, 404, 410])
async def test_a_no_is_not_asked_again(status: int, logs: Logs) -> None:
    async with (
        receiving(answer(status)) as receiver,
        posting(f"http://127.0.0.1:{receiver.port}") as webhook,
    ):
        webhook.post(BODY)
        await until(lambda: webhook.failures == 1)
        assert len(receiver.bodies) == 1
    assert failures(logs) == [f"HTTP {status}"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int, logs: Logs) -> None:
    """It may lead into the hospital, or hand what we say to another."""
    async with receiving(answer(204)) as other:
        location = f"Location: http://127.0.0.1:{other.port}/"
        async with (
            receiving(answer(status, location)) as receiver,
            posting(f"http://127.0.0.1:{receiver.port}") as webhook,
        ):
            webhook.post(BODY)
            await until(lambda: webhook.failures == 1)
            assert len(receiver.bodies) == 1
        assert not other.requests
    assert "a redirect" in failures(logs)[0]


async def test_silence_has_a_deadline(logs: Logs) -> None:
    async with (
        receiving(None) as receiver,
        posting(f"http://127.0.0.1:{receiver.port}", deadline=0.1) as webhook,
    ):
        webhook.post(BODY)
        await until(lambda: webhook.failures == 1)
        assert 1 <= len(receiver.requests) <= TRIES
    assert failures(logs) == ["no answer in 0.1 s"]


async def test_an_answer_without_end_is_not_read(logs: Logs) -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n" + bytes(1000)
    async with (
        receiving(endless) as receiver,
        posting(f"http://127.0.0.1:{receiver.port}") as webhook,
    ):
        webhook.post(BODY)
        webhook.post(BODY)
        await until(lambda: len(receiver.bodies) == 2)
        assert webhook.failures == 0


@pytest.mark.parametrize(
    "garbage",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000],
    ids=["closed", "no HTTP", "headers without end"],
)
async def test_what_is_no_answer_is_a_failure(garbage: bytes, logs: Logs) -> None:
    async with (
        receiving(garbage) as receiver,
        posting(f"http://127.0.0.1:{receiver.port}") as webhook,
    ):
        webhook.post(BODY)
        await until(lambda: webhook.failures == 1)
    assert len(failures(logs)) == 1
    assert failures(logs)[0]


async def test_nobody_there_is_said_in_words(logs: Logs) -> None:
    async with posting("http://127.0.0.1:1/hunter2") as webhook:
        webhook.post(BODY)
        await until(lambda: webhook.failures == 1)
    assert failures(logs) == ["nobody listens there: is it running?"]


async def test_what_is_trusted_outside_is_trusted_here_and_nothing_else(logs: Logs) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with receiving(answer(204), context=server) as receiver:
        url = f"https://127.0.0.1:{receiver.port}"
        async with posting(url, context=client) as webhook:
            webhook.post(BODY)
            await until(lambda: len(receiver.bodies) == 1)
        async with posting(url) as webhook:
            webhook.post(BODY)
            await until(lambda: webhook.failures == 1)
    assert len(receiver.bodies) == 1
    assert "its certificate does not hold" in failures(logs)[0]


async def test_it_goes_by_the_proxy(logs: Logs) -> None:
    async with (
        receiving(answer(204)) as proxy,
        posting("http://alerts.invalid/hook", proxy=f"http://127.0.0.1:{proxy.port}") as webhook,
    ):
        webhook.post(BODY)
        await until(lambda: len(proxy.bodies) == 1)
    assert proxy.requests[0].target == b"http://alerts.invalid/hook"


async def test_a_proxy_that_says_no_is_quoted(logs: Logs) -> None:
    async with (
        receiving(answer(403)) as proxy,
        posting(
            "https://alerts.invalid/hunter2", proxy=f"http://127.0.0.1:{proxy.port}"
        ) as webhook,
    ):
        webhook.post(BODY)
        await until(lambda: webhook.failures == 1)
    assert failures(logs)[0].startswith("the proxy refuses: 403")
    assert "hunter2" not in str(logs)


async def test_a_full_line_loses_its_oldest_and_says_so(logs: Logs) -> None:
    context = ssl.create_default_context()
    async with receiving(answer(204)) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        webhook = Webhook(url, ssl_context=context, proxy=None, pauses=AT_ONCE)
        for number in range(MAXIMUM_WAITING + 2):
            webhook.post({"warning": "waiting", "state": "begun", "number": number})
        assert webhook.failures == 2
        assert failures(logs) == [f"more than {MAXIMUM_WAITING} posts wait"] * 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(webhook.run)
            await until(lambda: len(receiver.bodies) == MAXIMUM_WAITING)
            nursery.cancel_scope.cancel()
    numbers = [body["number"] for body in receiver.bodies]
    assert numbers == list(range(2, MAXIMUM_WAITING + 2))


async def test_what_was_put_in_line_is_a_copy() -> None:
    async with receiving(answer(204)) as receiver:
        webhook = Webhook(
            f"http://127.0.0.1:{receiver.port}",
            ssl_context=ssl.create_default_context(),
            proxy=None,
        )
        body = {"count": 1}
        webhook.post(body)
        body["count"] = 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(webhook.run)
            await until(lambda: len(receiver.bodies) == 1)
            nursery.cancel_scope.cancel()
    assert receiver.bodies == [{"count": 1}]
