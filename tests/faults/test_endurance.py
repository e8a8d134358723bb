"""Many associations, one after the other and at once: what they leave behind is nothing.

Real processes; device and callers are Relay's own DICOM side in the test's process, since a process
for each call would take longer than the call. A few of the associations are aborted, rejected, cut,
or carry an object by the object store.
"""

import os
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from relay import association, listener, scu
from relay.association import TCPAssociation
from relay.bridge.admission import OPENS_PER_SECOND
from relay.dicom import dimse, negotiation, uids
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import PDV, AAssociateRQ, AReleaseRP, AReleaseRQ
from relay.errors import AssociationAborted, AssociationRejected
from relay.listener import ServerLimits
from tests.hospitals import EVERYTHING, two_hospitals
from tests.interop.peers import Address
from tests.network import LOOPBACK, Network, Site

pytestmark = [pytest.mark.interop, pytest.mark.timeout(3600)]

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = uids.IMPLICIT_VR_LITTLE_ENDIAN

# Too large for one chunk in line, and nothing that could be compressed to less.
OBJECT = random.Random(1).randbytes(100_000)

# Connections without an association at a time: the listener takes no more from one address
# (relay.listener.ServerLimits.waiting_per_address).
CALLING = 16

# Calls a second: a Bridge takes no more openings from one Router in the long run.
FASTEST = 0.9 * OPENS_PER_SECOND

# Callers that make one association after the other.
LANES = 4

# After the last association: its session is ended and swept on all three processes.
SETTLING = 30.0

# What one association may leave in memory. A Bridge knows an ended session and the names of its
# objects until the last sweep, eight minutes later: 3 KB. A session or task that is left is more.
BYTES_EACH = {"bridge": 4096, "router": 1024}

# What a process may have taken besides, at any number of associations: the allocator's arenas of
# the threads that were busy at once, and SQLite's page cache; and of descriptors the connections
# with the store of the one association that ends each count (`idle_connections_closed`).
BYTES_BESIDES = 16 * 1024 * 1024
DESCRIPTORS_BESIDES = 10

# Worker threads come and go: trio's limit for them, the main one, and SQLite's.
MAXIMUM_THREADS = 48

# Rows that stay for a time after an association, by design: the memory of openings for seven hours
# (DESIGN §3), an ended session until its last sweep.
KEPT_FOR_A_TIME = {"opening", "session"}

# It keeps a few rows of each association for years, by design.
AUDIT = "audit.db"


# --- the device and who calls it ------------------------------------------------------------------


async def device(near: TCPAssociation) -> None:
    """Accepts all and answers all with success, but for the request that it aborts on."""
    rq = await near.receive()
    assert isinstance(rq, AAssociateRQ)
    await near.send(negotiation.answer(rq, lambda context: context.transfer_syntaxes[0]))
    reader = dimse.CommandReader()
    asked = None
    while True:
        match await near.receive():
            case PDV() as pdv:
                asked = reader.feed(pdv) or asked
                if asked is not None and not reader.message_open:
                    if asked.message_id == ABORTED:
                        await near.abort()
                        return
                    response = dimse.response_to(asked, 0).encode()
                    await near.send(PDV(pdv.context_id, True, True, response))
                    asked = None
            case AReleaseRQ():
                await near.send(AReleaseRP())
                return
            case _:
                return


# A request of this Message ID the device answers with an A-ABORT.
ABORTED = 666

PROPOSED = negotiation.propose([(uids.VERIFICATION, [IMPLICIT]), (CT, [IMPLICIT])])


async def negotiated(near: TCPAssociation, called: str) -> dict[str, AcceptedContext]:
    rq = negotiation.request(called, "CALLER", PROPOSED)
    ac = await scu.negotiate(near, rq)
    return {c.abstract_syntax: c for c in negotiation.accepted_contexts(rq, ac).values()}


async def echoed(near: TCPAssociation) -> None:
    contexts = await negotiated(near, "DEVICE")
    assert await scu.echo(near, contexts[uids.VERIFICATION]) == 0
    await scu.release(near)


async def stored(near: TCPAssociation) -> None:
    contexts = await negotiated(near, "DEVICE")
    assert await scu.store(near, contexts[CT], CT, "1.2.3", OBJECT) == 0
    await scu.release(near)


async def aborted_by_the_caller(near: TCPAssociation) -> None:
    contexts = await negotiated(near, "DEVICE")
    assert await scu.echo(near, contexts[uids.VERIFICATION]) == 0
    await near.abort()


async def aborted_by_the_device(near: TCPAssociation) -> None:
    contexts = await negotiated(near, "DEVICE")
    with pytest.raises(AssociationAborted):
        await scu.echo(near, contexts[uids.VERIFICATION], message_id=ABORTED)


async def rejected(near: TCPAssociation) -> None:
    with pytest.raises(AssociationRejected):
        await negotiated(near, "NOBODY")


async def given_up_before_the_answer(near: TCPAssociation) -> None:
    await near.send(negotiation.request("DEVICE", "CALLER", PROPOSED))
    await near.abort()


