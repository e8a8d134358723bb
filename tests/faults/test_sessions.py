"""What goes wrong on purpose while objects are on their way: nothing is lost, nothing invented."""

import random
import signal
from pathlib import Path

import pytest
import trio

from tests import images
from tests.hospitals import assert_all_arrived, make, publish, send_all, two_hospitals
from tests.images import Image
from tests.interop import peers
from tests.tap import tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]


async def test_a_killed_bridge_is_only_a_pause(tmp_path: Path, full_size: bool) -> None:
    """Kill and restart the Bridge in the middle of a C-STORE of many objects: all succeed."""
    count = 200 if full_size else 60
    series = images.make_series(make(tmp_path / "ct"), count)
    async with (
        peers.storescp(tmp_path / "scp") as scp,
        two_hospitals(tmp_path / "net", "STORESCU") as net,
    ):
        await publish(net, "STORESCP", scp.port)
        async with tap(net.address("A", "STORESCP")) as near, trio.open_nursery() as nursery:
            nursery.start_soon(send_all, near.address, tmp_path / "ct")
            with trio.fail_after(120):
                while len(scp.stored()) < count // 4:
                    await trio.sleep(0.02)
            await net.bridge.stop(signal.SIGKILL)
            await net.bridge.start()
        assert_all_arrived(near, scp.stored(), series)


async def test_cut_websockets_are_only_a_pause(tmp_path: Path, full_size: bool) -> None:
    """Cut each Router's WebSocket at random through a send of many objects: all succeed."""
    count, seed = (500 if full_size else 80), 7
    series = images.make_series(make(tmp_path / "ct"), count, size=256)
    schedule = random.Random(seed)
    async with (
        peers.storescp(tmp_path / "scp") as scp,
        two_hospitals(tmp_path / "net", "STORESCU") as net,
    ):
        await publish(net, "STORESCP", scp.port)
        async with tap(net.address("A", "STORESCP")) as near, trio.open_nursery() as nursery:
            sent = trio.Event()

            async def send() -> None:
                await send_all(near.address, tmp_path / "ct")
                sent.set()

            nursery.start_soon(send)
            cuts, next_cut = 0, schedule.randint(5, 25)
            while not sent.is_set():
                with trio.move_on_after(0.01):
                    await sent.wait()
                if len(scp.stored()) >= next_cut and (live := net.wire.signalling()):
                    schedule.choice(live).cut()
                    cuts += 1
                    next_cut += schedule.randint(5, 25)
        assert cuts >= count // 30
        assert_all_arrived(near, scp.stored(), series)


async def test_a_frozen_session_delays_no_other(tmp_path: Path, full_size: bool) -> None:
    """One association whose device stops reading, among many: the others finish."""
    others = 99 if full_size else 12
    series = images.make_series(make(tmp_path / "ct"), 20)
    async with (
        peers.pynetdicom_scp(tmp_path / "frozen", "--slow", "3600", ae_title="FROZEN") as frozen,
        peers.storescp(tmp_path / "scp") as scp,
        two_hospitals(tmp_path / "net", "STORESCU") as net,
        trio.open_nursery() as nursery,
    ):
        await publish(net, "FROZEN", frozen.port)
        await publish(net, "STORESCP", scp.port)
        nursery.start_soon(peers.storescu, net.address("A", "FROZEN"), tmp_path / "ct")
        with trio.fail_after(30):
            while not (await net.routers["A"].ask("status"))["associations"]:
                await trio.sleep(0.1)
        frozen.process.send_signal(signal.SIGSTOP)
        limiter = trio.CapacityLimiter(8)  # processes of storescu on two cores

        async def send_one(image: Image) -> None:
            async with limiter:
                result = await peers.storescu(net.address("A", "STORESCP"), image.path)
                assert result.status == 0

        async with trio.open_nursery() as senders:
            for number in range(others):
                senders.start_soon(send_one, series[number % len(series)])
        assert len({path.name for path in scp.stored()}) >= min(others, len(series))
        frozen.process.send_signal(signal.SIGKILL)
        nursery.cancel_scope.cancel()
