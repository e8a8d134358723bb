"""People and Routers on one port: each gets what is theirs, and neither stands in the way."""

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from relay.bridge.api import SIGNAL_PATH
from relay.bridge.facing import beside, origin
from relay.pages.settings import PagesSettings
from relay.people.roles import Role
from tests.bridge.conftest import PATIENCE, Bridge, connected, running
from tests.interop.processes import free_port

PASSWORD = "correct horse battery"
BESIDE = PagesSettings(on_network_port=True)


async def link_of(bridge: Bridge) -> str:
    """The code of the first administrator's link."""
    answer = await bridge.control.post("/v1/first-link")
    assert answer.status_code == 201
    link: str = answer.json()["link"]
    assert link.startswith(f"{bridge.url}/first?code=")
    return urlsplit(link).query.removeprefix("code=")


async def test_people_come_to_the_network_port(data_dir: Path) -> None:
    async with running(data_dir, pages=BESIDE) as bridge:
        # A proxy before it does the TLS: browsers know it by https.
        secure = bridge.url.replace("http:", "https:")
        web = bridge.web
        web.headers["origin"] = secure
        assert (await web.get("/")).headers["location"] == "/sign-in"
        form = {"code": await link_of(bridge), "name": "Ada"}
        form |= {"password": PASSWORD, "again": PASSWORD}
        entered = await web.post("/first", data=form)
        assert entered.status_code == 303
        cookie = entered.headers["set-cookie"].partition(";")[0]
        assert cookie.startswith("__Host-relay_")
        web.headers["cookie"] = cookie
        page = await web.get("/")
        assert page.status_code == 200
        assert "Overview" in page.text
        assert (await web.get("/v1/routers")).json() == []
        # By any other name there are no pages, and Routers come by all the same.
        other = {"host": "evil.example"}
        assert (await web.get("/", headers=other)).status_code == 421
        assert (await web.get("/healthz", headers=other)).status_code == 200


async def test_routers_find_what_they_need_as_before(data_dir: Path) -> None:
    async with running(data_dir, pages=BESIDE) as bridge:
        router = await bridge.enrol("North")
        async with connected(bridge, router):
            [row] = await bridge.get("/v1/routers")
            assert (row["name"], row["connected"]) == ("North", True)
        blob = await bridge.web.get("/v1/blobs/none")
        assert (blob.status_code, blob.headers.get("content-security-policy")) == (403, None)
        health = await bridge.web.get("/readyz")
        assert (health.status_code, health.headers.get("set-cookie")) == (200, None)


async def test_its_document_describes_both(data_dir: Path) -> None:
    async with running(data_dir, pages=BESIDE) as bridge:
        paths = (await bridge.web.get("/v1/openapi.json")).json()["paths"]
    assert {"/v1/enrolments", "/v1/routers", "/v1/people"} <= paths.keys()
    assert paths["/v1/people"]["get"]["x-relay-role"] == "administrator"
    assert "x-relay-role" not in paths["/v1/enrolments"]["post"]


async def test_or_to_a_port_of_their_own(data_dir: Path) -> None:
    port = free_port()
    pages = PagesSettings(listen=[("127.0.0.1", port)])
    async with running(data_dir, pages=pages) as bridge:
        assert (await bridge.web.get("/sign-in")).status_code == 404
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as web:
            assert "Sign in" in (await web.get("/sign-in")).text
            assert (await web.get("/healthz")).status_code == 200
            token = await bridge.control.post(
                "/v1/api-tokens", json={"name": "a", "role": Role.VIEWER.value}
            )
            bearer = {"authorization": f"Bearer {token.json()['token']}"}
            assert (await web.get("/v1/routers", headers=bearer)).json() == []
            assert (await web.get("/v1/routers")).status_code == 401


@pytest.mark.parametrize(
    ("scope", "by"),
    [
        ({"type": "websocket", "path": SIGNAL_PATH}, "network"),
        ({"type": "websocket", "path": "/"}, "network"),
        ({"type": "http", "path": "/v1/enrolments"}, "network"),
        ({"type": "http", "path": "/v1/enrolments/"}, "pages"),
        ({"type": "http", "path": "/v1/routers"}, "pages"),
    ],
)
async def test_who_answers_what(scope: dict[str, str], by: str) -> None:
    asked = []

    async def network(*_: object) -> None:
        asked.append("network")

    async def pages(*_: object) -> None:
        asked.append("pages")

    with trio.fail_after(PATIENCE):
        await beside(network, {"/v1/enrolments"}, pages)(scope, None, None)  # type: ignore[arg-type]
    assert asked == [by]


def test_where_they_are() -> None:
    url = "https://relay.example.org"
    assert origin(url, BESIDE, []) == url
    assert origin(url, PagesSettings(), [("127.0.0.1", 81)]) == "http://127.0.0.1:81"
    assert origin(url, PagesSettings(), []) == ""
