"""The Router's process: what runs, in which order it starts, and how it ends.

    identity, database -> DICOM listeners, Unix sockets -> (once enrolled) signalling, sessions

An unenrolled Router serves its sockets, so that people can enrol it. On `stopping` no association
begins any more, what runs has the grace period, and then is aborted.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio

from relay import listener
from relay.audit import happenings
from relay.audit.audit import open_audit
from relay.audit.document import AuditSource
from relay.audit.operations import audit_operations
from relay.audit.sender import Sender
from relay.audit.settings import AuditSettings, load_collector
from relay.audit.signing import hearing
from relay.database import open_database
from relay.errors import Refused, RelayError
from relay.identity import load_identity
from relay.pages.api import people_operations
from relay.pages.app import make_site
from relay.pages.serving import as_console, hosts_of, origin_of, serve_pages, show_pages
from relay.pages.serving import load_tls as load_pages_tls
from relay.pages.settings import PagesSettings
from relay.patience import Timeouts
from relay.people.people import People
from relay.router import membership
from relay.router.aliases import AliasTable
from relay.router.api import control_operations
from relay.router.asks import AskTable
from relay.router.auditing import Queries
from relay.router.calling import serve_device
from relay.router.commitments import CommitmentTable
from relay.router.device_tls import DeviceTLS
from relay.router.devices import DeviceTable
from relay.router.dicomweb.api import token_operations
from relay.router.dicomweb.app import load_tls, run_dicomweb
from relay.router.dicomweb.asked import Service
from relay.router.dicomweb.overview import Overview
from relay.router.dicomweb.settings import DicomwebSettings
from relay.router.dicomweb.tokens import TokenTable
from relay.router.federation.federation import Federation
from relay.router.federation.settings import FederationSettings
from relay.router.grants import GrantTable
from relay.router.health import router_health
from relay.router.keyring import Keyring
from relay.router.live import LiveRegister
from relay.router.network import NetworkSide, Outside
from relay.router.node import Node, unix_time
from relay.router.pages.app import NAVIGATION, PACKAGE, routes
from relay.router.peers import Trust
from relay.router.queue import watch
from relay.router.queue.acceptance import Acceptance
from relay.router.queue.bandwidth import Throttle
from relay.router.queue.commitment import Commitments
from relay.router.queue.courier import Couriers
from relay.router.queue.destinations import DestinationTable
from relay.router.queue.knowledge import OwnKnowledge
from relay.router.queue.settings import QueueSettings
from relay.router.queue.state import Queue
from relay.router.queue.warnings import Warnings
from relay.router.queue.webhook import Webhook
from relay.router.relaying import LOCAL_ASSOCIATIONS
from relay.router.schema import DATABASE_FILE, MIGRATIONS
from relay.spool.spool import Spool, open_spool
from relay.spool.vault import load_spool_key
from relay.web.operations import rest_app
from relay.web.server import listen_tcp, listen_unix, serve_asgi
from relay.web.tls import client_tls

log = structlog.get_logger()

CONTROL_SOCKET = "control.sock"
DICOM_SOCKET = "dicom.sock"

DEFAULT_MAXIMUM_ASSOCIATIONS = 256
DEFAULT_GRACE_PERIOD = 30.0

# For the A-ABORT of what outlasted the grace period to reach both ends: twice the two seconds that
# an association and a tunnel have for it.
FAREWELL = 4.0

# How often the keys are looked at. A new one is due every thirty days.
KEY_CHECK = 3600.0


async def run_router(
    *,
    data_dir: Path,
    ae_title: str,
    listen: Sequence[tuple[str, int]],
    tls_listen: Sequence[tuple[str, int]] = (),
    device_tls: DeviceTLS | None = None,
    ca_file: Path | None = None,
    proxy: str | None = None,
    allowed_origins: Sequence[str] = (),
    trust: str = Trust.FIRST_USE.value,
    maximum_associations: int = DEFAULT_MAXIMUM_ASSOCIATIONS,
    grace_period: float = DEFAULT_GRACE_PERIOD,
    timeouts: Timeouts | None = None,
    queue: QueueSettings | None = None,
    federation: FederationSettings | None = None,
    dicomweb: DicomwebSettings | None = None,
    pages: PagesSettings | None = None,
    audit: AuditSettings | None = None,
    audit_queries: str = Queries.KEYS.value,
    configuration: Sequence[Mapping[str, Any]] = (),
    stopping: trio.Event,
    task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a Router on `data_dir` until `stopping` is set; started once its sockets listen.

    `tls_listen` needs a `device_tls` that has a certificate to serve with.
    `ca_file` holds more certificate authorities to trust for the Bridge and the stores; `trust` is
    "first-use" or "contacts", `audit_queries` one of Queries; `configuration` is
    what people are shown of relay.toml. Raises RelayError if it cannot start.
    """
    device_tls = device_tls or DeviceTLS()
    audit = audit or AuditSettings()
    collector = load_collector(audit)
    settings = queue or QueueSettings()
    if tls_listen and device_tls.serving is None:
        raise RelayError("tls_listen needs a certificate to serve with")
    _make_private(data_dir)
    outside = Outside(
        ssl_context=client_tls(ca_file),
        proxy=proxy,
        allowed_origins=allowed_origins,
        trust=Trust(trust),
    )
    async with AsyncExitStack() as stack:

        def owned(opened: socket.socket) -> socket.socket:
            stack.callback(opened.close)
            return opened

        # First of all: it finds out whether another Router is running on this folder.
        control = owned(listen_unix(data_dir / CONTROL_SOCKET))
        local = owned(listen_unix(data_dir / DICOM_SOCKET))
        sockets = [owned(opened) for opened in await listen_tcp(listen)]
        tls_sockets = [owned(opened) for opened in await listen_tcp(tls_listen)]
        web = dicomweb or DicomwebSettings()
        web_tls = load_tls(web)
        web_sockets = [owned(opened) for opened in await listen_tcp(web.listen)]
        pages = pages or PagesSettings()
        pages_tls = load_pages_tls(pages)
        pages_sockets = [owned(opened) for opened in await listen_tcp(pages.listen)]
        origin = origin_of(pages, _names(pages_sockets))
        identity = load_identity(data_dir)
        database = await stack.enter_async_context(
            open_database(data_dir / DATABASE_FILE, MIGRATIONS)
        )
        spool = await stack.enter_async_context(
            open_spool(data_dir, key=settings.key, space=settings.space, reserve=settings.reserve)
        )
        node = Node(
            database=database,
            identity=identity,
            ae_title=ae_title,
            keyring=await Keyring.load(database, identity, unix_time()),
            devices=await DeviceTable.load(database),
            aliases=await AliasTable.load(database),
            grants=await GrantTable.load(database),
            asks=AskTable(database),
            commitments=await CommitmentTable.load(database),
            live=LiveRegister(maximum_associations),
            spool=spool,
            device_tls=device_tls,
            configuration=configuration,
        )
        name = await _naming(node)
        trail = await stack.enter_async_context(
            open_audit(
                data_dir,
                lambda: AuditSource(ae_title, name()),
                seal=load_spool_key(data_dir, settings.key),
                days=audit.days,
                space=audit.space,
            )
        )
        told = partial(happenings.application, ae_title, ae_title=True)
        stack.callback(lambda: trail.record(told(started=False)))
        node.audit, node.audit_sender = trail, Sender(trail, collector) if collector else None
        node.watch(trail.record, trail.room, Queries(audit_queries))
        delivery = await _queue(node, spool, settings, outside, name)
        delivery.commitments = commitments = Commitments(delivery)
        limits = listener.ServerLimits(associations=maximum_associations, grace=grace_period)
        node.listening = _names([*sockets, *tls_sockets])
        together = _federation(node, federation or FederationSettings())
        tokens = await TokenTable.load(database)
        people = await People.load(database)
        people.heard = hearing(trail.record, lambda: node.auditing.router)
        stack.callback(people.close)
        node.counts.sign_ins = people.counted
        serve_calls = partial(serve_device, node, queue=delivery, federation=together)
        async with trio.open_nursery() as nursery:
            for task in (
                trail.run,
                spool.objects.run,
                spool.custody.run,
                spool.index.run,
                node.rates.run,
                delivery.warnings.run,
                delivery.couriers.run,
                delivery.waiting.run,
                commitments.run,
                partial(delivery.acceptance.run, node, delivery.destinations),
                partial(watch.run, delivery),
                node.turning.run,
            ):
                nursery.start_soon(task)
            if node.audit_sender is not None:
                nursery.start_soon(node.audit_sender.run)
            network = NetworkSide(node, outside, maximum_associations, stopping, delivery)
            await nursery.start(network.run)
            nursery.start_soon(_renew_keys, node)
            async with trio.open_nursery() as serving:
                serve = partial(
                    listener.serve,
                    timeouts=timeouts,
                    stopping=stopping,
                    on_rejected=node.counts.turned_away,
                )
                await serving.start(
                    partial(
                        serve,
                        [*map(_listener, sockets)],
                        serve_calls,
                        limits=limits,
                        tls_listeners=[*map(_listener, tls_sockets)],
                        ssl_context=node.device_tls.serving,
                    )
                )
                await serving.start(
                    partial(
                        serve,
                        [_listener(local)],
                        partial(serve_calls, local=True),
                        limits=attrs.evolve(limits, associations=LOCAL_ASSOCIATIONS),
                    )
                )
                operations = control_operations(
                    node,
                    network.enrol,
                    delivery,
                    [
                        *token_operations(node, tokens),
                        *people_operations(people, origin),
                        *audit_operations(trail, node.audit_sender),
                        *router_health(delivery),
                    ],
                    together,
                    Overview(web, tokens, _names(web_sockets), node.federation_title),
                )
                await serving.start(
                    partial(
                        serve_asgi, as_console(rest_app(operations)), [control], stopping=stopping
                    )
                )
                if pages_sockets:
                    site = make_site(
                        name=name,
                        fingerprint=identity.fingerprint,
                        mode="Router",
                        navigation=NAVIGATION,
                        routes=routes,
                        operations=operations,
                        people=people,
                        package=PACKAGE,
                        hosts=hosts_of(pages),
                        plain=router_health(delivery),
                        ended=stopping,
                    )
                    await serving.start(
                        partial(
                            serve_pages,
                            site,
                            pages_sockets,
                            ssl_context=pages_tls,
                            stopping=stopping,
                        )
                    )
                    show_pages(people, origin)
                if web_sockets:
                    # Each device alone can be asked also where there is no federation.
                    asked = together or Federation(node, FederationSettings(ae_title=""))
                    await serving.start(
                        partial(
                            run_dicomweb,
                            Service(asked, delivery),
                            tokens,
                            web,
                            web_sockets,
                            ssl_context=web_tls,
                            stopping=stopping,
                        )
                    )
                log.info(
                    "Router listens",
                    ae_title=ae_title,
                    fingerprint=identity.fingerprint,
                    listening=_names(sockets),
                    tls_listening=_names(tls_sockets),
                )
                trail.record(told(started=True))
                task_status.started(node)
                await stopping.wait()
                deadline = trio.current_time() + grace_period
                node.lingering.end_all()
                delivery.couriers.finish()
            # The devices' own associations are over; those that peers opened have what is left.
            with trio.CancelScope(deadline=deadline):
                await node.live.wait_empty()
            node.live.end_all()
            with trio.move_on_after(FAREWELL):  # while there is a connection to say it over
                await node.live.wait_empty()
            nursery.cancel_scope.cancel()


