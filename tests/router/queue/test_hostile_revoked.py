"""What is taken away while objects come in, wait, or go out: nothing goes where it may not."""

from pathlib import Path

import pytest
import trio

from relay.dicom.pdu import AAbort, AAssociateAC
from relay.router.queue.destinations import remove_device
from relay.spool.items import Hold, Selection, State
from tests.router.queue.calls import calling, taking


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
        await it.until(lambda: len(it.both.a.live) == 0)


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
