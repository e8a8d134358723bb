"""The Router's side of the network: what comes over signalling ends one session at most."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import structlog.testing
import trio
import trio.testing

from relay.errors import DatabaseError, Refusal, Refused
from relay.identity import Identity
from relay.invitation import Invitation
from relay.router import network as module
from relay.router.network import NetworkSide, Outside
from relay.router.node import Node, unix_time
from relay.router.peers import Trust
from relay.signalling import messages
from relay.signalling.authentication import NOT_LET_IN
from relay.tunnel.handshake import PendingOpening, Purpose, open_session
from tests.router.fakes import NETWORK, hospital

CALLER = Identity.from_seed(b"c" * 32)
OUTSIDE = Outside(ssl_context=None, proxy=None, allowed_origins=(), trust=Trust.FIRST_USE)  # type: ignore[arg-type]


def opening(node: Node) -> tuple[PendingOpening, messages.Open]:
    key = next(iter(node.keyring.pairs.values())).public
    pending = open_session(
        CALLER,
        NETWORK,
        node.identity.public,
        key,
        "PACS",
        b"request",
        Purpose.ASSOCIATION,
        unix_time(),
        secrets.token_bytes,
    )
    return pending, messages.Open(
        pending.session, CALLER.public, "PACS", pending.opening, pending.sealed_request
    )


@asynccontextmanager
async def side(
    tmp_path: Path, stopping: trio.Event | None = None, maximum: int = 1
) -> AsyncIterator[tuple[Node, NetworkSide, trio.Nursery]]:
    async with hospital(tmp_path / "me") as node, trio.open_nursery() as nursery:
        event = trio.Event() if stopping is None else stopping
        yield node, NetworkSide(node, OUTSIDE, maximum, event), nursery
        nursery.cancel_scope.cancel()


def refused(node: Node, pending: PendingOpening) -> Refusal:
    passed = node.joined().client.network.passed
    (message,) = [m for m in passed if isinstance(m, messages.Refuse)]
    return pending.check_refusal(message.refusal)


async def test_a_stopping_router_takes_no_more_openings(tmp_path: Path) -> None:
    stopping = trio.Event()
    stopping.set()
    async with side(tmp_path, stopping) as (node, made, nursery):
        pending, message = opening(node)
        await made._on_open(node.joined(), nursery, message)
        assert refused(node, pending) is Refusal.BUSY


async def test_openings_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(module, "serve_opening", hangs)
    async with side(tmp_path, maximum=1) as (node, made, nursery):
        for number in range(1 + module.SPARE_OPENINGS):
            message = attrs.evolve(opening(node)[1], router=bytes([number % 2]) * 32)
            await made._on_open(node.joined(), nursery, message)
        pending, message = opening(node)
        await made._on_open(node.joined(), nursery, message)
        assert refused(node, pending) is Refusal.BUSY


async def test_one_peer_does_not_keep_the_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = trio.Event()

    async def hangs(*_: object) -> None:
        await go_on.wait()

    monkeypatch.setattr(module, "serve_opening", hangs)
    async with side(tmp_path, maximum=16) as (node, made, nursery):
        maximum = 16 + module.SPARE_OPENINGS
        for _ in range(maximum - maximum // 4):
            await made._on_open(node.joined(), nursery, opening(node)[1])
        pending, message = opening(node)
        await made._on_open(node.joined(), nursery, message)
        assert refused(node, pending) is Refusal.BUSY
        node.joined().client.network.passed.clear()
        other = attrs.evolve(opening(node)[1], router=bytes(32))
        await made._on_open(node.joined(), nursery, other)
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        await made._on_open(node.joined(), nursery, opening(node)[1])
        await trio.testing.wait_all_tasks_blocked()
        assert not node.joined().client.network.passed


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), DatabaseError("disk full")])
async def test_an_error_ends_its_own_session_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "serve_opening", fails)
    async with side(tmp_path) as (node, made, nursery):
        pending, message = opening(node)
        await made._on_open(node.joined(), nursery, message)
        await trio.testing.wait_all_tasks_blocked()
        assert refused(node, pending) is Refusal.NOT_SPECIFIED


async def test_a_full_disk_does_not_end_signalling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*args: Any) -> None:
        raise DatabaseError("disk full")

    async with side(tmp_path) as (node, made, _):
        monkeypatch.setattr(type(node.joined().directory), "take", full)
        monkeypatch.setattr(Node, "take_ask", full)
        whole = messages.Directory(True, (), (), (), ())
        with structlog.testing.capture_logs() as logs:
            await made._on_directory(node.joined(), whole)
            await made._on_ask(messages.Ask(1, CALLER.public, b""))
    assert [(line["event"], line["why"]) for line in logs] == [
        ("directory not kept", "disk full"),
        ("ask not kept", "disk full"),
    ]


async def test_the_queue_hears_of_each_grant(tmp_path: Path) -> None:
    heard: list[str] = []
    queue: Any = SimpleNamespace(
        couriers=SimpleNamespace(network_changed=lambda: heard.append("couriers")),
        acceptance=SimpleNamespace(network_changed=lambda: heard.append("acceptance")),
    )
    async with side(tmp_path) as (node, made, _):
        made._queue = queue
        await made._on_directory(node.joined(), messages.Granted((), 0))
    assert heard == ["couriers", "acceptance"]


def invitation(network: bytes, number: int) -> Invitation:
    return Invitation("https://b.example", network, bytes([number]) * 16, bytes(32), bytes(16), 1)


async def test_who_is_enrolled_is_told_so(tmp_path: Path) -> None:
    async with side(tmp_path) as (node, made, _):
        joined = node.joined()
        mine = attrs.evolve(joined.membership, invitation=bytes([1]) * 16)
        node.network = attrs.evolve(joined, membership=mine)
        assert await made.enrol(invitation(NETWORK, 1)) is False
        for other in (invitation(b"x" * 16, 2), invitation(NETWORK, 2)):
            with pytest.raises(Refused, match=r"enrolled already, at https://bridge\.example as"):
                await made.enrol(other)


async def test_who_was_revoked_is_told_how_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with side(tmp_path) as (node, made, _):
        joined = node.joined()
        mine = attrs.evolve(joined.membership, invitation=bytes([1]) * 16)
        node.network = attrs.evolve(joined, membership=mine)
        offline = attrs.evolve(
            joined.client.statistics(), connected=False, last_failure="no route to host"
        )
        monkeypatch.setattr(joined.client, "statistics", lambda: offline)
        assert await made.enrol(invitation(NETWORK, 1)) is False
        with pytest.raises(Refused, match="not connected: no route"):
            await made.enrol(invitation(NETWORK, 2))
        shut_out = attrs.evolve(offline, last_failure=f"{NOT_LET_IN} (it hung up)")
        monkeypatch.setattr(joined.client, "statistics", lambda: shut_out)
        for number in (1, 2):
            with pytest.raises(Refused, match=r"it was revoked\. .* move its data_dir") as caught:
                await made.enrol(invitation(NETWORK, number))
            assert caught.value.status == 409