async def _naming(node: Node) -> Callable[[], str]:
    """By what name people know this hospital: its invitation's, before that the AE title."""
    joined = await membership.load(node.database)

    def name() -> str:
        known = node.network.membership if node.network is not None else joined
        return known.name if known is not None else node.ae_title

    return name


async def _queue(
    node: Node,
    spool: Spool,
    settings: QueueSettings,
    outside: Outside,
    name: Callable[[], str],
) -> Queue:
    webhook = (
        Webhook(settings.webhook, ssl_context=outside.ssl_context, proxy=outside.proxy)
        if settings.webhook
        else None
    )
    queue = Queue(
        node=node,
        spool=spool,
        settings=settings,
        destinations=await DestinationTable.load(node.database),
        knowledge=OwnKnowledge(node.database),
        acceptance=await Acceptance.load(node.database),
        warnings=Warnings(name, webhook),
        throttle=Throttle(settings.bandwidth),
    )
    queue.couriers = Couriers(queue)
    return queue


def _federation(node: Node, settings: FederationSettings) -> Federation | None:
    """The federation, unless it is turned off, or its title is somebody's."""
    try:
        node.name_federation(settings.ae_title)
    except Refused as error:
        # The Router goes on: whoever has the title so far keeps it.
        log.error("no federation", why=str(error))
        return None
    if not settings.ae_title:
        return None
    federation = Federation(node, settings)
    node.reached = federation.states.seen
    return federation


def _make_private(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        data_dir.chmod(0o700)
    except OSError as error:
        raise RelayError(f"{data_dir}: {error.strerror}") from error


def _names(sockets: Sequence[socket.socket]) -> list[tuple[str, int]]:
    return [tuple(opened.getsockname()[:2]) for opened in sockets]


def _listener(opened: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(opened))


async def _renew_keys(node: Node) -> None:
    while True:
        await trio.sleep(KEY_CHECK)
        if await node.renew_key():
            await node.changed()
