"""What one Router has in the store is counted, and bounded."""

import threading
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
import trio.testing

from relay.bridge.metering import Meter, MeteredStore
from relay.errors import Refused
from relay.providers import files
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
    assert meter.used_by(ROUTER) == 600
    with pytest.raises(Refused, match="too much") as caught:
        await put(store, "ab/2", 401)
    assert caught.value.status == 507
    await store.remove("ab/1")
    await store.remove("ab/1")
    assert meter.used_by(ROUTER) == 0
    await put(store, "ab/2", 401)


async def test_one_router_does_not_use_up_anothers(store: MeteredStore, meter: Meter) -> None:
    meter.signed("ab/1", ROUTER)
    meter.signed("cd/1", OTHER)
    await put(store, "ab/1", 1000)
    await put(store, "cd/1", 1000)
    assert (meter.used_by(ROUTER), meter.used_by(OTHER)) == (1000, 1000)


async def test_a_second_put_costs_nothing(store: MeteredStore, meter: Meter) -> None:
    meter.signed("ab/1", ROUTER)
    await put(store, "ab/1", 600)
    with pytest.raises(Refused, match="exists") as caught:
        await put(store, "ab/1", 600)
    assert caught.value.status == 409
    assert meter.used_by(ROUTER) == 600


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
    assert meter.used_by(ROUTER) == 0
    await put(store, "ab/1", 600)


async def test_every_upload_of_a_name_counts_while_it_is_on_its_way(
    store: MeteredStore, meter: Meter
) -> None:
    """Or a small one that hangs would let in a large one beside it for nothing."""
    meter.signed("ab/1", ROUTER)
    hangs = trio.Event()

    async def body(size: int, until: trio.Event | None = None):
        if until is not None:
            await until.wait()
        yield bytes(size)

    async def small() -> None:
        with pytest.raises(Refused, match="exists"):
            await store.write("ab/1", body(1, hangs), 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(small)
        await trio.testing.wait_all_tasks_blocked()
        async with aclosing(body(1000)) as stream:
            with pytest.raises(Refused, match="too much"):
                await store.write("ab/1", stream, 1000)
        await store.write("ab/1", body(900), 900)
        assert meter.used_by(ROUTER) == 901
        hangs.set()
    assert meter.used_by(ROUTER) == 900
    await store.remove("ab/1")
    assert meter.used_by(ROUTER) == 0


async def test_a_put_again_while_it_is_deleted_is_none(
    store: MeteredStore, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be there still, and count for nobody."""
    meter.signed("ab/1", ROUTER)
    real, going, go_on = files.unlink_all, threading.Event(), threading.Event()

    def slow(paths: list[str]) -> object:
        gone = real(paths)
        going.set()
        assert go_on.wait(10)
        return gone

    monkeypatch.setattr(files, "unlink_all", slow)
    whole = trio.Event()

    async def late():
        yield bytes(100)
        await whole.wait()
        yield bytes(200)

    async def begun_before(task_status) -> None:
        task_status.started()
        with pytest.raises(Refused, match="exists"):
            await store.write("ab/1", late(), 300)
        go_on.set()

    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                await nursery.start(begun_before)
                await trio.testing.wait_all_tasks_blocked()
                await put(store, "ab/1", 300)
                nursery.start_soon(store.remove, "ab/1")
                await trio.to_thread.run_sync(going.wait)
                with pytest.raises(Refused, match="exists") as caught:
                    await put(store, "ab/1", 300)
                assert caught.value.status == 409
                whole.set()
    finally:
        go_on.set()
    assert meter.used_by(ROUTER) == 0
    assert not store._store.has("ab/1")
    await put(store, "ab/1", 300)
    assert meter.used_by(ROUTER) == 300


def test_swept(meter: Meter) -> None:
    meter.signed("ab/1", ROUTER)
    meter.stored("ab/1", meter.charge("ab/1", 600), 600)
    meter.release(["ab/1", "ab/never"], forget=True)
    assert meter.used_by(ROUTER) == 0
    assert meter.charge("ab/1", 600) is None  # the whole store's bound alone holds
    meter.signed("ab/1", ROUTER)  # while it is on its way: it counts for nobody to its end
    meter.failed(None, 600)
    assert meter.used_by(ROUTER) == 0


def test_swept_while_it_was_on_its_way(meter: Meter) -> None:
    meter.signed("ab/1", ROUTER)
    router = meter.charge("ab/1", 600)
    meter.release(["ab/1"], forget=True)
    meter.stored("ab/1", router, 600)
    assert meter.used_by(ROUTER) == 0


def test_without_a_store_of_its_own() -> None:
    store = MeteredStore(lambda: None, Meter())
    with pytest.raises(Refused, match="no store of its own") as caught:
        store.verify("GET", "ab/1", b"")
    assert caught.value.status == 404
