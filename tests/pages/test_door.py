"""The door: who is let in, by what, and what leaves with every answer."""

import re

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from relay.pages.door import POLICY, cookie_name, cookie_of, form_token
from relay.pages.hosts import Hosts
from relay.people.people import People
from relay.people.roles import Role
from relay.people.sign_ins import IDLE
from tests.pages.conftest import FINGERPRINT, ORIGIN, World, make
from tests.people.conftest import PASSWORD, Clock

FORM = {"content-type": "application/x-www-form-urlencoded"}


async def test_a_stranger_is_sent_to_sign_in_and_back(world: World) -> None:
    stranger = world.client()
    for path, target in (
        ("/", "/sign-in"),
        ("/things/a?b=c&d=%C3%A4", "/sign-in?next=/things/a%3Fb%3Dc%26d%3D%25C3%25A4"),
        ("//evil.example", "/sign-in?next=//evil.example"),
    ):
        answer = await stranger.http.get(path if path[:2] != "//" else ORIGIN + path)
        assert (answer.status_code, answer.headers["location"]) == (303, target)
    await world.people.add("ada", Role.VIEWER, PASSWORD)
    where = await stranger.post(
        "/sign-in", name="ada", password=PASSWORD, next="/things/a?b=c&d=%C3%A4"
    )
    assert where == "/things/a?b=c&d=%C3%A4"


async def test_a_program_is_told_that_it_needs_a_token(world: World) -> None:
    for path in ("/v1/things", "/v1/people", "/v1/nothing", "/metrics"):
        answer = await world.client(accept="*/*").http.get(path)
        assert answer.status_code == 401
        assert "API token" in answer.json()["error"]
        assert answer.headers["www-authenticate"] == 'Bearer realm="Relay"'
    assert world.asked == []


async def test_a_page_that_still_moves_learns_that_its_sign_in_is_over(world: World) -> None:
    """A browser tells a page nothing of a refusal, so that it would try for ever."""
    answer = await world.client(accept="text/event-stream").http.get("/live/things")
    assert (answer.status_code, answer.text) == (200, "event: over\ndata: {}\n\n")
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_health_is_for_anybody_by_any_name(world: World) -> None:
    answer = await world.client("http://10.1.2.3").http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_by_another_name_there_is_nothing(world: World) -> None:
    secret = (await world.browser()).http.cookies
    for path in ("/", "/sign-in", "/v1/things", "/static/x/relay.css"):
        http = world.client("http://evil.example:8080").http
        http.cookies = secret
        answer = await http.get(path)
        assert answer.status_code == 421
        assert "hosts" in answer.json()["error"]


async def test_a_host_header_with_a_path_in_it_opens_no_other_path(world: World) -> None:
    """Libraries make a URL of the Host header and the path: none of that decides here."""
    for host in ("localhost/sign-in?", "localhost/static/x#"):
        answer = await world.client().http.get("/v1/things", headers={"host": host})
        assert answer.status_code == 421


# --- what changes something ----------------------------------------------------------------------


async def test_a_page_of_ours_may_change_something(world: World) -> None:
    browser = await world.browser()
    await browser.get("/")
    assert await browser.post("/things/add") == "/"
    answer = await browser.http.post(
        "/v1/things", json={}, headers={"x-relay-token": browser.token}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
)
async def test_a_page_of_somebody_else_may_not(world: World, headers: dict[str, str]) -> None:
    browser = await world.browser()
    await browser.get("/")
    before = len(world.asked)
    answer = await browser.http.post("/things/add", data={"token": browser.token}, headers=headers)
    assert answer.status_code == 403
    assert "nothing was changed" in answer.text
    assert len(world.asked) == before
    for path in ("/sign-in", "/first"):
        answer = await world.client().http.post(path, data={"name": "a"}, headers=headers)
        assert answer.status_code == 403


async def test_nor_one_without_the_forms_token(world: World) -> None:
    browser, other = await world.browser(), await world.browser()
    await other.get("/")
    before = len(world.asked)
    for token in ("", "0" * 64, "ä\ud83d", other.token):
        browser.token = token.encode("utf-8", "replace").decode()
        page = await browser.post("/things/add", 403)
        assert "earlier sign-in" in page
        answer = await browser.http.delete(
            "/v1/things", headers=[(b"x-relay-token", token.encode("utf-8", "replace"))]
        )
        assert answer.status_code == 403
    answer = await browser.http.post("/v1/things", json={"token": other.token})
    assert answer.status_code == 415
    answer = await browser.http.post("/things/add", files={"token": other.token})
    assert answer.status_code == 415
    assert len(world.asked) == before


async def test_a_form_has_a_bound(world: World) -> None:
    browser = await world.browser()
    await browser.get("/")
    assert "larger" in await browser.post("/things/add", 413, filler="x" * 70_000)
    answer = await world.client().http.post("/sign-in", data={"name": "x" * 70_000})
    assert answer.status_code == 413


async def test_no_other_method_changes_anything(world: World) -> None:
    browser = await world.browser()
    await browser.get("/")
    before = len(world.asked)
    for method in ("GET", "HEAD", "OPTIONS"):
        answer = await browser.http.request(method, "/things/add")
        assert answer.status_code in (404, 405)
    assert all(asked[0] == "GET" for asked in world.asked[before:])


