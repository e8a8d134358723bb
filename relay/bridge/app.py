"""The Bridge as a process: its rooms put together, started and stopped."""

import hmac
import ssl
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import structlog
import trio
from starlette.types import ASGIApp

from relay.audit import happenings
from relay.audit.audit import Audit, open_audit
from relay.audit.changes import audited
from relay.audit.document import AuditSource
from relay.audit.operations import audit_operations
from relay.audit.sender import Sender
from relay.audit.settings import AuditSettings, load_collector
from relay.audit.signing import hearing
from relay.bridge import facing
from relay.bridge.api import network_app, network_operations
from relay.bridge.auditing import Auditing
from relay.bridge.backend import BridgeBackend
from relay.bridge.blobs import BlobEndpoint
from relay.bridge.control import Administration, control_operations
from relay.bridge.descriptors import DEFAULT_MAXIMUM_CONNECTIONS, connections
from relay.bridge.enrolment import Enrolment
from relay.bridge.facing import Facing, beside
from relay.bridge.health import bridge_health
from relay.bridge.metering import Meter, MeteredStore
from relay.bridge.opened import OpenedObjects
from relay.bridge.rates import Rates
from relay.bridge.registry import Registry
from relay.bridge.restored import Restored
from relay.bridge.schema import DATABASE_FILE, MIGRATIONS, Network, load_network
from relay.bridge.scrape import Watched, metrics_operation
from relay.bridge.seen import LastSeen
from relay.bridge.sessions import Sessions
from relay.bridge.sockets import SignalEndpoint
from relay.bridge.stores import Stores, open_stores
from relay.bridge.sweeper import LAST_SWEEP_AFTER, Sweeper
from relay.database import Database, open_database
from relay.errors import IdentityError, RelayError
from relay.identity import Identity, fingerprint
from relay.metrics.turning import Turning
from relay.pages.api import people_operations
from relay.pages.serving import as_console, serve_pages, show_pages
from relay.pages.serving import load_tls as load_pages_tls
from relay.pages.settings import PagesSettings
from relay.people.people import People
from relay.providers.registry import Host
from relay.signalling.hub import Hub, Timeouts
from relay.signalling.messages import MAXIMUM_MESSAGE
from relay.web.operations import rest_app
from relay.web.server import GRACE, listen_tcp, listen_unix, serve_asgi
from relay.web.tls import client_tls, covers, end_of, names_in, server_tls

log = structlog.get_logger()

CONTROL_SOCKET = "control.sock"
STORES_FOLDER = "stores"
DEFAULT_BLOB_SPACE = 20 * 2**30
# Of all connections, those that may wait: that have not sent a request, or are idle. Where a Bridge
# is started anew all Routers come at once, and must not push each other out of the line.
WAITING_SHARE = 1 / 2
# ... and those that may wait for an object that is not there yet, in the Bridge's own store. The
# others are left for Routers themselves, and for what is there.
AHEAD_SHARE = 1 / 2


@attrs.frozen(slots=True)
class BridgeHandle:
    """A running Bridge: where it listens, and its Unix socket for people."""

    addresses: tuple[tuple[str, int], ...]
    control: Path


@attrs.frozen(slots=True)
class _Rooms:
    """What runs while the Bridge does."""

    sweeper: Sweeper
    opened: OpenedObjects
    backend: BridgeBackend
    seen: LastSeen
    rates: Rates
    signal: SignalEndpoint
    network_app: ASGIApp
    control_app: ASGIApp
    pages_app: ASGIApp
    turning: Turning


