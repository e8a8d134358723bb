"""What a mode's pages are put together from: templates, the REST, and words for the next page."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import attrs
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from relay.errors import Refused, RelayError
from relay.pages.hosts import Hosts
from relay.pages.live import Block, Live, Streams
from relay.pages.rendering import Rendering
from relay.pages.rest import Rest
from relay.people.people import People
from relay.people.roles import Role
from relay.people.sign_ins import SignIn
from relay.people.who import Who

# Words for the next page, of people who never came to see it.
MAXIMUM_WORDS: Final = 1024


@attrs.frozen(slots=True)
class Entry:
    """One entry of the navigation, for who has at least `role`."""

    title: str
    path: str
    role: Role = Role.VIEWER


@attrs.frozen(slots=True)
class _Words:
    said: str
    failed: str


@attrs.define(slots=True, eq=False, kw_only=True)
class Site:
    """What the views of a mode's pages use.

    `name` is whose pages these are, as people call it; `cookie` the sign-in cookie's name.
    """

    name: Callable[[], str]
    mode: str
    rendering: Rendering
    rest: Rest
    navigation: Sequence[Entry]
    people: People
    hosts: Hosts
    cookie: str
    streams: Streams = attrs.field(factory=Streams)
    _words: dict[bytes, _Words] = attrs.field(factory=dict)

    async def page(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> Response:
        """The page that `template` makes of `values`.

        Beside them it has who, navigation, here, title, name, mode, and message: what
        `see_other` said. `refused` are the words of an alert above a form, `live` the path of the
        stream of what moves; both may be among `values`.
        """
        return HTMLResponse(self._page(request, template, values), status)

    def fragment(self, template: str, **values: Any) -> Markup:
        """A part of a page, for `live`, or to stand in a template as it is.

        One with forms in it needs `who`, which their token is of.
        """
        return Markup(self.rendering.render(template, {"who": None, **values}))

    @staticmethod
    def who(request: Request) -> Who:
        """Who asks for a page. Raises Refused (401) where that is nobody."""
        who = request.scope.get("relay.who")
        if not isinstance(who, Who):
            raise Refused(401, "sign in first")
        return who

    def see_other(self, path: str, said: str = "", failed: str = "") -> Response:
        """Go on to `path`, a page of ours, where one of the two is shown once."""
        return _SeeOther(self, path, _Words(said, failed))

    def live(self, request: Request, blocks: Mapping[str, Block], every: float = 1.0) -> Response:
        """A stream of these blocks, each by the id of the element that it replaces; `every` is in
        seconds."""
        sign_in = request.scope.get("relay.sign_in")
        if not isinstance(sign_in, SignIn):
            raise Refused(403, "streams are for pages: ask the REST now and then")
        return Live(
            self.streams,
            sign_in.person,
            blocks,
            every=every,
            holds=lambda: self.people.sign_ins.holds(sign_in),
        )

    def keep_words(self, scope: Scope, words: _Words) -> None:
        """Have the next page of this scope's sign-in show these."""
        sign_in = scope.get("relay.sign_in")
        if isinstance(sign_in, SignIn) and (words.said or words.failed):
            self._words.pop(sign_in.digest, None)
            self._words[sign_in.digest] = words
            if len(self._words) > MAXIMUM_WORDS:
                del self._words[next(iter(self._words))]

    def _page(self, request: Request, template: str, values: Mapping[str, Any]) -> str:
        who = request.scope.get("relay.who")
        sign_in = request.scope.get("relay.sign_in")
        shown = [entry for entry in self.navigation if who is not None and who.may(entry.role)]
        here = _here(shown, request.scope["path"])
        message = self._words.pop(sign_in.digest, None) if sign_in is not None else None
        return self.rendering.render(
            template,
            {
                "who": who,
                "navigation": shown,
                "here": here.path if here is not None else "",
                "title": here.title if here is not None else self.name(),
                "name": self.name(),
                "mode": self.mode,
                "path": request.scope["path"],
                "message": message,
                "refused": "",
                "live": "",
                **values,
            },
        )

    # --- what goes wrong ------------------------------------------------------------------------

    async def refused(self, request: Request, error: Exception) -> Response:
        """A page that says what was refused, and what to do."""
        status, words, headers = 500, str(error), {}
        if isinstance(error, Refused):
            status = error.status
        elif isinstance(error, HTTPException):
            status, headers = error.status_code, dict(error.headers or {})
            words = "there is no such page" if status == 404 else error.detail
        elif not isinstance(error, RelayError):
            words = "the log of this process says what happened: please report it"
        if (seconds := getattr(error, "seconds", None)) is not None:
            headers["retry-after"] = str(seconds)
        answer = await self.page(
            request,
            "error.html",
            status,
            title=HTTPStatus(status).phrase if status in set(HTTPStatus) else "It did not work",
            words=words,
        )
        answer.headers.update(headers)
        return answer


class _SeeOther(RedirectResponse):
    """303, with words for the page that it leads to."""

    def __init__(self, site: Site, path: str, words: _Words) -> None:
        super().__init__(path, 303)
        self._site = site
        self._kept = words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._site.keep_words(scope, self._kept)
        await super().__call__(scope, receive, send)


def _here(entries: Sequence[Entry], path: str) -> Entry | None:
    """The entry under which `path` is: "/devices/CT_1" under "/devices"."""
    under = [
        entry
        for entry in entries
        if path == entry.path or (entry.path != "/" and path.startswith(entry.path + "/"))
    ]
    return max(under, key=lambda entry: len(entry.path), default=None)
