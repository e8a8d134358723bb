"""Two hospitals with S3 between them: real images, a store that fails, URLs that expire."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests import images
from tests.hospitals import assert_all_arrived, make, publish, send_all, two_hospitals
from tests.interop import peers
from tests.network import Network
from tests.tap import pdus, tap

from .faulty import Fault, FaultyProxy, faulty_proxy
from .seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

# Seconds. Short enough to run out while one request hangs, long enough for one that does not.
LIFETIME = 3

# Python runs this at its start: the Bridge's own process gives out URLs of a short life.
SHORT_LIVES = f"""
from relay.bridge import sessions
sessions.PUT_LIFETIME = sessions.GET_LIFETIME = sessions.DELETE_LIFETIME = {LIFETIME}
"""


@pytest.fixture
async def proxy(seaweed: Seaweed, tmp_path: Path):
    async with faulty_proxy(tmp_path / "proxy", seaweed.port, seaweed.trust()) as proxy:
        yield proxy


@asynccontextmanager
async def hospitals_with_s3(
    folder: Path, seaweed: Seaweed, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Network]:
    """A network set up as docs/providers.md says, its store behind the faulty proxy."""
    monkeypatch.setenv("RELAY_S3_KEY", ACCESS_KEY)
    secret = folder / "s3-secret"
    secret.write_text(SECRET_KEY)
    given = seaweed.settings(
        endpoint=proxy.endpoint,
        ca_file=str(proxy.ca_file),
        access_key="env:RELAY_S3_KEY",
        secret_key=f"file:{secret}",
    )
    allowed = {"allowed_origins": [proxy.endpoint]}
    async with two_hospitals(folder / "net", "STORESCU", router=allowed) as net:
        with net.ca_file.open("ab") as file:
            file.write(proxy.ca_file.read_bytes())
        for site in net.routers.values():
            await site.stop()
            await site.start()
        settings = (f"{key}={value}" for key, value in given.items())
        await net.bridge.relay("provider", "add", "cloud", "s3", *settings)
        await net.bridge.relay("provider", "use", "cloud", "disk")
        yield net
        everything = "".join(site.output() for site in (net.bridge, *net.routers.values()))
        assert SECRET_KEY not in everything
        assert "X-Amz-Signature" not in everything


async def test_images_arrive_whatever_the_store_does(
    tmp_path: Path, seaweed: Seaweed, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = make(tmp_path / "short")
    (short / "sitecustomize.py").write_text(SHORT_LIVES)
    monkeypatch.setenv("PYTHONPATH", str(short))
    series = images.make_series(make(tmp_path / "series"), 6)
    async with (
        peers.storescp(tmp_path / "scp") as scp,
        hospitals_with_s3(tmp_path, seaweed, proxy, monkeypatch) as net,
        tap(net.address("A", "STORESCP")) as near,
    ):
        await publish(net, "STORESCP", scp.port)
        proxy.seen.clear()
        # Each kind of fault once, in the middle of the rest; the one that hangs outlasts its URL.
        for method in ("PUT", "GET"):
            proxy.fail(method, *Fault)
        await send_all(near.address, tmp_path / "series")
        assert_all_arrived(near, scp.stored(), series)

        assert {f"PUT {fault.name}" for fault in Fault} <= set(proxy.seen)
        assert {f"GET {fault.name}" for fault in Fault} <= set(proxy.seen)
        # A URL that had expired was refused by the store, and signed again.
        assert ("PUT", 403) in proxy.answered
        # An answer that got lost was asked for again, and the object found its own place taken.
        assert ("PUT", 412) in proxy.answered
        # Readers delete what they have, and the sweeper the rest.
        provider = seaweed.provider(prefix=await _prefix(net))
        with trio.fail_after(60):
            while [found async for found in provider.list("")]:
                await trio.sleep(0.2)


async def test_a_store_that_is_down_for_longer_than_the_window(
    tmp_path: Path, seaweed: Seaweed, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DESIGN §11: pause and retry until the window ends, then A-ABORT; nothing half-delivered."""
    [image] = images.make_series(make(tmp_path / "series"), 1)
    async with (
        peers.storescp(tmp_path / "scp") as scp,
        hospitals_with_s3(tmp_path, seaweed, proxy, monkeypatch) as net,
        tap(net.address("A", "STORESCP")) as near,
    ):
        await publish(net, "STORESCP", scp.port)
        await net.device("A", "STORESCU", "--resume-window", "4")
        proxy.always["PUT"] = Fault.SLOW_DOWN_503
        proxy.seen.clear()
        result = await peers.storescu(near.address, image.path)
        assert result.status != 0
        assert [kind for kind, _ in pdus(bytes(near.associations[-1].answered))] == [2, 7]
        assert proxy.seen.count("PUT SLOW_DOWN_503") > 3
        assert scp.stored() == []
        # And what comes afterwards arrives.
        proxy.always.clear()
        await send_all(near.address, tmp_path / "series")
        assert len(scp.stored()) == 1


async def test_new_sessions_use_the_next_store(
    tmp_path: Path, seaweed: Seaweed, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = images.make_series(make(tmp_path / "series"), 2)
    async with (
        peers.storescp(tmp_path / "scp") as scp,
        hospitals_with_s3(tmp_path, seaweed, proxy, monkeypatch) as net,
        tap(net.address("A", "STORESCP")) as near,
    ):
        await publish(net, "STORESCP", scp.port)
        assert (await net.bridge.ask("status"))["store"] == "cloud"
        for method in ("PUT", "GET", "DELETE", "POST"):
            proxy.always[method] = Fault.ERROR_500
        # A session that ends has the sweeper find out, if nothing else does before.
        assert (await peers.echoscu(near.address, calling="STORESCU")).status == 0
        with trio.fail_after(60):
            while (await net.bridge.ask("status"))["store"] != "disk":
                await trio.sleep(0.2)
        await send_all(near.address, tmp_path / "series")
        assert len(scp.stored()) == len(series)
        [cloud, disk] = await net.bridge.ask("provider", "list")
        assert (cloud["name"], cloud["failing"], disk["failing"]) == ("cloud", True, False)
        assert cloud["last_failure"].endswith(("answered 500", "answered InternalError"))
        assert (await net.bridge.ask("status"))["failing_stores"] == ["cloud"]
        # The first session is not swept yet: the store stays for it.
        await net.bridge.relay("provider", "use", "disk")
        assert "rest on it" in await net.bridge.relay("provider", "remove", "cloud")

        proxy.always.clear()
        provider = seaweed.provider(prefix=await _prefix(net))
        with trio.fail_after(60):
            while (await net.bridge.ask("status"))["failing_stores"]:
                await trio.sleep(0.2)
        assert [found async for found in provider.list("")] == []


async def _prefix(net: Network) -> str:
    """The folder of the store, from the Bridge's database."""
    with sqlite3.connect(net.bridge.directory / "data" / "bridge.db") as database:
        [[settings]] = database.execute("SELECT settings FROM provider WHERE name = 'cloud'")
    database.close()
    assert SECRET_KEY not in settings
    return str(json.loads(settings)["prefix"])