async def run_bridge(
    *,
    data_dir: Path,
    listen: Sequence[tuple[str, int]],
    url: str,
    certificate: Path | None = None,
    key: Path | None = None,
    behind_proxy: bool = False,
    blob_space: int = DEFAULT_BLOB_SPACE,
    maximum_connections: int = DEFAULT_MAXIMUM_CONNECTIONS,
    grace: float = GRACE,
    timeouts: Timeouts | None = None,
    last_sweep_after: float = LAST_SWEEP_AFTER,
    pages: PagesSettings | None = None,
    audit: AuditSettings | None = None,
    stopping: trio.Event,
    task_status: trio.TaskStatus[BridgeHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the Bridge until `stopping` is set.

    `url` is where Routers reach it; `listen` are (host, port) pairs, served with `certificate` and
    `key`, or as plain HTTP where `behind_proxy` says that a reverse proxy does the TLS. The disk
    store may hold `blob_space` bytes; Routers may have `maximum_connections`. Requests in progress
    get `grace` seconds at the end. Raises RelayError if it cannot start.
    """
    tls = _tls(certificate, key, behind_proxy, url)
    pages = pages or PagesSettings()
    pages_tls = load_pages_tls(pages)
    audit = audit or AuditSettings()
    collector = load_collector(audit)
    _make_folders(data_dir)
    # First of all: it finds out whether another Bridge is running on this folder.
    control = listen_unix(data_dir / CONTROL_SOCKET)
    async with AsyncExitStack() as stack:
        stack.callback(control.close)
        database = await stack.enter_async_context(
            open_database(data_dir / DATABASE_FILE, MIGRATIONS)
        )
        identity, network = await load_network(database, data_dir)
        most = connections(maximum_connections)
        sockets, pages_sockets = await listen_tcp(listen), await listen_tcp(pages.listen)
        for opened in [*sockets, *pages_sockets]:
            stack.callback(opened.close)

        def host(name: str) -> Host:
            return Host(
                folder=data_dir / STORES_FOLDER / name,
                base_url=url,
                key=hmac.digest(network.secret, b"relay/1/store\0" + name.encode(), "sha256"),
                space=blob_space,
                trust=client_tls(certificate),
                maximum_ahead=int(most * AHEAD_SHARE),
            )

        stores = await stack.enter_async_context(open_stores(database, host, clock=time.time))
        auditing = Auditing(name=urlsplit(url).hostname or url)
        trail = await stack.enter_async_context(
            open_audit(
                data_dir, lambda: AuditSource(auditing.name), days=audit.days, space=audit.space
            )
        )
        told = partial(happenings.application, auditing.name)
        stack.callback(lambda: trail.record(told(started=False)))
        auditing.record = trail.record
        sender = Sender(trail, collector) if collector else None
        people = await People.load(database)
        people.heard = hearing(trail.record, lambda: auditing.bridge)
        stack.callback(people.close)
        pages_bound = [opened.getsockname()[:2] for opened in pages_sockets]
        origin = facing.origin(url, pages, pages_bound)
        rooms = await _furnish(
            database,
            identity,
            network,
            stores,
            url,
            timeouts,
            last_sweep_after,
            None if certificate is None or behind_proxy else end_of(certificate),
            behind_proxy,
            people,
            pages,
            origin,
            stopping,
            auditing,
            trail,
            sender,
        )
        serve = partial(serve_asgi, stopping=stopping, grace=grace, maximum_message=MAXIMUM_MESSAGE)
        network_limits = {
            "maximum_connections": most,
            "maximum_waiting": int(most * WAITING_SHARE),
        }
        bound = tuple(s.getsockname()[:2] for s in sockets)
        async with trio.open_nursery() as background:
            background.start_soon(rooms.sweeper.run)
            background.start_soon(rooms.opened.run)
            background.start_soon(rooms.backend.expire)
            background.start_soon(rooms.backend.hub.run)
            background.start_soon(rooms.seen.run)
            background.start_soon(rooms.rates.run)
            background.start_soon(trail.run)
            if sender is not None:
                background.start_soon(sender.run)
            background.start_soon(rooms.turning.run)
            async with trio.open_nursery() as serving:
                await serving.start(
                    partial(serve, rooms.network_app, sockets, ssl_context=tls, **network_limits)
                )
                await serving.start(partial(serve, rooms.control_app, [control]))
                if pages_sockets:
                    await serving.start(
                        partial(
                            serve_pages,
                            rooms.pages_app,
                            pages_sockets,
                            ssl_context=pages_tls,
                            stopping=stopping,
                        )
                    )
                log.info("bridge started", url=url, listen=bound, identity=identity.fingerprint)
                show_pages(people, origin)
                trail.record(told(started=True))
                task_status.started(BridgeHandle(bound, data_dir / CONTROL_SOCKET))
                await stopping.wait()
                await rooms.seen.look()  # while they are there
                # Ours first: a WebSocket would never end by itself, and who waits for an object
                # that is not there yet would do so until the grace is over.
                rooms.signal.close()
                if stores.own is not None:
                    stores.own.let_nobody_wait()
            background.cancel_scope.cancel()
        log.info("bridge stopped")


async def _furnish(
    database: Database,
    identity: Identity,
    network: Network,
    stores: Stores,
    url: str,
    timeouts: Timeouts | None,
    last_sweep_after: float,
    certificate_ends: int | None,
    behind_proxy: bool,
    people: People,
    pages: PagesSettings,
    origin: str,
    stopping: trio.Event,
    auditing: Auditing,
    trail: Audit,
    sender: Sender | None,
) -> _Rooms:
    """Put the rooms together."""
    meter = Meter()
    sessions = Sessions(
        database,
        stores.providers,
        in_use=stores.in_use,
        clock=time.time,
        monotonic=trio.current_time,
        on_signed=meter.signed,
    )
    await sessions.load()
    sweeper = Sweeper(
        sessions,
        stores.providers,
        clock=time.time,
        on_deleted=meter.release,
        last_sweep_after=last_sweep_after,
    )
    registry = Registry(database, network.network, clock=time.time)
    enrolment = Enrolment(database, identity, network, url=url, clock=time.time)
    opened = OpenedObjects(
        stores.providers,
        # Only the Bridge's own store has objects deleted so.
        has=lambda name: stores.own is not None and stores.own.has(name),
        on_deleted=meter.release,
    )
    backend = BridgeBackend(registry, sessions, sweeper, opened)
    backend.hub = hub = Hub(identity, network.network, backend, timeouts=timeouts)
    hub.on_refused = auditing.connection_refused
    seen = LastSeen(database, hub.connected, clock=time.time)
    await seen.load()
    rates = Rates(lambda: hub.counted, clock=time.time)
    restored = await Restored.load(database)
    if restored.unconfirmed is not None:
        auditing.restored(restored.unconfirmed.made)
    signal = SignalEndpoint(backend.hub.serve)

    async def enrol(request: bytes) -> bytes:
        try:
            enrolled = await enrolment.enrol(request)
        except RelayError as error:
            auditing.enrolment_refused(str(error))
            raise
        log.info("router enrolled", router=fingerprint(enrolled.router[0]))
        identity, hospital, *_ = enrolled.router
        auditing.enrolled(fingerprint(identity), hospital)
        await backend.enrolled(enrolled.router)
        return enrolled.answer

    async def inquire(inquiry: bytes) -> dict[str, Any]:
        try:
            return await enrolment.inquire(inquiry)
        except IdentityError as error:  # not of one that is used: who asks that is no intruder
            auditing.inquiry_refused(str(error))
            raise

    administration = Administration(
        url=url,
        network=network.network,
        identity=identity.public,
        started=int(time.time()),
        certificate_ends=certificate_ends,
        registry=registry,
        enrolment=enrolment,
        sessions=sessions,
        backend=backend,
        hub=backend.hub,
        stores=stores,
        seen=seen,
        rates=rates,
        meter=meter,
        restored=restored,
        audit=trail,
        audit_sender=sender,
    )
    store = MeteredStore(lambda: stores.own, meter)
    health, turning = bridge_health(database, stores), Turning()
    watched = Watched(
        over=administration,
        blobs=store.traffic,
        sweeper=sweeper,
        sign_ins=people.counted,
        turning=turning,
    )
    operations = control_operations(
        administration,
        [
            *people_operations(people, origin),
            *audit_operations(trail, sender),
            metrics_operation(watched),
            *health,
        ],
    )
    operations = audited(operations, trail.record, lambda: auditing.bridge)
    plain = network_operations(
        enrol=enrol,
        inquire=inquire,
        health=health,
        store=store,
        people=operations if pages.on_network_port else (),
    )
    face = Facing(
        url=url,
        tls=not behind_proxy,
        fingerprint=identity.fingerprint,
        people=people,
        settings=pages,
        operations=operations,
        plain=health,
        stopping=stopping,
    )
    others: ASGIApp = network_app(plain, signal)
    if pages.on_network_port:
        paths = frozenset(operation.path for operation in plain)
        others = beside(others, paths, face.on_network_port())
    return _Rooms(
        sweeper,
        opened,
        backend,
        seen,
        rates,
        signal,
        BlobEndpoint(store).in_front_of(others),
        as_console(rest_app(operations)),
        face.on_own_port(),
        turning,
    )


def _make_folders(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (data_dir / STORES_FOLDER).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise RelayError(f"{data_dir}: cannot be made: {error.strerror}") from error


def _tls(
    certificate: Path | None, key: Path | None, behind_proxy: bool, url: str
) -> ssl.SSLContext | None:
    if behind_proxy:
        return None
    if certificate is None or key is None:
        raise RelayError("a Bridge needs a certificate and its key, or behind_proxy = true")
    tls = server_tls(certificate, key)
    host, names = urlsplit(url).hostname or "", names_in(certificate)
    if not covers(names, host):
        # It may run all the same: clients may come by another name, through a tunnel or a NAT.
        log.warning("certificate is not for the url's host", host=host, names=names)
    return tls
