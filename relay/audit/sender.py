"""Sends the audit to a collector: syslog over TLS (RFC 5425, PS3.15 §A.6).

The entries are the queue: what is sent is remembered by its number, over restarts and breaks.
Syslog has no answer. An entry counts as sent once the collector's machine has acknowledged its
bytes and the connection has lasted for a while longer; what was sent just before a break is sent
again, byte for byte the same message. So nothing is lost but what a collector itself loses, and
what comes twice can be told.
"""

import fcntl
import ssl
import struct
import termios
from collections.abc import Sequence

import attrs
import structlog
import trio

from relay.audit.audit import Audit
from relay.audit.entries import Entry
from relay.audit.syslog import framed, host_name, message
from relay.errors import DatabaseError

log = structlog.get_logger()

# RFC 5425 §4.1.
DEFAULT_PORT = 6514

# For a connection and its TLS.
CONNECT_WAIT = 30.0

# For a page of entries to be taken. A collector that reads nothing for so long is as good as away.
SEND_WAIT = 60.0

# How long a connection has to last behind an entry, so that it counts as sent.
SETTLE = 5.0

# Entries of one write.
PAGE = 100

# Between two attempts to connect, each longer than the last.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0

# An entry that waits for longer is warned of, and again each time that this has passed.
WARN_AFTER = 15 * 60.0


@attrs.frozen(slots=True)
class Collector:
    """Where the audit goes. `ssl_context` says whom to trust, and who we are if it asks."""

    host: str
    port: int
    ssl_context: ssl.SSLContext = attrs.field(repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@attrs.frozen(slots=True)
class Sending:
    """How it fares: `behind` entries the collector does not have, the oldest `lag` seconds old."""

    connected: bool
    sent: int
    behind: int
    lag: float
    failures: int
    last_failure: str


@attrs.frozen(slots=True)
class Lagging:
    """The collector lacks `entries`, the oldest for `lag` seconds; `words` are for people."""

    entries: int
    lag: float
    words: str


class Sender:
    """Sends `audit` to `collector`, as long as `run` runs."""

    def __init__(self, audit: Audit, collector: Collector) -> None:
        self.collector = collector
        self._audit = audit
        self._host = host_name()
        self._connected = False
        self._sent = 0  # and surely so
        self._out: list[tuple[float, int]] = []  # when was sent up to which, and may be lost yet
        self._failures = 0
        self._last_failure = ""
        self._since: float | None = None  # trio's time; since when entries wait
        self._warn_at = WARN_AFTER

    def statistics(self) -> Sending:
        """How it fares."""
        behind = max(0, self._audit.statistics().last - self._reached)
        lag = 0.0 if self._since is None or not behind else trio.current_time() - self._since
        return Sending(self._connected, self._sent, behind, lag, self._failures, self._last_failure)

    def lagging(self) -> Lagging | None:
        """What to warn of while the collector is behind by `WARN_AFTER`; None while it is not."""
        sending = self.statistics()
        if not sending.behind or sending.lag < WARN_AFTER:
            return None
        words = (
            f"the audit's collector {self.collector} lacks {sending.behind} entries, the oldest for"
            f" {sending.lag / 60:.0f} min: {sending.last_failure or 'it takes too little'}. Nothing"
            " is lost: they are kept here and sent once it takes them. Look at the collector, at"
            " the way there, and at audit_ca_file if its certificate is new"
        )
        return Lagging(sending.behind, sending.lag, words)

    @property
    def _reached(self) -> int:
        return self._out[-1][1] if self._out else self._sent

    async def run(self) -> None:
        """Send what there is and what comes, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            pause = FIRST_PAUSE
            while True:
                before = self._sent
                try:
                    await self._connection()
                except* (OSError, trio.BrokenResourceError, trio.TooSlowError) as group:
                    self._failed(_words(group))
                except* DatabaseError as group:
                    self._failed(_words(group))
                pause = FIRST_PAUSE if self._sent > before else min(2 * pause, LONGEST_PAUSE)
                await trio.sleep(pause)

    def _failed(self, why: str) -> None:
        self._failures += 1
        self._last_failure = why
        log.warning("audit collector not reached", collector=str(self.collector), why=why)

    async def _watch(self) -> None:
        """Warn where the collector falls behind."""
        while True:
            await trio.sleep(1.0)
            sending = self.statistics()
            if not sending.behind:
                self._since, self._warn_at = None, WARN_AFTER
            elif self._since is None:
                self._since = trio.current_time()
            elif sending.lag >= self._warn_at:
                self._warn_at += WARN_AFTER
                log.warning(
                    "audit collector is behind",
                    collector=str(self.collector),
                    entries=sending.behind,
                    seconds=round(sending.lag),
                    why=sending.last_failure or "it takes too little",
                )

    async def _connection(self) -> None:
        """One connection, to its end. Raises what says why it ended."""
        self._sent = await self._audit.sent()
        self._out.clear()
        with trio.fail_after(CONNECT_WAIT):
            tcp = await trio.open_tcp_stream(self.collector.host, self.collector.port)
        try:
            stream = trio.SSLStream(
                tcp,
                self.collector.ssl_context,
                server_hostname=self.collector.host,
                https_compatible=True,
            )
            with trio.fail_after(CONNECT_WAIT):
                await stream.do_handshake()
            self._connected = True
            log.info("audit collector connected", collector=str(self.collector))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_closed, stream)
                nursery.start_soon(self._settle_always, tcp)
                await self._send_always(stream)
        finally:
            self._connected = False
            self._out.clear()
            await trio.aclose_forcefully(tcp)

    async def _send_always(self, stream: "trio.SSLStream[trio.SocketStream]") -> None:
        while True:
            page = await self._audit.following(self._reached, PAGE)
            if not page:
                await self._audit.changed.park()
                continue
            data = await trio.to_thread.run_sync(self._encoded, page)
            with trio.fail_after(SEND_WAIT):
                await stream.send_all(data)
            self._out.append((trio.current_time(), page[-1].number))

    def _encoded(self, page: Sequence[Entry]) -> bytes:
        return b"".join(
            framed(message(self._audit.event_of(entry), self._audit.source, self._host))
            for entry in page
        )

    async def _settle_always(self, tcp: trio.SocketStream) -> None:
        """Note what is surely sent."""
        while True:
            await trio.sleep(SETTLE / 5)
            settled = [n for at, n in self._out if at + SETTLE <= trio.current_time()]
            if settled and not _unacknowledged(tcp):
                await self._audit.put_sent(settled[-1])
                self._sent = settled[-1]
                del self._out[: len(settled)]


async def _until_closed(stream: "trio.SSLStream[trio.SocketStream]") -> None:
    """Raise once the collector closes: it has nothing to say otherwise (RFC 5425 §4.4)."""
    while await stream.receive_some(4096):
        pass
    raise trio.BrokenResourceError("the collector has closed the connection")


def _unacknowledged(tcp: trio.SocketStream) -> int:
    """Bytes that are written and that the other machine has not acknowledged yet.

    SIOCOUTQ, which has the number of TIOCOUTQ: tcp(7).
    """
    answer = fcntl.ioctl(tcp.socket.fileno(), termios.TIOCOUTQ, bytes(4))
    (count,) = struct.unpack("i", answer)
    return int(count)


def _words(group: BaseException) -> str:
    """The first cause in it."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    if isinstance(group, trio.TooSlowError):
        return f"no answer within {CONNECT_WAIT:g} s, or it takes nothing for {SEND_WAIT:g} s"
    cause = group.__cause__
    return str(cause if isinstance(cause, ssl.SSLError) else group) or type(group).__name__
