"""/account: a person's own password, and the browsers in which they are signed in."""

from collections.abc import Sequence

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.errors import Refused
from relay.pages.door import sign_in_of
from relay.pages.forms import form
from relay.pages.site import Site

PATH = "/account"

# In this order: a browser says that it is what came before it, too.
_BROWSERS = {
    "Edg": "Edge",
    "OPR": "Opera",
    "Firefox": "Firefox",
    "Chrome": "Chrome",
    "Safari": "Safari",
}
_SYSTEMS = {
    "Windows": "Windows",
    "Android": "Android",
    "iPhone": "iOS",
    "iPad": "iOS",
    "Mac OS X": "macOS",
    "Linux": "Linux",
}


@attrs.frozen(slots=True)
class _Views:
    site: Site

    async def show(self, request: Request) -> Response:
        return await self._page(request)

    async def change_password(self, request: Request) -> Response:
        sign_in, typed = sign_in_of(request), await form(request)
        try:
            if typed.secret("new") != typed.secret("again"):
                raise Refused(400, "the two new passwords are not the same: type both again")
            await self.site.people.change_own_password(
                sign_in, typed.secret("current"), typed.secret("new")
            )
        except Refused as error:
            return await self._page(request, error)
        return self.site.see_other(
            PATH, "Your password was changed. Other browsers are signed out."
        )

    async def end_sign_in(self, request: Request) -> Response:
        """End another browser's sign-in; only ever one's own."""
        own = sign_in_of(request)
        wanted = (await form(request)).text("id")
        for sign_in in list(self.site.people.sign_ins.of(own.person)):
            if sign_in.id == wanted and sign_in is not own:
                await self.site.people.sign_out(sign_in)
                return self.site.see_other(PATH, "That browser is signed out.")
        return self.site.see_other(PATH, failed="That sign-in is over already.")

    async def _page(self, request: Request, error: Refused | None = None) -> Response:
        own = sign_in_of(request)
        answer = await self.site.page(
            request,
            "account.html",
            error.status if error else 200,
            title="Your account",
            refused=str(error) if error else "",
            sign_ins=[
                {
                    **sign_in.to_json(),
                    "browser": browser(sign_in.agent),
                    "is_this": sign_in is own,
                }
                for sign_in in self.site.people.sign_ins.of(own.person)
            ],
        )
        if (seconds := getattr(error, "seconds", None)) is not None:
            answer.headers["retry-after"] = str(seconds)
        return answer


def browser(agent: str) -> str:
    """What a User-Agent is to people; what it says itself where nobody knows it."""
    name = next((words for mark, words in _BROWSERS.items() if mark in agent), "")
    system = next((words for mark, words in _SYSTEMS.items() if mark in agent), "")
    if not name:
        return agent or "unknown"
    return f"{name} on {system}" if system else name


def routes(site: Site) -> Sequence[BaseRoute]:
    """The pages of one's own account."""
    do = _Views(site)
    return [
        Route(PATH, do.show, methods=["GET"]),
        Route(PATH + "/password", do.change_password, methods=["POST"]),
        Route(PATH + "/end", do.end_sign_in, methods=["POST"]),
    ]
