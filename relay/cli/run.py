"""`relay --mode …` without a command: runs the Bridge or the Router until a signal ends it."""

import signal
import sys
from collections.abc import Awaitable, Callable

import structlog
import trio

from relay import log as logging
from relay import systemd
from relay.audit.settings import AuditSettings
from relay.cli import configured
from relay.config import BridgeConfig, Config, LogFormat, RouterConfig
from relay.memory import give_back, keep_loaded, seldom_look_for_circles, share_memory
from relay.pages.settings import PagesSettings
from relay.router.dicomweb.settings import DicomwebSettings
from relay.router.federation.settings import FederationSettings, Merging, OnIncomplete
from relay.router.queue.settings import QueueSettings
from relay.workers import limit_numpy, share_interpreter

log = structlog.get_logger()

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: Config) -> None:
    """Run the process that `config` describes; returns once it was told to stop, and has.

    Raises RelayError if it cannot start or go on.
    """
    text = config.log_format is LogFormat.TEXT or (
        config.log_format is LogFormat.AUTO and sys.stderr.isatty()
    )
    logging.configure(level=config.log_level.value, json=not text)
    share_memory()
    share_interpreter()
    trio.run(until_signalled, lambda stopping: _serve(config, stopping))


async def until_signalled(serve: Callable[[trio.Event], Awaitable[None]]) -> None:
    """Run `serve`, which is to end itself, with grace, once the event that it is given is set."""
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch, stopping)
        if (interval := systemd.watchdog_interval()) is not None:
            nursery.start_soon(systemd.keep_alive, interval)
        nursery.start_soon(give_back)
        await serve(stopping)
        nursery.cancel_scope.cancel()


async def _watch(
    stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal asks to stop; a second one finds its default action, and kills."""
    with trio.open_signal_receiver(*SIGNALS) as signals:
        task_status.started()
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            break
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    systemd.tell(systemd.STOPPING)
    stopping.set()


async def _serve(config: Config, stopping: trio.Event) -> None:
    # Each loads its own program alone: the Router's is 30 MiB more in a Bridge, the Bridge's 6 MiB
    # more in a Router.
    match config:
        case BridgeConfig():
            from relay.bridge.app import run_bridge

            keep_loaded()
            seldom_look_for_circles()
            await run_bridge(
                data_dir=config.data_dir,
                listen=[(address.host, address.port) for address in config.listen],
                url=config.url,
                certificate=config.certificate,
                key=config.private_key,
                behind_proxy=config.behind_proxy,
                blob_space=config.blob_space,
                maximum_connections=config.maximum_connections,
                grace=config.grace_period,
                pages=pages_settings(config),
                audit=audit_settings(config),
                stopping=stopping,
                task_status=systemd.Readiness(),
            )
        case RouterConfig():
            limit_numpy()
            from relay.router import device_tls
            from relay.router.app import run_router

            keep_loaded()
            await run_router(
                data_dir=config.data_dir,
                ae_title=config.ae_title,
                listen=[(address.host, address.port) for address in config.listen],
                tls_listen=[(address.host, address.port) for address in config.tls_listen],
                device_tls=device_tls.load(
                    certificate=config.certificate,
                    private_key=config.private_key,
                    device_ca_file=config.device_ca_file,
                    device_certificates=config.device_certificates.value,
                    profile=config.tls_profile.value,
                ),
                ca_file=config.ca_file,
                proxy=config.proxy.reveal() if config.proxy else None,
                allowed_origins=config.allowed_origins,
                trust=config.trust.value,
                maximum_associations=config.maximum_associations,
                grace_period=config.grace_period,
                queue=queue_settings(config),
                federation=federation_settings(config),
                dicomweb=dicomweb_settings(config),
                pages=pages_settings(config),
                audit=audit_settings(config),
                audit_queries=config.audit_queries.value,
                configuration=configured.rows(config),
                stopping=stopping,
                task_status=systemd.Readiness(),
            )


def queue_settings(config: RouterConfig) -> QueueSettings:
    """What `config` says of the queue, as the Router takes it."""
    return QueueSettings(
        space=config.spool_space,
        reserve=config.spool_reserve,
        key=config.spool_key,
        bandwidth=config.bandwidth,
        warn_after=config.warn_after,
        webhook=config.webhook.reveal() if config.webhook else None,
    )


def federation_settings(config: RouterConfig) -> FederationSettings:
    """What `config` says of the federation, as the Router takes it."""
    said = config.federation
    return FederationSettings(
        ae_title=said.ae_title,
        answers=Merging(said.answers.value),
        on_incomplete=OnIncomplete(said.on_incomplete.value),
        narrowing=said.narrowing,
        maximum_answers=said.maximum_answers,
        queries=said.queries,
        retrieves=said.retrieves,
        site_wait=said.site_wait,
        store_to=said.store_to,
    )


def dicomweb_settings(config: RouterConfig) -> DicomwebSettings:
    """What `config` says of DICOMweb, as the Router takes it."""
    said = config.dicomweb
    return DicomwebSettings(
        listen=[(address.host, address.port) for address in said.listen],
        certificate=said.certificate,
        private_key=said.private_key,
        origins=said.origins,
        open=said.open,
        maximum_requests=said.maximum_requests,
    )


def audit_settings(config: Config) -> AuditSettings:
    """What `config` says of the audit, as both modes take it."""
    said = config.audit_syslog
    return AuditSettings(
        days=config.audit_days,
        space=config.audit_space,
        collector=(said.host, said.port) if said is not None else None,
        ca_file=config.audit_ca_file,
        certificate=config.audit_certificate,
        private_key=config.audit_private_key,
    )


def pages_settings(config: Config) -> PagesSettings:
    """What `config` says of the pages, as both modes take it."""
    said = config.pages
    return PagesSettings(
        listen=[(address.host, address.port) for address in said.listen],
        certificate=said.certificate,
        private_key=said.private_key,
        hosts=said.hosts,
        on_network_port=isinstance(config, BridgeConfig) and config.pages.on_network_port,
    )
