"""The app of a mode's pages port: the door, and behind it the REST and the pages.

Door -> /v1 and what else is of the REST: for the role of whoever asks
     -> health: for anybody
     -> /static, sign-in, people, account, and the mode's own pages
"""

from collections.abc import Callable, Sequence

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.errors import Refused, RelayError
from relay.pages import account, people_pages, signing_in
from relay.pages.door import REST_PATH, Door, cookie_of
from relay.pages.hosts import Hosts
from relay.pages.live import Streams
from relay.pages.rendering import Rendering
from relay.pages.rest import Rest
from relay.pages.site import Entry, Site
from relay.people.people import People
from relay.people.roles import Role
from relay.web.operations import Operation, guarded_app, rest_app


def make_site(
    *,
    name: Callable[[], str],
    fingerprint: str,
    mode: str,
    navigation: Sequence[Entry],
    routes: Callable[[Site], Sequence[BaseRoute]],
    operations: Sequence[Operation],
    people: People,
    package: str,
    hosts: Hosts,
    plain: Sequence[Operation] = (),
    ended: trio.Event | None = None,
) -> ASGIApp:
    """The app of a mode's pages port.

    `routes` makes the mode's own; `operations` is its REST; `plain` is what anybody may ask
    (health). `package` is where its templates are. `ended` ends what would go on for ever.
    """
    cookie = cookie_of(fingerprint)
    guarded = guarded_app(operations)
    site = Site(
        name=name,
        mode=mode,
        rendering=Rendering(package),
        rest=Rest(guarded),
        navigation=[*navigation, Entry("People", "/people", Role.ADMINISTRATOR)],
        people=people,
        hosts=hosts,
        cookie=cookie,
        streams=Streams() if ended is None else Streams(ended),
    )
    own = [
        *site.rendering.routes(),
        *signing_in.routes(site),
        *account.routes(site),
        *people_pages.routes(site),
        *routes(site),
    ]
    pages = Starlette(
        routes=own,
        exception_handlers={
            Refused: site.refused,
            RelayError: site.refused,
            HTTPException: site.refused,
            ClientDisconnect: _gone,
            Exception: site.refused,
        },
    )
    pages.router.redirect_slashes = False  # to a URL made of what the browser says of itself
    health = rest_app(plain)
    plain_paths = frozenset(operation.path for operation in plain)
    others = {operation.path for operation in operations if not operation.path.startswith("/v1/")}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        inner = guarded if path.startswith(REST_PATH) or path in others else pages
        await (health if path in plain_paths else inner)(scope, receive, send)

    return Door(app, people, hosts, cookie, site.refused, plain_paths)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it
