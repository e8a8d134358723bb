"""The pages' own port: where it may be, what it is called, and that it ends."""

from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from relay.errors import RelayError
from relay.pages.serving import (
    as_console,
    hosts_of,
    load_tls,
    origin_of,
    serve_pages,
    show_pages,
)
from relay.pages.settings import PagesSettings
from relay.people.people import People
from relay.people.roles import Role
from relay.people.who import CONSOLE
from relay.web.server import listen_tcp
from tests.certificates import Authority
from tests.pages.conftest import World
from tests.people.conftest import PASSWORD


@pytest.fixture
def secured(tmp_path: Path) -> PagesSettings:
    issued = Authority(tmp_path).issue("relay.example.org", "*.example.org", "10.0.0.7")
    return PagesSettings(
        listen=[("10.0.0.7", 8443)],
        certificate=issued.certificate,
        private_key=issued.private_key,
        hosts=["pacs.example.org"],
    )


def test_without_tls_only_this_machine_reaches_them(secured: PagesSettings) -> None:
    assert load_tls(PagesSettings(listen=[("127.0.0.1", 8080), ("::1", 8080)])) is None
    assert load_tls(secured) is not None
    for host in ("0.0.0.0", "10.0.0.7", "::", "relay"):
        with pytest.raises(RelayError, match="without TLS: give a certificate"):
            load_tls(PagesSettings(listen=[("127.0.0.1", 8080), (host, 8080)]))


def test_their_names(secured: PagesSettings) -> None:
    hosts = hosts_of(secured)
    assert hosts.tls
    assert hosts.names == {"relay.example.org", "10.0.0.7", "pacs.example.org"}
    plain = hosts_of(PagesSettings(hosts=["pacs.example.org"]))
    assert (plain.tls, plain.names) == (False, frozenset({"pacs.example.org"}))


def test_where_a_browser_finds_them(secured: PagesSettings) -> None:
    plain = PagesSettings()
    assert origin_of(plain, []) == ""
    assert origin_of(plain, [("127.0.0.1", 8080)]) == "http://127.0.0.1:8080"
    assert origin_of(plain, [("::1", 8080)]) == "http://[::1]:8080"
    proxied = PagesSettings(hosts=["pacs.example.org"])
    assert origin_of(proxied, [("127.0.0.1", 8080)]) == "https://pacs.example.org"
    assert origin_of(secured, [("10.0.0.7", 8443)]) == "https://pacs.example.org:8443"
    assert origin_of(secured, [("10.0.0.7", 443)]) == "https://pacs.example.org"


async def test_where_they_are_is_shown_and_a_first_link_where_nobody_can_sign_in(
    people: People, logs: list[dict[str, Any]]
) -> None:
    show_pages(people, "")
    assert logs == []
    await people.add("Ada", Role.ADMINISTRATOR)
    show_pages(people, "http://localhost:8080")
    [line] = [line for line in logs if line["event"] == "pages listen"]
    assert line["url"] == "http://localhost:8080"
    [line] = [line for line in logs if line["event"] == "first sign-in"]
    code = line["link"].removeprefix("http://localhost:8080/first?code=")
    await people.open(code, "Ada", PASSWORD, "", "")
    logs.clear()
    show_pages(people, "http://localhost:8080")
    assert [line["event"] for line in logs] == ["pages listen"]


async def test_whoever_opens_the_unix_socket_is_the_console() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["relay.who"])

    await as_console(app)({"type": "http"}, None, None)  # type: ignore[arg-type]
    assert seen == [CONSOLE]


async def test_a_page_that_moves_does_not_keep_the_process(world: World) -> None:
    """Over a real socket: a stream is open, and the process is told to stop."""
    stopping = world.ended
    [opened] = await listen_tcp([("127.0.0.1", 0)])
    port = opened.getsockname()[1]
    await world.people.add("ada", Role.VIEWER, PASSWORD)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(serve_pages, world.app, [opened], ssl_context=None, stopping=stopping)
            )
            origin = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(
                base_url=origin, headers={"origin": origin}, trust_env=False
            ) as client:
                form = {"name": "ada", "password": PASSWORD}
                assert (await client.post("/sign-in", data=form)).status_code == 303
                async with client.stream("GET", "/live/things") as stream:
                    assert stream.status_code == 200
                    text = ""
                    async for piece in stream.aiter_text():
                        text += piece
                        if "event: block" in text and not stopping.is_set():
                            stopping.set()
    assert text.count("event: block") == 1
