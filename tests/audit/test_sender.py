"""Sending the audit: all of it, in order, over breaks and restarts, to the right one alone."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from relay.audit import sender as module
from relay.audit.audit import Audit
from relay.audit.sender import Collector, Sender
from relay.web.tls import client_tls
from tests.audit.collectors import listening
from tests.audit.samples import alert, kinds, recorded, running
from tests.certificates import Authority
from tests.ports import Ports

_ports = Ports(9_000, 400)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long in a test, though in the same order."""
    for name, seconds in (("SETTLE", 0.2), ("FIRST_PAUSE", 0.02), ("LONGEST_PAUSE", 0.05)):
        monkeypatch.setattr(module, name, seconds)


@asynccontextmanager
async def sending(audit: Audit, collector: Collector) -> AsyncIterator[Sender]:
    sender = Sender(audit, collector)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.run)
        yield sender
        nursery.cancel_scope.cancel()


def words(message: bytes) -> str:
    found = re.search(rb'UserID="([^"]*)"', message)
    assert found is not None
    return found[1].decode()


async def until(holds) -> None:
    with trio.fail_after(30):
        while not holds():
            await trio.sleep(0.01)


async def test_all_entries_are_sent_in_their_order(tmp_path: Path, authority: Authority) -> None:
    async with running(tmp_path) as audit, listening(authority) as (fake, collector):
        await recorded(audit, *kinds())
        async with sending(audit, collector) as sender:
            await fake.wait_for(len(kinds()))
            await recorded(audit, *(alert(str(n)) for n in range(5)))
            await fake.wait_for(len(kinds()) + 5)
            await until(lambda: sender.statistics().sent == len(kinds()) + 5)
            statistics = sender.statistics()
        assert (statistics.connected, statistics.behind, statistics.failures) == (True, 0, 0)
        assert fake.connections == 1
        assert [m[:4] for m in fake.messages[:2]] == [b"<85>", b"<85>"]


async def test_what_was_sent_is_not_sent_again_after_a_restart(
    tmp_path: Path, authority: Authority
) -> None:
    async with listening(authority) as (fake, collector):
        async with running(tmp_path) as audit:
            await recorded(audit, *kinds())
            async with sending(audit, collector) as sender:
                await until(lambda: sender.statistics().sent == len(kinds()))
        async with running(tmp_path) as audit, sending(audit, collector) as sender:
            await recorded(audit, alert("after the restart"))
            await until(lambda: sender.statistics().sent == len(kinds()) + 1)
        assert len(fake.messages) == len(kinds()) + 1


async def test_what_was_sent_just_before_a_break_is_sent_again_the_same(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE", 1000.0)
    async with running(tmp_path) as audit, listening(authority) as (fake, collector):
        await recorded(audit, *kinds())
        async with sending(audit, collector) as sender:
            await fake.wait_for(len(kinds()))
            await fake.cut()
            await fake.wait_for(2 * len(kinds()))
            assert sender.statistics().failures >= 1
        first, second = fake.messages[: len(kinds())], fake.messages[len(kinds()) :]
        assert first == second


async def test_nothing_is_lost_over_many_breaks(tmp_path: Path, authority: Authority) -> None:
    async with running(tmp_path) as audit, listening(authority) as (fake, collector):
        async with sending(audit, collector) as sender:
            for n in range(20):
                await recorded(audit, *kinds())
                await fake.wait_for(n + 1)
                await fake.cut()
            await until(lambda: sender.statistics().sent == 20 * len(kinds()))
        entries = [e for n in range(0, 300, 100) for e in await audit.following(n, 100)]
        host = module.host_name()
        sent = {module.message(audit.event_of(e), audit.source, host) for e in entries}
        assert set(fake.messages) == sent


async def test_a_collector_that_comes_later_gets_all(tmp_path: Path, authority: Authority) -> None:
    port = _ports.free()
    async with running(tmp_path) as audit:
        await recorded(audit, *kinds())
        nowhere = Collector("127.0.0.1", port, client_tls(authority.file))
        async with sending(audit, nowhere) as sender:
            await until(lambda: sender.statistics().failures >= 2)
            statistics = sender.statistics()
            assert not statistics.connected
            assert statistics.behind == len(kinds())
            assert "connect" in statistics.last_failure
            async with listening(authority, port=port) as (fake, _):
                await fake.wait_for(len(kinds()))


async def test_a_stranger_gets_nothing(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority(tmp_path / "stranger")
    async with running(tmp_path) as audit, listening(stranger) as (fake, collector):
        await recorded(audit, *kinds())
        known = Collector(collector.host, collector.port, client_tls(authority.file))
        async with sending(audit, known) as sender:
            await until(lambda: sender.statistics().failures >= 2)
            assert "certificate verify failed" in sender.statistics().last_failure
        assert fake.messages == []


async def test_a_collector_that_asks_who_we_are_is_told(
    tmp_path: Path, authority: Authority
) -> None:
    async with (
        running(tmp_path) as audit,
        listening(authority, clients=True) as (fake, collector),
    ):
        await recorded(audit, *kinds())
        async with sending(audit, collector) as sender:
            await until(lambda: sender.statistics().failures >= 1)
        identity = authority.issue("router.example")
        collector.ssl_context.load_cert_chain(identity.certificate, identity.private_key)
        async with sending(audit, collector):
            await fake.wait_for(len(kinds()))


async def test_a_collector_that_takes_nothing_holds_nobody_up_and_is_warned_of(
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "WARN_AFTER", 0.5)
    async with running(tmp_path) as audit:
        nowhere = Collector("127.0.0.1", _ports.free(), client_tls(authority.file))
        async with sending(audit, nowhere) as sender:
            await recorded(audit, *kinds())
            assert sender.lagging() is None
            await until(lambda: sender.statistics().lag >= 1)
            await until(lambda: sender.statistics().lag >= 2)
            lagging = sender.lagging()
            assert lagging is not None
            assert lagging.entries == len(kinds())
            assert lagging.lag >= 2
            assert str(nowhere) in lagging.words
            assert sender.statistics().last_failure in lagging.words
    assert "audit collector is behind" in capsys.readouterr().out
