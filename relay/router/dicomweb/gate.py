"""What stands before all of DICOMweb: who may come in, from which pages, and how many at once.

    host and origin -> preflight -> token -> room -> the routes (relay.router.dicomweb.app)

A log line of a request names its method, resource, AE title, token and outcome. It has nothing of
the URL's query, which holds what a patient is searched by, and no UID.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

import attrs
import structlog
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from relay.router.devices import Device
from relay.router.dicomweb.answering import refusal
from relay.router.dicomweb.settings import is_loopback
from relay.router.dicomweb.tokens import Token, TokenTable
from relay.router.node import Node
from relay.router.web_trail import WebRequest, WebTrail

log = structlog.get_logger()

# Seconds for which a request waits for room: a viewer's burst of frames is over by then.
ROOM_WAIT: Final = 10.0

# Seconds for which a browser need not ask again whether a page may.
PREFLIGHT_LIFE: Final = 600

_METHODS: Final = ("GET", "POST", "OPTIONS")
# What a page's script may send and see beside what it always may (Fetch §3.3).
_SENT: Final = "Accept, Authorization, Content-Type"
_SEEN: Final = "Content-Location, Content-Type, Retry-After, Warning, WWW-Authenticate"

_App = Callable[[Scope, Receive, Send], Awaitable[None]]


@attrs.define(slots=True, eq=False)
class Gate:
    """The ASGI app before the routes of `app`.

    `origins` are those of pages whose scripts may use it. `open`: nobody needs a token.
    """

    app: _App
    node: Node
    tokens: TokenTable
    origins: Sequence[str]
    open: bool
    room: trio.Semaphore
    trail: WebTrail = attrs.field(
        default=attrs.Factory(lambda self: WebTrail(self.node.auditing), takes_self=True)
    )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # nothing here is one
            return
        request = Request(scope)
        origin = request.headers.get("origin", "")
        watched = _Watched(send, origin if origin in self.origins else "")
        begun = trio.current_time()
        token: Token | None = None
        try:
            answer = self._stranger(request, origin)
            if answer is None and request.method == "OPTIONS":
                answer = self._preflight(request, origin)
            if answer is None:
                answer, token, caller = self._caller(request)
                if answer is None:
                    request.state.caller = caller
                    answer = await self._pass(scope, receive, watched)
            if answer is not None:
                await answer(scope, receive, watched)
        finally:
            seconds = trio.current_time() - begun
            resource, method = _resource(request), _method(request)
            self.node.counts.requested(resource, method, watched.status, seconds)
            _note(request, watched, token, seconds)
            self._tell(request, watched, token, resource)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Let it in; the answer where there is no room."""
        with trio.move_on_after(ROOM_WAIT) as limit:
            await self.room.acquire()
        if limit.cancelled_caught:
            return refusal(503, "as many requests as this Router answers at once are under way")
        try:
            await self.app(scope, receive, send)
        finally:
            self.room.release()
        return None

    def _stranger(self, request: Request, origin: str) -> Response | None:
        """The answer to who has no business here at all."""
        host = request.headers.get("host", "")
        if self.open and not is_loopback(_split(f"//{host}").hostname or ""):
            # A page of somebody else's whose name leads to this machine (DNS rebinding).
            return refusal(421, "this Router's DICOMweb is open on this machine, by its own names")
        if origin and origin not in self.origins and _split(origin).netloc != host:
            return refusal(403, f"pages of {origin[:256]} may not use this: see `origins`")
        if request.method not in _METHODS:
            answer = refusal(405, f"{request.method} is none of {', '.join(_METHODS)}")
            answer.headers["allow"] = ", ".join(_METHODS)
            return answer
        return None

    def _preflight(self, request: Request, origin: str) -> Response:
        """What a browser asks before it lets a page's script ask (Fetch §4.8)."""
        headers = {"allow": ", ".join(_METHODS)}
        if origin in self.origins and "access-control-request-method" in request.headers:
            headers |= {
                "access-control-allow-methods": ", ".join(_METHODS),
                "access-control-allow-headers": _SENT,
                "access-control-max-age": str(PREFLIGHT_LIFE),
            }
        return Response(status_code=204, headers=headers)

    def _caller(self, request: Request) -> tuple[Response | None, Token | None, Device | None]:
        """In whose name it is asked, or the answer to who may not."""
        authorization = request.headers.get("authorization", "")
        token = self.tokens.find(authorization)
        if token is None:
            if self.open and not authorization:
                return None, None, None
            return self._no_token(authorization), None, None
        if not token.device:
            return None, token, None
        device = self.node.devices.get(token.device)
        if device is None:
            words = f"the token is of {token.device}, which is no device here any more"
            return refusal(403, words), token, None
        return None, token, device

    def _tell(
        self, request: Request, watched: "_Watched", token: Token | None, resource: str
    ) -> None:
        """Have the audit know of it."""
        address = request.client.host if request.client is not None else ""
        if watched.status in (401, 403):
            why = "no token that holds" if watched.status == 401 else "not allowed"
            self.node.auditing.refused_token(address, request.url.path, why)
            return
        title, device = self.node.ae_title, token.device if token is not None else ""
        self.trail.answered(
            WebRequest(
                resource=resource,
                caller=device or title,
                token=token.name if token is not None else "",
                address=address,
                called=request.path_params.get("ae_title", ""),
                path=request.url.path,
                study=request.path_params.get("study", ""),
                names="&".join(f"{name}=" for name in request.query_params),
                held=watched.whole and watched.status < 300,
            )
        )

    def _no_token(self, authorization: str) -> Response:
        """The answer to who has none, or one that nobody knows (RFC 6750 §3)."""
        challenge, words = 'Bearer realm="DICOMweb"', "a token is needed"
        if authorization:
            challenge += ', error="invalid_token"'
            words = "Authorization has no token that is known here (mistyped, or removed?)"
        if self.open:
            words += "; without Authorization this is open"
        else:
            words += "; `relay token add NAME` makes one"
        answer = refusal(401, words)
        answer.headers["www-authenticate"] = challenge
        return answer


class _Watched:
    """Sends what the app does, with what a browser wants to know, and remembers how it went."""

    def __init__(self, send: Send, origin: str) -> None:
        self.status = 0
        self.size = 0
        self.whole = False
        self._send = send
        self._origin = origin

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [
                *message.get("headers", ()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                # Where it is open, any page could have it loaded as its image or script. What
                # `origins` may read is asked for by CORS, to which this is nothing.
                (b"cross-origin-resource-policy", b"same-origin"),
                (b"vary", b"Origin, Accept, Authorization"),
            ]
            if self._origin:
                headers += [
                    (b"access-control-allow-origin", self._origin.encode("ascii")),
                    (b"access-control-expose-headers", _SEEN.encode("ascii")),
                ]
            message = {**message, "headers": headers}
        else:
            self.size += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
        await self._send(message)


def _split(url: str) -> SplitResult:
    """Its parts; none where it is no URL."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _method(request: Request) -> str:
    return request.method if request.method in _METHODS else "other"


def _resource(request: Request) -> str:
    """The name of what was asked for; empty where there is no such thing."""
    return str(getattr(request.scope.get("route"), "name", ""))


def _note(request: Request, watched: _Watched, token: Token | None, seconds: float) -> None:
    log.info(
        "DICOMweb request",
        method=_method(request),
        resource=_resource(request),
        ae_title=request.path_params.get("ae_title", ""),
        token=token.name if token is not None else "",
        status=watched.status,
        whole=watched.whole,
        bytes=watched.size,
        seconds=round(seconds, 3),
    )
