"""Coming in and leaving: /sign-in, /sign-out, and /first, where a one-time link leads."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import attrs
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from relay.errors import Refused
from relay.pages.door import LINK_PATH, SIGN_IN_PATH, cookie_name, sign_in_of
from relay.pages.forms import Form, form
from relay.pages.site import Site

START: Final = "/"


@attrs.frozen(slots=True)
class _Views:
    site: Site

    async def show(self, request: Request) -> Response:
        if request.scope.get("relay.sign_in") is not None:
            return RedirectResponse(own_path(request.query_params.get("next", "")), 303)
        left = "left" in request.query_params
        return await self._sign_in_page(request, Form({}), left=left)

    async def sign_in(self, request: Request) -> Response:
        """Check name and password; a browser that was signed in as somebody is so no more."""
        typed = await form(request)
        address, agent = _from(request)
        try:
            secret = await self.site.people.sign_in(
                typed.text("name"), typed.secret("password"), address, agent
            )
        except Refused as error:
            return await self._sign_in_page(request, typed, error)
        return await self._enter(request, secret, own_path(typed.text("next")))

    async def sign_out(self, request: Request) -> Response:
        await self.site.people.sign_out(sign_in_of(request))
        answer = RedirectResponse(f"{SIGN_IN_PATH}?left", 303)
        name, secure = self._cookie(request)
        answer.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")
        return answer

    async def show_link(self, request: Request) -> Response:
        """What a link is for. It is not used up by being looked at: mail scanners do."""
        code = request.query_params.get("code", "")
        owner = self.site.people.opened_by(code)
        return await self._link_page(request, code, owner, Form({}))

    async def open_link(self, request: Request) -> Response:
        typed = await form(request)
        code, password = typed.text("code"), typed.secret("password")
        owner = self.site.people.opened_by(code)
        address, agent = _from(request)
        try:
            if password != typed.secret("again"):
                raise Refused(400, "the two passwords are not the same: type both again")
            secret = await self.site.people.open(code, typed.text("name"), password, address, agent)
        except Refused as error:
            return await self._link_page(request, code, owner, typed, error)
        return await self._enter(request, secret, START)

    async def _enter(self, request: Request, secret: str, path: str) -> Response:
        before = request.scope.get("relay.sign_in")
        if before is not None:
            await self.site.people.sign_ins.end(before)
        answer = RedirectResponse(path, 303)
        name, secure = self._cookie(request)
        # Lax, not Strict: a link in a mail or in a monitor's message opens the page that it names.
        # What changes something is never a link, and is checked besides (relay.pages.door).
        # Without Max-Age: many share a workstation, and it ends where the browser does.
        answer.set_cookie(name, secret, path="/", secure=secure, httponly=True, samesite="lax")
        return answer

    def _cookie(self, request: Request) -> tuple[str, bool]:
        secure = self.site.hosts.origin(request.headers).startswith("https:")
        return cookie_name(self.site.cookie, secure), secure

    async def _sign_in_page(
        self, request: Request, typed: Form, error: Refused | None = None, *, left: bool = False
    ) -> Response:
        answer = await self.site.page(
            request,
            "sign_in.html",
            error.status if error else 200,
            title="Sign in",
            typed_name=typed.text("name"),
            next=own_path(typed.text("next") or request.query_params.get("next", "")),
            refused=str(error) if error else "",
            left=left,
            nobody=self.site.people.is_empty,
        )
        return _with_pause(answer, error)

    async def _link_page(
        self, request: Request, code: str, owner: str, typed: Form, error: Refused | None = None
    ) -> Response:
        answer = await self.site.page(
            request,
            "first.html",
            error.status if error else 200,
            title="Welcome" if not owner else "Choose a password",
            code=code,
            owner=owner,
            typed_name=typed.text("name"),
            refused=str(error) if error else "",
        )
        return _with_pause(answer, error)


def own_path(path: str) -> str:
    """`path` if it is one of this site's; otherwise the start. Nobody is sent elsewhere.

    Browsers take a backslash for a slash, and leave out tabs and line ends.
    """
    try:
        parts = urlsplit(path)
    except ValueError:
        return START
    foreign = parts.scheme or parts.netloc or path.startswith("//") or not path.startswith("/")
    odd = "\\" in path or any(not "!" <= letter <= "~" for letter in path)
    return START if foreign or odd else path


def _from(request: Request) -> tuple[str, str]:
    return request.scope.get("relay.address", ""), request.headers.get("user-agent", "")


def _with_pause(answer: Response, error: Refused | None) -> Response:
    seconds = getattr(error, "seconds", None)
    if seconds is not None:
        answer.headers["retry-after"] = str(seconds)
    return answer


def routes(site: Site) -> Sequence[BaseRoute]:
    """The pages of coming in and leaving."""
    do = _Views(site)
    return [
        Route(SIGN_IN_PATH, do.show, methods=["GET"]),
        Route(SIGN_IN_PATH, do.sign_in, methods=["POST"]),
        Route("/sign-out", do.sign_out, methods=["POST"]),
        Route(LINK_PATH, do.show_link, methods=["GET"]),
        Route(LINK_PATH, do.open_link, methods=["POST"]),
    ]
