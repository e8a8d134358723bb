"""What is taken away while objects come in, wait, or go out: nothing goes where it may not."""

from pathlib import Path

import attrs
import pytest
import trio

from relay.dicom.pdu import AAbort, AAssociateAC
from relay.router.queue.destinations import remove, remove_device
from relay.spool.items import Hold, Selection, State
from tests.router.queue.calls import calling, taking
from tests.router.queue.sending import Archive, objects, sending
from tests.router.queue.test_delivery import Gate
from tests.waiting import until


async def test_a_device_that_is_removed_brings_nothing_more(tmp_path: Path) -> None:
    async with taking(tmp_path) as it, calling(it) as (sender, answer):
        assert isinstance(answer, AAssociateAC)
        await sender.store(1)
        assert await sender.status() == (1, 0)
        await remove_device(it.queue, "WS")
        with trio.fail_after(5):
            assert isinstance(await sender.association.receive(), AAbort)
            await sender.over.wait()
        # What it was answered 0000 for is delivered all the same.
        await it.becomes(delivered=1)
        await until(lambda: len(it.both.a.live) == 0)


async def test_a_title_that_changes_hands_takes_nothing_more_and_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with taking(tmp_path, couriers=False) as it, calling(it) as (sender, _):
        await sender.store(1)
        assert await sender.status() == (1, 0)
        directory = it.both.a.joined().directory
        monkeypatch.setattr(directory, "permits", lambda title, peer: False)
        it.both.a.live.recheck()
        with trio.fail_after(5):
            assert isinstance(await sender.association.receive(), AAbort)
            await sender.over.wait()
        monkeypatch.undo()
        # It is another hospital's by now, and a person here has accepted that.
        await it.queue.spool.items._execute("UPDATE batch SET peer = ?", b"x" * 32)
        it.nursery.start_soon(it.queue.couriers.run)
        await it.becomes(held=1)
        (item,) = await it.items()
        assert (item.state, item.hold) == (State.HELD, Hold.MOVED)
        assert it.archive.seen == []
        # Also where a person says that it is to be tried.
        await it.queue.spool.items.retry(Selection())
        it.queue.couriers.wake("PACS")
        await it.becomes(held=1)
        assert it.archive.seen == []


@pytest.mark.parametrize("what", ["grant", "device"])
async def test_what_is_taken_away_while_an_object_is_under_way_loses_none(
    tmp_path: Path, what: str
) -> None:
    first, second, third = objects(3)
    gate = Gate(second)
    async with sending(tmp_path, Archive(before=gate)) as it:
        b = it.both.b
        (grant,) = b.grants
        (device,) = b.devices
        await it.left(first, second, third)
        await gate.reached.wait()
        await it.becomes(delivered=1, waiting=2)
        if what == "grant":
            await b.remove_grant(grant.id)
        else:
            await b.remove_device("PACS")
        gate.opened.set()
        await until(lambda: it.queue.couriers.sessions("PACS") == 0)
        one, two, three = await it.items()
        assert (one.state, two.state, three.state) == (
            State.DELIVERED,
            State.WAITING,
            State.WAITING,
        )
        assert two.doubtful
        assert it.archive.seen == [first, second]
        # Nothing goes there while it may not, however often it is tried.
        for _ in range(3):
            await it.queue.resume("PACS")
            it.hurry()
            await trio.sleep(0.1)
        assert it.archive.seen == [first, second]
        if what == "device":
            await b.put_device(device)
        await b.add_grant(attrs.evolve(grant, id=0))
        await until(lambda: it.queue.couriers.sessions("PACS") == 0)
        await it.queue.resume("PACS")
        await it.becomes(delivered=3, hurry=True)
        # The second may be there twice: its answer was never recorded.
        assert it.archive.seen == [first, second, second, third]


async def test_a_destination_that_is_removed_gets_what_waits_for_it(tmp_path: Path) -> None:
    async with taking(tmp_path, couriers=False) as it:
        async with calling(it) as (sender, _):
            await sender.store(1)
            assert await sender.status() == (1, 0)
            # While the association is open: what is agreed stands until it ends.
            await remove(it.queue, "PACS", "")
            await sender.store(2)
            assert await sender.status() == (2, 0)
            await sender.release()
        it.nursery.start_soon(it.queue.couriers.run)
        await it.becomes(delivered=2)
