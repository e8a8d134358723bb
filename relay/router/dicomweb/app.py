"""DICOMweb of this Router (PS3.18): its resources, and the server that serves them.

    /aets/{ae_title}/rs/studies...    for the federation's AE title, and for each device it may ask

Rendered resources, the conformance resource (OPTIONS) and worklists are not offered.
"""

import socket
import ssl
from collections.abc import Sequence

import structlog
import trio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from relay.errors import Refused
from relay.router.dicomweb.answering import HANDLERS, refusal
from relay.router.dicomweb.asked import Service
from relay.router.dicomweb.gate import Gate
from relay.router.dicomweb.qido import QueryRoutes
from relay.router.dicomweb.settings import DicomwebSettings, is_loopback
from relay.router.dicomweb.stow import StoreRoutes
from relay.router.dicomweb.tokens import TokenTable
from relay.router.dicomweb.wado import RetrieveRoutes
from relay.web.server import serve_asgi
from relay.web.tls import server_tls

log = structlog.get_logger()

ROOT = "/aets/{ae_title}/rs"
_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"


def make_app(service: Service) -> Starlette:
    """The routes; who may use them has been seen to (relay.router.dicomweb.gate)."""
    query, retrieve, store = QueryRoutes(service), RetrieveRoutes(service), StoreRoutes(service)
    gets = [
        ("/studies", query.studies, "search studies"),
        ("/series", query.series, "search series"),
        ("/instances", query.instances, "search instances"),
        (f"{_STUDY}/series", query.series, "search series"),
        (f"{_STUDY}/instances", query.instances, "search instances"),
        (f"{_SERIES}/instances", query.instances, "search instances"),
        (_STUDY, retrieve.objects, "study"),
        (_SERIES, retrieve.objects, "series"),
        (_INSTANCE, retrieve.objects, "instance"),
        (f"{_STUDY}/metadata", retrieve.metadata, "study metadata"),
        (f"{_SERIES}/metadata", retrieve.metadata, "series metadata"),
        (f"{_INSTANCE}/metadata", retrieve.metadata, "instance metadata"),
        (f"{_INSTANCE}/frames/{{frames}}", retrieve.frames, "frames"),
        (f"{_INSTANCE}/bulkdata/{{path:path}}", retrieve.bulk, "bulk data"),
    ]
    gets += [
        (path + rendered, _rendered, "rendered")
        for path in (_STUDY, _SERIES, _INSTANCE, f"{_INSTANCE}/frames/{{frames}}")
        for rendered in ("/rendered", "/thumbnail")
    ]
    routes = [Route(ROOT + path, do, methods=["GET"], name=name) for path, do, name in gets]
    routes += [
        Route(ROOT + path, store.store, methods=["POST"], name="store")
        for path in ("/studies", _STUDY)
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={404: _nothing, 405: _nothing, ClientDisconnect: _gone, **HANDLERS},
    )
    app.router.redirect_slashes = False  # to a URL that would name a patient
    return app


async def run_dicomweb(
    service: Service,
    tokens: TokenTable,
    settings: DicomwebSettings,
    sockets: Sequence[socket.socket],
    *,
    ssl_context: ssl.SSLContext | None = None,
    stopping: trio.Event,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on these listening sockets until `stopping` is set; `ssl_context` is for all of them
    (`load_tls`)."""
    gate = Gate(
        app=make_app(service),
        node=service.federation.node,
        tokens=tokens,
        origins=settings.origins,
        open=settings.open,
        room=trio.Semaphore(settings.maximum_requests),
    )
    if ssl_context is None and not all(is_loopback(host) for host, _ in settings.listen):
        log.warning(
            "DICOMweb without TLS",
            why="tokens and patients' data go over the network as they are, unless a proxy on this"
            " machine does the TLS: give certificate and private_key, or a loopback address",
        )
    log.info(
        "DICOMweb listens",
        listening=[opened.getsockname()[:2] for opened in sockets],
        tls=ssl_context is not None,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.trail.run)
        await serve_asgi(
            gate, sockets, stopping=stopping, ssl_context=ssl_context, task_status=task_status
        )
        nursery.cancel_scope.cancel()


def load_tls(settings: DicomwebSettings) -> ssl.SSLContext | None:
    """What it is served over TLS with; None: it is not. Raises RelayError naming the files."""
    if settings.certificate is None or settings.private_key is None:
        return None
    return server_tls(settings.certificate, settings.private_key)


async def _rendered(request: Request) -> Response:
    raise Refused(406, "nothing is rendered here: retrieve frames, or the object")


async def _nothing(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    words = "no such resource of DICOMweb" if status == 404 else "not for this resource"
    return refusal(status, words)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it
