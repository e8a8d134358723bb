"""Who may come in: tokens, origins of pages, names of hosts, and how many at once."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
from structlog.testing import capture_logs

from relay.router.dicomweb import gate
from tests.router.dicomweb.served import Served, served
from tests.router.federation.catalogues import Catalogue, federated, study

STUDIES = "/FEDERATION/rs/studies?PatientID=7"
VIEWER = "https://viewer.example.org"


@asynccontextmanager
async def open_web(folder: Path, catalogue: Catalogue, **settings: Any) -> AsyncIterator[Served]:
    async with (
        federated(folder, {"A": catalogue}) as (federation, _),
        served(federation, **settings) as web,
    ):
        yield web


def catalogue() -> Catalogue:
    return Catalogue([study("1.1", PatientID="7")])


async def test_without_a_token_nobody_comes_in(tmp_path: Path) -> None:
    asked = catalogue()
    async with open_web(tmp_path, asked) as web:
        for token in ("", "relay_wrong"):
            async with await web.client(token) as http:
                for method, path in (("GET", STUDIES), ("GET", "/"), ("POST", STUDIES)):
                    answer = await http.request(method, path)
                    assert answer.status_code == 401
                    challenge = answer.headers["www-authenticate"]
                    assert challenge.startswith('Bearer realm="DICOMweb"')
                    # What is wrong of one that was given; RFC 6750 §3.1.
                    assert ('error="invalid_token"' in challenge) == bool(token)
                    assert answer.text.startswith("Authorization" if token else "a token is needed")
                    assert "`relay token add NAME`" in answer.text
                    assert "relay_wrong" not in answer.text
        await web.tokens.remove("test")
        assert (await web.get(STUDIES)).status_code == 401
    assert not asked.heard


async def test_on_this_machine_it_may_be_open_by_the_names_of_this_machine(tmp_path: Path) -> None:
    async with open_web(tmp_path, catalogue(), open=True) as web:
        async with await web.client("") as http:
            assert (await http.get(STUDIES)).status_code == 200
            local = await http.get(STUDIES, headers={"host": "localhost:80"})
            assert local.status_code == 200
            # A page whose name was made to lead here.
            other = await http.get(STUDIES, headers={"host": f"rebound.example:{web.port}"})
            assert other.status_code == 421
        async with await web.client("relay_wrong") as http:
            answer = await http.get(STUDIES)
            assert answer.status_code == 401
            assert "a token is needed" not in answer.text
            assert "without Authorization this is open" in answer.text


async def test_pages_of_the_origins_that_are_configured_may_use_it(tmp_path: Path) -> None:
    async with open_web(tmp_path, catalogue(), origins=[VIEWER]) as web:
        answer = await web.get(STUDIES, origin=VIEWER)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == VIEWER
        assert "Warning" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]
        assert "access-control-allow-origin" not in (await web.get(STUDIES)).headers
        for origin in ("https://viewer.example.org.evil.example", "null", VIEWER.upper()):
            refused = await web.get(STUDIES, origin=origin)
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers
        own = await web.get(STUDIES, origin=f"http://127.0.0.1:{web.port}")
        assert own.status_code == 200


async def test_a_browser_asks_before_it_asks(tmp_path: Path) -> None:
    preflight = {"access-control-request-method": "GET", "origin": VIEWER}
    async with (
        open_web(tmp_path, catalogue(), origins=[VIEWER]) as web,
        await web.client("") as http,  # which it does without a token
    ):
        answer = await http.options(STUDIES, headers=preflight)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == VIEWER
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        assert "POST" in answer.headers["access-control-allow-methods"]
        other = await http.options(STUDIES, headers=preflight | {"origin": "https://a.example"})
        assert other.status_code == 403
        plain = await http.options(STUDIES)
        assert "access-control-allow-methods" not in plain.headers


async def test_other_methods_are_none(tmp_path: Path) -> None:
    async with open_web(tmp_path, catalogue()) as web:
        for method in ("DELETE", "PUT", "HEAD"):
            answer = await web.http.request(method, STUDIES)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, OPTIONS")
        assert (await web.http.post(STUDIES.replace("?", "/1.2/series?"))).status_code == 405


async def test_answers_are_not_kept_on_the_way(tmp_path: Path) -> None:
    async with open_web(tmp_path, catalogue()) as web:
        answer = await web.get(STUDIES)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        # Nor taken into a page of somebody else's, which need not ask for that (no-cors).
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_so_many_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gate, "ROOM_WAIT", 0.05)
    asked = catalogue()
    asked.gate = trio.Event()
    answers: list[httpx.Response] = []
    async with open_web(tmp_path, asked, maximum_requests=1) as web, trio.open_nursery() as nursery:

        async def get() -> None:
            answers.append(await web.get(STUDIES))

        nursery.start_soon(get)
        await asked.asked.wait()
        refused = await web.get(STUDIES)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        asked.gate.set()
        while not answers:
            await trio.sleep(0.01)
        assert answers[0].status_code == 200
        assert (await web.get(STUDIES)).status_code == 200


async def test_a_client_that_leaves_leaves_its_room(tmp_path: Path) -> None:
    asked = catalogue()
    asked.silent_after = 0
    async with open_web(tmp_path, asked, maximum_requests=1) as web:
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(web.get, "/FEDERATION/rs/studies/1.1")
                await asked.asked.wait()
                nursery.cancel_scope.cancel()
        asked.silent_after = None
        assert (await web.get(STUDIES)).status_code == 200


async def test_a_line_of_the_log_says_who_and_what_and_nothing_of_a_patient(tmp_path: Path) -> None:
    async with open_web(tmp_path, catalogue()) as web:
        with capture_logs() as lines:
            await web.get("/FEDERATION/rs/studies/1.2.3.4/series?PatientName=Doe")
        [line] = [line for line in lines if line["event"] == "DICOMweb request"]
        assert line["token"] == "test"
        assert line["resource"] == "search series"
        assert line["ae_title"] == "FEDERATION"
        assert "Doe" not in json.dumps(lines, default=str)
        assert "1.2.3.4" not in json.dumps(line, default=str)
