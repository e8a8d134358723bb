"""The way to a destination: in this hospital, and by the queue or a relayed call to another."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from relay.errors import Outcome, SourceFailed
from relay.router.devices import Device
from relay.router.dicomweb.asked import Asked, Service
from relay.router.dicomweb.part10 import Meta
from relay.router.dicomweb.storing import NotTakenError, open_storage
from relay.router.federation.federation import Federation
from relay.router.federation.settings import FederationSettings
from relay.router.node import Node
from relay.router.queue.state import Queue
from tests.router.dicomweb.objects_made import EXPLICIT, JPEG
from tests.router.dicomweb.stores import Store, stores
from tests.router.fakes import CT, IMPLICIT, hospital, two_hospitals
from tests.router.queue.calls import taking


def asked(node: Node, caller: Device | None = None, queue: Queue | None = None) -> Asked:
    federation = Federation(node, FederationSettings(site_wait=5.0))
    service = Service(federation, queue)
    return Asked(service, caller, federation, "STORE", "http://a/aets/STORE/rs", {})


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def test_a_pair_that_is_new_begins_the_association_anew(tmp_path: Path) -> None:
    store = Store()
    async with hospital(tmp_path, enrolled=False) as node, stores(node, "STORE", store):
        with trio.fail_after(20):
            async with open_storage(asked(node), "STORE") as storage:
                for number, syntax in enumerate((EXPLICIT, EXPLICIT, JPEG, EXPLICIT, JPEG)):
                    meta = Meta(CT, f"1.{number}", syntax)
                    assert await storage.store(meta, pieces(b"ab", b"cd")) == 0
        assert len(store.callings) == 2
        assert set(store.objects.values()) == {(EXPLICIT, b"abcd"), (JPEG, b"abcd")}
        assert store.broken == 0


async def test_what_is_not_taken_is_said_and_others_go_on(tmp_path: Path) -> None:
    store = Store(takes=frozenset({EXPLICIT}))
    async with hospital(tmp_path, enrolled=False) as node, stores(node, "STORE", store):
        with trio.fail_after(20):
            async with open_storage(asked(node), "STORE") as storage:
                with pytest.raises(NotTakenError, match="STORE does not take"):
                    await storage.store(Meta(CT, "1.1", JPEG), pieces(b"ab"))
                assert await storage.store(Meta(CT, "1.2", EXPLICIT), pieces(b"ab")) == 0


async def test_what_fails_in_the_middle_is_not_stored(tmp_path: Path) -> None:
    store = Store()

    async def broken() -> AsyncIterator[bytes]:
        yield b"ab"
        raise OSError("the client has gone")

    async with hospital(tmp_path, enrolled=False) as node, stores(node, "STORE", store):
        with trio.fail_after(20):
            async with open_storage(asked(node), "STORE") as storage:
                with pytest.raises(OSError, match="has gone"):
                    await storage.store(Meta(CT, "1.1", EXPLICIT), broken())
                # It is another association that goes on.
                assert await storage.store(Meta(CT, "1.2", EXPLICIT), pieces(b"ab")) == 0
        assert list(store.objects) == ["1.2"]
        assert store.broken == 1


async def test_a_destination_that_is_nowhere_is_away(tmp_path: Path) -> None:
    async with hospital(tmp_path) as node:
        with trio.fail_after(20):
            async with open_storage(asked(node), "NOBODY") as storage:
                for _ in range(2):
                    with pytest.raises(SourceFailed) as failed:
                        await storage.store(Meta(CT, "1.1", EXPLICIT), pieces(b"ab"))
                    assert failed.value.outcome is Outcome.REFUSED
                assert storage.away is failed.value
            assert "NOBODY" in str(failed.value)


async def test_another_hospitals_device_is_called_as_by_the_caller_itself(tmp_path: Path) -> None:
    store = Store()
    async with two_hospitals(tmp_path, store.serve, "store", "echo") as both:
        for caller in (None, both.a.devices.get("WS")):
            async with open_storage(asked(both.a, caller), "PACS") as storage:
                meta = Meta(CT, f"1.{len(store.objects)}", EXPLICIT)
                assert await storage.store(meta, pieces(b"ab", b"cd")) == 0
    assert store.callings == ["RELAY_A", "WS"]
    assert store.objects == {uid: (EXPLICIT, b"abcd") for uid in ("1.0", "1.1")}
    assert store.broken == 0


async def test_what_another_hospital_does_not_grant_is_refused(tmp_path: Path) -> None:
    store = Store()
    async with (
        two_hospitals(tmp_path, store.serve, "echo") as both,
        open_storage(asked(both.a), "PACS") as storage,
    ):
        with pytest.raises((NotTakenError, SourceFailed)):
            await storage.store(Meta(CT, "1.1", EXPLICIT), pieces(b"ab"))
    assert not store.objects


async def test_what_is_queued_is_taken_in_and_delivered(tmp_path: Path) -> None:
    async with taking(tmp_path) as it:
        one = asked(it.both.a, it.both.a.devices.get("WS"), it.queue)
        async with open_storage(one, "PACS") as storage:
            assert await storage.store(Meta(CT, "1.1", IMPLICIT), pieces(b"ab", b"cd")) == 0
            (item,) = await it.items()
            assert (item.called, item.pair, item.sop_instance) == ("PACS", (CT, IMPLICIT), "1.1")
        await it.becomes(delivered=1)
        assert it.archive.seen == [b"abcd"]
