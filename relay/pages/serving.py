"""The pages' own port: its names, its TLS, the link for the first administrator, and serving it."""

import socket
import ssl
from collections.abc import Sequence

import structlog
import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.errors import RelayError
from relay.pages.api import link_to
from relay.pages.hosts import Hosts, is_loopback
from relay.pages.settings import PagesSettings
from relay.people.people import People
from relay.people.who import CONSOLE
from relay.web.server import serve_asgi
from relay.web.tls import names_in, server_tls

log = structlog.get_logger()


def load_tls(settings: PagesSettings) -> ssl.SSLContext | None:
    """What they are served over TLS with; None: they are not.

    Raises RelayError naming the files, or an address that others than this machine reach without
    TLS: passwords would go over the network as they are.
    """
    if settings.certificate is not None and settings.private_key is not None:
        return server_tls(settings.certificate, settings.private_key)
    for host, port in settings.listen:
        if not is_loopback(host):
            raise RelayError(
                f"the pages cannot be served on {host}:{port} without TLS: give a certificate and"
                " private_key, or listen on 127.0.0.1 and reach that through an SSH tunnel or a"
                " reverse proxy on this machine"
            )
    return None


def hosts_of(settings: PagesSettings) -> Hosts:
    """The names by which the pages' own port is asked for. Raises RelayError."""
    names = list(settings.hosts)
    if settings.certificate is not None:
        names += [name for name in names_in(settings.certificate) if not name.startswith("*")]
        names += [host for host, _ in settings.listen]
    return Hosts.of(names, tls=settings.certificate is not None)


def origin_of(settings: PagesSettings, bound: Sequence[tuple[str, int]]) -> str:
    """Where a browser finds what listens on `bound`; empty if nothing does. Raises RelayError."""
    if not bound:
        return ""
    host, port = bound[0]
    if settings.certificate is None:
        if settings.hosts:  # a proxy's, which has the port that its scheme says
            return f"https://{settings.hosts[0]}"
        return f"http://{_bracketed(host)}:{port}"
    names = [*settings.hosts, *names_in(settings.certificate)]
    name = next((name for name in names if not name.startswith("*")), host)
    return f"https://{_bracketed(name)}" + (f":{port}" if port != 443 else "")


async def serve_pages(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    *,
    ssl_context: ssl.SSLContext | None,
    stopping: trio.Event,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on these listening sockets until `stopping` is set."""
    await serve_asgi(
        app, sockets, stopping=stopping, ssl_context=ssl_context, task_status=task_status
    )


def show_pages(people: People, origin: str) -> None:
    """Say on the console where the pages are, if there are any, and how somebody comes to sign in
    where nobody can yet.

    The link is a secret, in the log on purpose: who reads the console of this process may do all
    that it may. It works once, within a day, and only as long as there is nobody.
    """
    if not origin:
        return
    log.info("pages listen", url=origin)
    if people.is_empty:
        log.warning(
            "first sign-in",
            why="nobody can sign in to the pages yet: this link makes the first administrator",
            link=link_to(origin, people.first_code()),
        )


def as_console(app: ASGIApp) -> ASGIApp:
    """`app` for whoever opens the Unix socket: the process's own user, or root, may do all."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        scope["relay.who"] = CONSOLE
        await app(scope, receive, send)

    return served


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