async def cut_in_an_object(near: TCPAssociation) -> None:
    contexts = await negotiated(near, "DEVICE")
    command = dimse.request(dimse.CommandField.C_STORE_RQ, 1, CT, "1.2.3")
    await near.send(PDV(contexts[CT].id, True, True, command.encode()))
    await near.send(PDV(contexts[CT].id, False, False, OBJECT))
    await trio.aclose_forcefully(near._stream)


ODD = [
    stored,
    aborted_by_the_caller,
    stored,
    aborted_by_the_device,
    rejected,
    given_up_before_the_answer,
    cut_in_an_object,
]


async def call(address: Address, number: int) -> None:
    """One association: mostly a C-ECHO, each third one of the others in turn."""
    body: Callable[[TCPAssociation], Awaitable[None]] = echoed
    if number % 3 == 0:
        body = ODD[number // 3 % len(ODD)]
    near = await association.connect(address.host, address.port)
    try:
        await body(near)
    finally:
        await near.aclose()


async def in_a_row(address: Address, count: int, lanes: int = 1) -> None:
    """`count` associations, one after the other on each of some lanes."""

    start = trio.current_time()

    async def lane(first: int) -> None:
        for number in range(first, count, lanes):
            await trio.sleep_until(start + number / FASTEST)
            await call(address, number)

    async with trio.open_nursery() as nursery:
        for first in range(lanes):
            nursery.start_soon(lane, first)


async def at_once(address: Address, count: int) -> None:
    """`count` associations that are all open at the same time."""
    all_there, there = trio.Event(), 0
    calling = trio.CapacityLimiter(CALLING)

    async def one() -> None:
        nonlocal there
        async with calling:
            near = await association.connect(address.host, address.port)
            try:
                contexts = await negotiated(near, "DEVICE")
            except BaseException:
                await near.aclose()
                raise
        try:
            there += 1
            if there == count:
                all_there.set()
            await all_there.wait()
            assert await scu.store(near, contexts[CT], CT, "1.2.3", OBJECT) == 0
            await scu.release(near)
        finally:
            await near.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


# --- what is left ---------------------------------------------------------------------------------


@attrs.frozen
class Footprint:
    """What one process holds."""

    descriptors: int
    threads: int
    memory: int
    rows: dict[str, int]
    open_sessions: int
    objects: int

    @classmethod
    def of(cls, site: Site) -> "Footprint":
        status = Path(f"/proc/{site.pid}/status").read_text()
        values = dict(line.split(":\t", 1) for line in status.splitlines())
        data = site.directory / "data"
        return cls(
            descriptors=len(os.listdir(f"/proc/{site.pid}/fd")),
            threads=int(values["Threads"]),
            memory=int(values["VmRSS"].split()[0]) * 1024,
            rows={
                k: v
                for path in data.glob("*.db")
                if path.name != AUDIT
                for k, v in _rows(path).items()
            },
            open_sessions=_open_sessions(data),
            objects=sum(path.is_file() for path in (data / "stores").rglob("*")),
        )

    def to(self, later: "Footprint", count: int) -> str:
        """What has changed, in words."""
        each = (later.memory - self.memory) / count
        grown = {t: (n, later.rows[t]) for t, n in self.rows.items() if later.rows[t] != n}
        return (
            f"memory {self.memory / 1e6:.1f} to {later.memory / 1e6:.1f} MB ({each:+.0f} bytes"
            f" each), descriptors {self.descriptors} to {later.descriptors}, threads"
            f" {self.threads} to {later.threads}, rows {grown or 'as before'}"
        )


def _rows(database: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return {
            name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
            for (name,) in tables.fetchall()
        }


def _open_sessions(data: Path) -> int:
    """How many sessions a Bridge holds; a Router has no such table."""
    database = data / "bridge.db"
    if not database.exists():
        return 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT count(*) FROM session WHERE ended IS NULL")
        return int(rows.fetchone()[0])


async def footprints(net: Network, address: Address) -> dict[str, Footprint]:
    """Of all processes, once nothing runs any more and no object is left."""
    await at_rest(net)
    await idle_connections_closed(net, address)
    return await at_rest(net)


async def idle_connections_closed(net: Network, address: Address) -> None:
    """Have the Routers' pools hold what one association needs, and no more.

    How many connections with the store a peak leaves is chance, anything up to the turns that
    relay.tunnel.store gives, and they stay for half a minute: more than a leak would be. So all
    are cut, and the next request on each side closes what it finds cut.
    """
    for connection in net.wire.live.difference(net.wire.signalling()):
        connection.cut()
    with trio.fail_after(SETTLING):
        while connections_at(net.bridge.port) > len(net.wire.signalling()):
            await trio.sleep(0.05)
    near = await association.connect(address.host, address.port)
    try:
        await stored(near)
    finally:
        await near.aclose()


def connections_at(port: int) -> int:
    """How many connections the process that listens there has not closed."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established, ended_by_the_peer = "01", "08"
    return sum(
        int(local.rpartition(":")[2], 16) == port and state in {established, ended_by_the_peer}
        for _, local, _, state, *_ in rows
    )


async def at_rest(net: Network) -> dict[str, Footprint]:
    """Wait until no association, session or object is left."""
    sites = [net.bridge, *net.routers.values()]
    with trio.fail_after(SETTLING):
        while True:
            running = [(await site.ask("status"))["associations"] for site in net.routers.values()]
            found = {site.name: Footprint.of(site) for site in sites}
            if not any(running) and not any(f.open_sessions or f.objects for f in found.values()):
                return found
            await trio.sleep(0.5)


async def test_many_associations_leave_nothing_behind(
    tmp_path: Path, full_size: bool, figure: Callable[[str], None]
) -> None:
    row, together, warm_up = (10_000, 100, 500) if full_size else (300, 40, 60)
    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery, two_hospitals(tmp_path / "net") as net:
        limits = ServerLimits(associations=together, waiting_per_address=together)
        nursery.start_soon(partial(listener.serve, listeners, device, limits=limits))
        many = ("--maximum-associations", str(together))
        await net.device("A", "CALLER", *many)
        await net.publish("B", "DEVICE", port, EVERYTHING, *many)
        await net.grant(owner="B", grantee="A", ae_title="DEVICE", services=EVERYTHING)
        address = net.address("A", "DEVICE")
        for _ in range(3):  # until the memory for the peak is there, which the allocator keeps
            await at_once(address, together)
        await in_a_row(address, warm_up, lanes=LANES)
        before = await footprints(net, address)
        start = trio.current_time()
        await in_a_row(address, row, lanes=LANES)
        rate = row / (trio.current_time() - start)
        await at_once(address, together)
        after = await footprints(net, address)
        count = row + together + 1  # the last is for the idle connections
        figure(f"{row} associations in {LANES} rows, {rate:.0f}/s, and {together} at once")
        for site in (net.bridge, *net.routers.values()):
            figure(f"{site.name}: {before[site.name].to(after[site.name], count)}")
        for site in (net.bridge, *net.routers.values()):
            assert_nothing_left(site, before[site.name], after[site.name], count)
        nursery.cancel_scope.cancel()


def assert_nothing_left(site: Site, was: Footprint, now: Footprint, count: int) -> None:
    assert now.descriptors <= was.descriptors + DESCRIPTORS_BESIDES, site.name
    assert now.threads <= MAXIMUM_THREADS, site.name
    assert now.memory - was.memory <= BYTES_BESIDES + BYTES_EACH[site.mode] * count, site.name
    for table, rows in now.rows.items():
        most = count if table in KEPT_FOR_A_TIME else 0
        assert rows <= was.rows[table] + most, (site.name, table)


async def test_a_device_that_takes_one_association_at_a_time(
    tmp_path: Path, full_size: bool, figure: Callable[[str], None]
) -> None:
    """Many callers at once, none of which is refused; where it lingers it is one association.

    That ends by a release also when its Router is stopped by SIGTERM.
    """
    rounds = 8 if full_size else 2  # of as many callers as there may be at once
    count = rounds * CALLING
    taken, at_a_time, most = 0, 0, 0
    endings: list[str] = []

    async def strict(near: TCPAssociation) -> None:
        nonlocal taken, at_a_time, most
        taken, at_a_time = taken + 1, at_a_time + 1
        most = max(most, at_a_time)
        try:
            await device(near)
        finally:
            at_a_time -= 1
            endings.append(near.cause)

    listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery, two_hospitals(tmp_path / "net") as net:
        nursery.start_soon(partial(listener.serve, listeners, strict))
        await net.device("A", "CALLER")
        one = ("--maximum-associations", "1", "--place-wait", "60")
        await net.publish("B", "DEVICE", port, EVERYTHING, *one)
        await net.grant(owner="B", grantee="A", ae_title="DEVICE", services=EVERYTHING)
        for linger, expected in ((0, count), (30, 1)):
            await net.publish("B", "DEVICE", port, EVERYTHING, *one, "--linger", str(linger))
            taken, start = 0, trio.current_time()
            async with trio.open_nursery() as callers:
                for _ in range(CALLING):
                    callers.start_soon(images, net.address("A", "DEVICE"), rounds)
            rate = count / (trio.current_time() - start)
            figure(f"linger {linger}: {rate:.0f} calls/s, {taken} associations with the device")
            assert (most, taken) == (1, expected)
        assert len(endings) == count
        assert await net.routers["B"].stop() == 0
        with trio.fail_after(5):
            while at_a_time:
                await trio.sleep(0.01)
        assert endings == ["released"] * (count + 1)
        nursery.cancel_scope.cancel()


async def images(address: Address, count: int) -> None:
    """An association for each object, one after the other."""
    for _ in range(count):
        near = await association.connect(address.host, address.port)
        try:
            await stored(near)
        finally:
            await near.aclose()
