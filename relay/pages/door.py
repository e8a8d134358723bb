"""What stands before all pages and the REST beside them: who comes in, and from where.

    Host -> who (cookie or API token) -> what changes something: same origin, and the form's token

Whoever it is stands in `scope["relay.who"]` from there on, a person's sign-in in
`scope["relay.sign_in"]`. What leaves carries the headers that keep a browser from being turned
against its owner.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Collection
from typing import Final
from urllib.parse import quote

import attrs
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.errors import Refused
from relay.pages import forms
from relay.pages.events import EVENTS, OVER
from relay.pages.hosts import Hosts, is_own_name
from relay.people.people import People
from relay.people.sign_ins import SignIn
from relay.people.who import Who
from relay.web.answers import read_body, refusal

SIGN_IN_PATH: Final = "/sign-in"
LINK_PATH: Final = "/first"
REST_PATH: Final = "/v1/"
LIVE_PATH: Final = "/live/"
TOKEN_FIELD: Final = "token"
TOKEN_HEADER: Final = "x-relay-token"
# For whoever is not signed in.
_OPEN: Final = (SIGN_IN_PATH, LINK_PATH)
_OPEN_BELOW: Final = ("/static/",)
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # With no-referrer a browser would say "null" for the origin of our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
# A month: renewed by each visit, and not for ever where somebody has to go back to plain HTTP.
_HSTS: Final = "max-age=2592000"


@attrs.frozen(slots=True)
class Door:
    """The ASGI app before `app`. `cookie` is the sign-in cookie's name without a prefix; `refused`
    makes a page of a refusal; to `plain_paths` all of this is nothing."""

    app: ASGIApp
    people: People
    hosts: Hosts
    cookie: str
    refused: Callable[[Request, Exception], Awaitable[Response]]
    plain_paths: Collection[str] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # nothing here is one
            return
        if scope["path"] in self.plain_paths:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        headers = dict(_HEADERS)
        try:
            host = request.headers.get("host", "")
            # Not of this machine's own name: other programs' ports have it, too.
            if self.hosts.scheme(host) == "https" and not is_own_name(host):
                headers["strict-transport-security"] = _HSTS
            answer, receive = await self._admit(request, receive)
        except Refused as error:
            answer = await self._refusal(request, error)
        await (answer or self.app)(scope, receive, _with(headers, send))

    async def _refusal(self, request: Request, error: Refused) -> Response:
        """A page for a browser, but for one that came by a name of somebody else's; JSON for a
        program."""
        if error.status != 421 and "text/html" in request.headers.get("accept", ""):
            return await self.refused(request, error)
        answer = refusal(error.status, str(error))
        if error.status == 401:
            answer.headers["www-authenticate"] = 'Bearer realm="Relay"'
        return answer

    async def _admit(self, request: Request, receive: Receive) -> tuple[Response | None, Receive]:
        """The answer to who is not let in, and what is left of the body. Raises Refused."""
        # Not request.url: that is made of the Host header, too.
        scope, path = request.scope, request.scope["path"]
        scope["relay.address"] = self.hosts.address(request.headers, scope.get("client"))
        secure = self.hosts.scheme(request.headers.get("host", "")) == "https"
        authorization = request.headers.get("authorization", "")
        if authorization.lower().startswith("bearer "):  # others are a proxy's before us
            token = await self.people.token(authorization, scope["relay.address"])
            scope["relay.who"] = Who(token.name, token.role)
            return None, receive
        unsafe = request.method not in _SAFE
        if unsafe:
            self.hosts.check_same_origin(request.headers)
        secret = request.cookies.get(cookie_name(self.cookie, secure), "")
        sign_in = self.people.sign_ins.find(secret) if secret else None
        person = self.people.persons.find(sign_in.person) if sign_in is not None else None
        if sign_in is None or person is None:
            return self._stranger(request), receive
        who = Who(person.name, person.role, form_token(secret))
        scope["relay.who"], scope["relay.sign_in"] = who, sign_in
        # A page that only stands open asks by itself: that is not its person's doing.
        if not path.startswith(LIVE_PATH):
            await self.people.sign_ins.use(sign_in)
        if unsafe and path not in _OPEN:
            receive = await _check_token(request, receive, who.token)
        return None, receive

    def _stranger(self, request: Request) -> Response | None:
        """The answer to who is not signed in, unless that is no matter. Raises Refused (401)."""
        scope, path = request.scope, request.scope["path"]
        if path in _OPEN or path.startswith(_OPEN_BELOW):
            return None
        if path.startswith(LIVE_PATH):
            # A refusal says nothing to a page: it would try for ever.
            return Response(OVER, media_type=EVENTS)
        if path.startswith(REST_PATH) or path == "/metrics":
            raise Refused(401, "sign in, or give an API token: `relay person token add NAME`")
        target = SIGN_IN_PATH
        if request.method == "GET" and path != "/":
            query = b"?" + scope["query_string"] if scope["query_string"] else b""
            target += f"?next={quote(scope['raw_path'] + query, safe='/')}"
        return RedirectResponse(target, 303)


def cookie_name(cookie: str, secure: bool) -> str:
    """With the prefix, a browser takes it from this very host and over TLS alone
    (RFC 6265bis §4.1.3.2)."""
    return f"__Host-{cookie}" if secure else cookie


def form_token(secret: str) -> str:
    """What the forms of a sign-in carry: made of its secret, which no other page can know."""
    return hmac.digest(secret.encode("utf-8", "surrogatepass"), b"relay/1/form", "sha256").hex()


def cookie_of(fingerprint: str) -> str:
    """The sign-in cookie's name in the process of this identity: browsers do not keep apart the
    cookies of two ports of one host."""
    return "relay_" + fingerprint.replace("-", "")[:8]


async def _check_token(request: Request, receive: Receive, token: str) -> Receive:
    """Raises Refused (403, or as `forms.form` does); returns the body anew."""
    given = request.headers.get(TOKEN_HEADER)
    if given is None:
        forms.check_media(request.headers.get("content-type", ""))
        body = await read_body(request, forms.MAXIMUM_FORM)
        given = forms.parse(body).text(TOKEN_FIELD)
        receive = _again(body, receive)
    if not hmac.compare_digest(
        hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest(),
        hashlib.sha256(token.encode()).digest(),
    ):
        raise Refused(
            403, "this form is of an earlier sign-in: nothing was changed. Reload it and try again"
        )
    return receive


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives this whole body once more."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _with(headers: dict[str, str], send: Send) -> Send:
    """A `send` that adds these headers to an answer that does not have them."""

    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            message.setdefault("headers", [])
            present = MutableHeaders(scope=message)
            for name, value in headers.items():
                present.setdefault(name, value)
        await send(message)

    return send_more


def sign_in_of(request: Request) -> SignIn:
    """The sign-in of whoever asks. Raises Refused (403) for an API token."""
    sign_in = request.scope.get("relay.sign_in")
    if not isinstance(sign_in, SignIn):
        raise Refused(403, "this is for people who are signed in")
    return sign_in
