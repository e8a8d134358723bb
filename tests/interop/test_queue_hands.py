"""People's hands on the queue, between real processes: dead letters, pauses, a wait, a restart."""

from collections.abc import Sequence
from pathlib import Path

import trio

from tests import images
from tests.hospitals import make
from tests.images import Image
from tests.interop import peers
from tests.network import Network, network

# A delivery session over loopback, on a busy machine.
DELIVERY = 60.0


async def queued(net: Network, peer: peers.Peer) -> None:
    """PACS of B is `peer`, and what A sends there is queued."""
    await net.publish("B", "PACS", peer.port, "echo,store")
    await net.grant(owner="B", grantee="A", ae_title="PACS", services="echo,store")
    await net.routers["A"].relay("alias", "add", "PACS_B", "PACS")
    await net.routers["A"].relay("destination", "add", "PACS_B", "--queued")


def assert_all_there(peer: peers.Peer, series: Sequence[Image]) -> None:
    there = sorted(peers.data_set_of(path) for path in peer.stored())
    assert there == sorted(image.data_set() for image in series)


async def test_a_dead_letter_says_why_and_is_delivered_once_the_device_is_mended(
    tmp_path: Path,
) -> None:
    folder = make(tmp_path / "files")
    series = images.make_series(folder, 3, size=64)
    async with network(tmp_path / "net", "A", "B") as net:
        router = net.routers["A"]
        async with peers.pynetdicom_scp(tmp_path / "choosy", "--status", "A900") as choosy:
            await queued(net, choosy)
            with trio.fail_after(DELIVERY):
                said = await router.relay("send", "PACS_B", str(folder), "--wait", check=False)
        assert "delivered 0 of 3 objects to PACS_B" in said
        why = "A900, data set does not match SOP class"
        assert said.count(f"failed: {why}") == 3
        (row,) = await router.ask("queue", "list")
        assert (row["local"], row["failed"], row["waiting"]) == ("PACS_B", 3, 0)
        assert why in await router.relay("queue", "list", "--to", "PACS_B", "--state", "failed")
        assert "objects for PACS cannot be delivered" in await router.relay("status")
        await router.relay("queue", "discard", "1", "--yes")
        async with peers.storescp(tmp_path / "mended") as mended:
            await net.publish("B", "PACS", mended.port, "echo,store")
            await router.relay("queue", "retry", "--to", "PACS_B", "--state", "failed")
            with trio.fail_after(DELIVERY):
                while (await router.ask("queue", "list"))[0]["delivered"] < 2:
                    await trio.sleep(0.1)
            (row,) = await router.ask("queue", "list")
            assert (row["discarded"], row["failed"], row["waiting"]) == (1, 0, 0)
            first = (await router.ask("queue", "show", "1"))["sop_instance"]
            assert_all_there(mended, [i for i in series if i.sop_instance != first])
        for image in series:
            assert image.sop_instance not in router.output() + net.routers["B"].output()


async def test_a_pause_outlives_a_restart_and_nothing_is_delivered_until_it_ends(
    tmp_path: Path,
) -> None:
    folder = make(tmp_path / "files")
    series = images.make_series(folder, 3, size=64)
    async with peers.storescp(tmp_path / "scp") as scp, network(tmp_path / "net", "A", "B") as net:
        router = net.routers["A"]
        await queued(net, scp)
        await router.relay("queue", "pause", "PACS_B", "--reason", "moves house")
        with trio.fail_after(DELIVERY):
            said = await router.relay("send", "PACS_B", str(folder))
        assert "accepted for delivery 3 of 3 objects" in said
        await router.stop()
        await router.start()
        said = await router.relay(
            *("send", "PACS_B", str(folder), "--wait", "--timeout", "2"), check=False
        )
        assert "3 waited still when the time was over" in said
        assert "paused by a person, moves house" in said
        (row,) = await router.ask("queue", "list")
        assert (row["waiting"], row["delivered"]) == (6, 0)
        assert row["paused"]["reason"] == "moves house"
        assert not scp.stored()
        await router.relay("queue", "discard", "4", "5", "6", "--yes")
        await router.relay("queue", "resume", "PACS")
        with trio.fail_after(DELIVERY):
            while (await router.ask("queue", "list"))[0]["waiting"]:
                await trio.sleep(0.1)
        assert_all_there(scp, series)
