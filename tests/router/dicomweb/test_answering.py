"""Answers that stream: refused before they begin, broken off after, given up with the client."""

from typing import Any

import httpx
import pytest
import trio
import trio.lowlevel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

from relay.dicom.dimse import Status
from relay.errors import AssociationAborted, Outcome, Refused, RelayError, SourceFailed
from relay.router.dicomweb.answering import HANDLERS, Answer, BrokenOff, Streaming, Unhurried
from relay.router.federation.identifiers import QueryRefused
from relay.web.server import listen_tcp, serve_asgi


class Server:
    """Answers by `run` on a real port."""

    def __init__(self, run: Any) -> None:
        self.run = run

    async def get(self) -> httpx.Response:
        async def handler(request: Request) -> Response:
            return Streaming(self.run)

        app = Starlette(routes=[Route("/", handler)], exception_handlers=HANDLERS)
        sockets = await listen_tcp([("127.0.0.1", 0)])
        port = sockets[0].getsockname()[1]
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: serve(app, sockets, stopping, task_status))
            async with httpx.AsyncClient() as http:
                with trio.fail_after(10):
                    answer = await http.get(f"http://127.0.0.1:{port}/")
            nursery.cancel_scope.cancel()
        return answer


async def serve(app: Any, sockets: Any, stopping: trio.Event, task_status: Any) -> None:
    await serve_asgi(app, sockets, stopping=stopping, task_status=task_status)


async def test_it_is_sent_as_it_comes() -> None:
    async def run(answer: Answer) -> None:
        answer.headers["x-more"] = "a"
        await answer.start("text/plain")
        for piece in (b"a", b"", memoryview(b"b")):
            await answer.write(piece)
        await answer.end(b"c")

    answer = await Server(run).get()
    assert (answer.status_code, answer.content) == (200, b"abc")
    assert (answer.headers["content-type"], answer.headers["x-more"]) == ("text/plain", "a")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused(406, "not so"), 406),
        (Refused(503, "not now"), 503),
        (QueryRefused(Status.UNABLE_TO_PROCESS, "not that"), 400),
        (SourceFailed("not there", Outcome.UNREACHABLE), 503),
        (SourceFailed("not for you", Outcome.REFUSED), 502),
        (AssociationAborted(0, 0, "not any more"), 502),
        (RelayError("not at all"), 500),
    ],
)
async def test_what_goes_wrong_before_is_answered(error: RelayError, status: int) -> None:
    async def run(answer: Answer) -> None:
        raise error

    answer = await Server(run).get()
    assert (answer.status_code, str(error) in answer.text) == (status, True)
    assert answer.headers["content-type"].startswith("text/plain")
    assert ("retry-after" in answer.headers) == (status == 503)


async def test_what_goes_wrong_after_breaks_it_off() -> None:
    async def run(answer: Answer) -> None:
        await answer.start("text/plain")
        await answer.write(b"a")
        raise BrokenOff("no more of it")

    with capture_logs() as lines, pytest.RaisesGroup(httpx.RemoteProtocolError):
        await Server(run).get()
    assert [line["why"] for line in lines if "broken off" in line["event"]] == ["no more of it"]


@pytest.mark.parametrize("kind", [Streaming, Unhurried])
async def test_it_is_given_up_when_the_client_has_gone(kind: type[Response]) -> None:
    begun, ended = trio.Event(), trio.Event()

    async def run(*answer: Answer) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def handler(request: Request) -> Response:
        return kind(run)

    app = Starlette(routes=[Route("/", handler)])
    sockets = await listen_tcp([("127.0.0.1", 0)])
    async with trio.open_nursery() as nursery:
        stopping = trio.Event()
        await nursery.start(lambda task_status: serve(app, sockets, stopping, task_status))
        stream = await trio.open_tcp_stream("127.0.0.1", sockets[0].getsockname()[1])
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        with trio.fail_after(10):
            await begun.wait()
            await stream.aclose()
            await ended.wait()
        nursery.cancel_scope.cancel()


async def test_what_takes_its_time_is_answered_when_it_is_there() -> None:
    async def make() -> Response:
        await trio.lowlevel.checkpoint()
        return Response(b"made", 201)

    async def handler(request: Request) -> Response:
        return Unhurried(make)

    transport = httpx.ASGITransport(Starlette(routes=[Route("/", handler)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://relay") as http:
        answer = await http.get("/")
    assert (answer.status_code, answer.content) == (201, b"made")