# --- tokens and roles ----------------------------------------------------------------------------


async def test_a_program_comes_by_its_token(world: World) -> None:
    secret = await world.people.tokens.add("prometheus", Role.VIEWER)
    http = world.client(authorization=f"Bearer {secret}", accept="*/*").http
    assert (await http.get("/v1/things")).json()["who"] == "prometheus"
    assert (await http.get("/metrics")).status_code == 200
    # It needs no origin, for it is no browser; what it may is its role.
    answer = await http.post("/v1/things", json={}, headers={"origin": ""})
    assert answer.status_code == 403
    assert "operator" in answer.json()["error"]
    for wrong in (f"Bearer {secret}x", "Bearer", "bearer "):
        answer = await world.client(authorization=wrong, accept="*/*").http.get("/v1/things")
        assert answer.status_code == 401


async def test_a_proxys_own_authorization_is_no_matter(world: World) -> None:
    answer = await world.client(authorization="Basic YTpi").http.get("/sign-in")
    assert answer.status_code == 200


async def test_each_role_goes_so_far(world: World) -> None:
    for role, statuses in (
        (Role.VIEWER, (200, 403, 403)),
        (Role.OPERATOR, (200, 200, 403)),
        (Role.ADMINISTRATOR, (200, 200, 200)),
    ):
        browser = await world.browser(role)
        await browser.get("/")
        header = {"x-relay-token": browser.token}
        answers = [
            await browser.http.get("/v1/things"),
            await browser.http.post("/v1/things", json={}, headers=header),
            await browser.http.get("/v1/people"),
        ]
        assert tuple(answer.status_code for answer in answers) == statuses


# --- how long, and by which cookie ---------------------------------------------------------------


async def test_an_open_page_alone_keeps_nobody_signed_in(world: World) -> None:
    browser = await world.browser()
    [sign_in] = world.people.sign_ins.of("administrator")
    world.clock.now += IDLE - 1
    await browser.http.get("/live/nothing")
    assert sign_in.seen < world.clock.now
    await browser.get("/")
    assert sign_in.seen == world.clock.now
    world.clock.now += IDLE
    await browser.get("/", 303)


async def test_who_is_removed_is_out_at_once(world: World) -> None:
    viewer = await world.browser(Role.VIEWER)
    await viewer.get("/")
    await world.people.remove("viewer")
    await viewer.get("/", 303)
    assert (await viewer.http.get("/v1/things")).status_code == 401


def test_cookies_of_two_processes_on_one_host_are_two() -> None:
    assert cookie_of(FINGERPRINT) == "relay_abcdefgh"
    assert cookie_of(FINGERPRINT) != cookie_of("bbcd-efgh-ijkl-mnop")


async def test_over_plain_http_the_cookie_is_for_this_machine(world: World) -> None:
    await world.people.add("ada", Role.VIEWER, PASSWORD)
    cookie = (await sign_in(world, ORIGIN)).headers["set-cookie"]
    assert cookie.startswith("relay_abcdefgh=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert not {"Max-Age", "expires"} & {part.partition("=")[0] for part in cookie.split("; ")}
    assert "Domain" not in cookie


async def test_over_tls_the_cookie_is_of_this_host_alone(people: People, clock: Clock) -> None:
    world = make(people, clock, Hosts.of(["relay.example.org"], tls=True))
    await people.add("ada", Role.VIEWER, PASSWORD)
    answer = await sign_in(world, "https://relay.example.org")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-relay_abcdefgh=")
    assert {"HttpOnly", "Secure", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    # One without the prefix, which a page over http could have planted, is none.
    secret = re.match(r"[^=]+=([^;]+)", cookie)
    assert secret is not None
    for name, status in ((cookie_name("relay_abcdefgh", True), 200), ("relay_abcdefgh", 303)):
        http = world.client("https://relay.example.org").http
        answer = await http.get("/", headers={"cookie": f"{name}={secret[1]}"})
        assert answer.status_code == status


async def sign_in(world: World, origin: str) -> httpx.Response:
    answer = await world.client(origin).http.post(
        "/sign-in", data={"name": "ada", "password": PASSWORD}
    )
    assert answer.status_code == 303
    return answer


def test_a_forms_token_is_of_one_sign_in() -> None:
    assert form_token("a") != form_token("b")
    assert "secret" not in form_token("secret")


# --- what leaves ---------------------------------------------------------------------------------


async def test_every_answer_keeps_a_browser_from_being_turned(world: World) -> None:
    browser = await world.browser()
    stranger = world.client()
    for answer in (
        await browser.http.get("/"),
        await browser.http.get("/v1/things"),
        await browser.http.get("/nothing"),
        await browser.http.post("/things/add"),
        await stranger.http.get("/"),
        await stranger.http.get("/sign-in"),
        await stranger.http.get("/v1/things"),
        await world.client("http://evil.example").http.get("/"),
    ):
        headers = answer.headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in headers
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
    assert "frame-ancestors 'none'" in POLICY


async def test_a_websocket_is_turned_away(world: World) -> None:
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope: Scope = {"type": "websocket", "path": "/", "headers": []}
    receiving: Receive = receive
    sending: Send = send
    await world.app(scope, receiving, sending)
    assert sent == [{"type": "websocket.close"}]
