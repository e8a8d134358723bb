"""Ten broad queries at once of an archive that has much to say: the Router's memory stays bounded.

Each answer has a comment of 10,000 characters. All answers of ten merged queries would be 80 MB;
a Router holds 32 MiB, and says whose answers are capped. LATE is another archive, which has one
answer after a while: until then all that BULKY says is held.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.interop import peers
from tests.interop.federated import Asked, find_by_pynetdicom
from tests.network import Network, network

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

MiB = 2**20

AT_ONCE = 10
COUNT, SIZE = 800, 10_000

# Seconds until LATE answers. BULKY has filled what a Router holds by then, or it is passed on.
LATE = 10

# 32 MiB of answers that are held (relay.router.federation.held), and what the pieces on their way
# cost in ten associations with the callers and ten with the archive.
BOUND = 48 * MiB

KEYS = {"StudyDate": "20000101-"}


@pytest.mark.parametrize("answers", ["merged", pytest.param("streamed", marks=pytest.mark.full)])
async def test_ten_broad_queries_at_once_hold_memory_flat(
    tmp_path: Path, answers: str, full_size: bool, figure: Callable[[str], None]
) -> None:
    count, rounds = (5000, 3) if full_size else (COUNT, 1)
    settings = {"federation.answers": answers, "federation.queries": AT_ONCE}
    with trio.fail_after(500):
        async with (
            peers.pynetdicom_archive(
                tmp_path / "bulky", "--bulky", f"{count}x{SIZE}", ae_title="BULKY"
            ) as bulky,
            peers.pynetdicom_archive(
                tmp_path / "late", *("--bulky", "1x10", "--slow", str(LATE)), ae_title="LATE"
            ) as late,
            network(tmp_path / "net", "A", router=settings) as net,
        ):
            router = net.routers["A"]
            for peer in (bulky, late):
                await net.publish("A", peer.ae_title, peer.port, "query", "--federation")
            await net.device("A", "VIEWER")
            await ask(net)
            before = router.peak_memory()
            asked: list[Asked] = []
            for _ in range(rounds):
                async with trio.open_nursery() as nursery:
                    for _ in range(AT_ONCE):
                        nursery.start_soon(_ask_into, net, asked)
                grown = router.peak_memory() - before
                figure(f"{answers}: {grown / MiB:.0f} MiB more for ten queries at once")
            assert grown < BOUND
            assert len(asked) == AT_ONCE * rounds
            for one in asked:
                whole = one.status == 0 and len(one.answers) == count + 1
                assert whole or one.comment == "incomplete: BULKY capped"
            if answers == "streamed":
                assert all(one.status == 0 for one in asked)


async def _ask_into(net: Network, asked: list[Asked]) -> None:
    asked.append(await ask(net))


async def ask(net: Network) -> Asked:
    target = net.address("A", "FEDERATION")
    return await trio.to_thread.run_sync(
        find_by_pynetdicom, target, "STUDY", KEYS, ["StudyComments"], "VIEWER"
    )
