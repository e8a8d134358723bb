"""How associations end when people end them: revocation, a grant taken back, SIGTERM."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.interop import peers
from tests.network import Network, network
from tests.tap import Tapped, pdus, tap

pytestmark = pytest.mark.timeout(120)

# What DESIGN promises for a revoked Router, grant or device; a command's own start is not in it.
REVOCATION = 5.0

A_ASSOCIATE_AC, P_DATA, A_ABORT = 2, 4, 7


@asynccontextmanager
async def stuck_association(directory: Path) -> AsyncIterator[tuple[Network, Tapped, Tapped]]:
    """A's device waits on B's, which does not answer: what A's has exchanged, and what B's."""
    async with (
        peers.pynetdicom_scp(
            directory / "slow", "--slow", "3600", "--answers", "1", ae_title="SLOW"
        ) as slow,
        tap(peers.Address(slow.port, "SLOW")) as far,
        network(directory / "net", "A", "B") as net,
        tap(net.address("A", "SLOW")) as near,
        trio.open_nursery() as nursery,
    ):
        await net.device("A", "FINDSCU")
        await net.publish("B", "SLOW", far.address.port, "query")
        await net.grant(owner="B", grantee="A", ae_title="SLOW", services="query")
        nursery.start_soon(peers.findscu, near.address, "QueryRetrieveLevel=STUDY")
        with trio.fail_after(30):
            while not (far.associations and kinds(far.associations[0].requested)[-1:] == [P_DATA]):
                await trio.sleep(0.02)
        yield net, near.associations[0], far.associations[0]
        nursery.cancel_scope.cancel()


def kinds(stream: bytearray) -> list[int]:
    """The types of the PDUs that a device was sent."""
    return [kind for kind, _ in pdus(bytes(stream))]


async def aborted(*streams: bytearray) -> None:
    """Return when every one of these devices was sent an A-ABORT; fail if that takes too long."""
    with trio.fail_after(REVOCATION):
        while not all(kinds(stream)[-1] == A_ABORT for stream in streams):
            await trio.sleep(0.02)


async def revoke_router(net: Network) -> None:
    (row,) = [r for r in await net.bridge.ask("router", "list") if r["name"] == "Hospital A"]
    await net.bridge.relay("router", "revoke", row["fingerprint"])


async def remove_grant(net: Network) -> None:
    await net.routers["B"].relay("grant", "remove", "1")


async def remove_device(net: Network) -> None:
    await net.routers["B"].relay("device", "remove", "SLOW")


@pytest.mark.parametrize("end", [revoke_router, remove_grant, remove_device])
async def test_what_is_taken_back_ends_live_associations_at_once(
    end: Callable[[Network], Awaitable[None]], tmp_path: Path
) -> None:
    async with stuck_association(tmp_path) as (net, near, far):
        await end(net)
        await aborted(far.requested)
        if end is not revoke_router:  # a Router that was shut out is told nothing any more
            await aborted(near.answered)
        async with tap(net.address("A", "SLOW")) as again:
            result = await peers.findscu(again.address, "QueryRetrieveLevel=STUDY")
            assert result.status != 0
            assert A_ASSOCIATE_AC not in kinds(again.associations[0].answered)


async def test_sigterm_lets_associations_end_then_aborts_them_and_exits_clean(
    tmp_path: Path,
) -> None:
    async with stuck_association(tmp_path) as (net, near, far):
        assert await net.routers["A"].stop(signal.SIGTERM) == 0
        await aborted(near.answered, far.requested)
        assert await net.bridge.stop(signal.SIGTERM) == 0
        assert await net.routers["B"].stop(signal.SIGTERM) == 0
