"""What one Router has in the store is counted, and bounded."""

from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from relay.bridge.metering import Meter, MeteredStore
from relay.errors import Refused
from relay.providers.disk import open_disk_provider

ROUTER, OTHER = b"r" * 32, b"o" * 32


@pytest.fixture
def meter() -> Meter:
    return Meter(maximum=1000)


@pytest.fixture
async def store(tmp_path: Path, meter: Meter):
    async with open_disk_provider(
        tmp_path, base_url="http://x", key=b"k", space=2**20, free_floor=0
    ) as disk:
        yield MeteredStore(lambda: disk, meter)


async def put(store: MeteredStore, name: str, size: int) -> None:
    async def body():
        yield bytes(size)

    async with aclosing(body()) as stream:
        await store.write(name, stream, size)


async def test_counted_and_released(store: MeteredStore, meter: Meter) -> None:
    meter.signed("ab/1", ROUTER)
    meter.signed("ab/2", ROUTER)
    await put(store, "ab/1", 600)
    assert meter.stored_by(ROUTER) == 600
    with pytest.raises(Refused, match="too much") as caught:
        await put(store, "ab/2", 401)
    assert caught.value.status == 507
    await store.remove("ab/1")
    await store.remove("ab/1")
    assert meter.stored_by(ROUTER) == 0
    await put(store, "ab/2", 401)


async def test_one_router_does_not_use_up_anothers(store: MeteredStore, meter: Meter) -> None:
    meter.signed("ab/1", ROUTER)
    meter.signed("cd/1", OTHER)
    await put(store, "ab/1", 1000)
    await put(store, "cd/1", 1000)
    assert (meter.stored_by(ROUTER), meter.stored_by(OTHER)) == (1000, 1000)


async def test_a_second_put_costs_nothing(store: MeteredStore, meter: Meter) -> None:
    meter.signed("ab/1", ROUTER)
    await put(store, "ab/1", 600)
    with pytest.raises(Refused, match="exists") as caught:
        await put(store, "ab/1", 600)
    assert caught.value.status == 409
    assert meter.stored_by(ROUTER) == 600


async def test_what_is_stored_exists_though_there_is_no_room(tmp_path: Path) -> None:
    """A restart has forgotten whose it is; the Router puts it again."""
    meter = Meter(maximum=1000)
    async with open_disk_provider(
        tmp_path, base_url="http://x", key=b"k", space=2**20, free_floor=0
    ) as disk:
        store = MeteredStore(lambda: disk, meter)
        await put(store, "ab/1", 600)
        for name in ("ab/1", "ab/2"):
            meter.signed(name, ROUTER)
        await put(store, "ab/2", 600)
        with pytest.raises(Refused, match="exists") as caught:
            await put(store, "ab/1", 600)
    assert caught.value.status == 409


async def test_an_upload_that_fails_costs_nothing(store: MeteredStore, meter: Meter) -> None:
    meter.signed("ab/1", ROUTER)

    async def half():
        yield b"half"
        await trio.sleep_forever()

    with trio.move_on_after(0.05):
        await store.write("ab/1", half(), 600)
    assert meter.stored_by(ROUTER) == 0
    await put(store, "ab/1", 600)


def test_swept(meter: Meter) -> None:
    meter.signed("ab/1", ROUTER)
    meter.charge("ab/1", 600)
    meter.release(["ab/1", "ab/never"], forget=True)
    assert meter.stored_by(ROUTER) == 0
    meter.charge("ab/1", 600)  # of nobody's now: the whole store's bound alone holds
    assert meter.stored_by(ROUTER) == 0


def test_without_a_store_of_its_own() -> None:
    store = MeteredStore(lambda: None, Meter())
    with pytest.raises(Refused, match="no store of its own") as caught:
        store.verify("GET", "ab/1", {})
    assert caught.value.status == 404
