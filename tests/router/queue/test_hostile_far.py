"""A far Router that says what it should not: nothing counts as delivered that was not taken."""

import random
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from relay.dicom.pdu import AAbort, AReleaseRP, AReleaseRQ, Atom
from relay.dicom.status import means_stored
from relay.errors import AssociationAborted, LocalProtocolError
from relay.router.queue import delivery
from relay.spool.items import State
from relay.tunnel import notes
from relay.tunnel.notes import Answer, Answers, Ended, EndedBy, Outcome
from tests.router.queue.sending import objects
from tests.router.queue.test_delivery import LARGE
from tests.router.queue.test_delivery_faults import (
    Far,
    Script,
    done,
    ended,
    scripted,
    takes_all,
)


async def until_it_is_told(far: Far) -> None:
    while not isinstance(await far.near.receive_record(), AAbort | AReleaseRQ):
        pass


async def stored_before_it_came(far: Far) -> None:
    item = await far.next(notes.Item)
    assert isinstance(item, notes.Item)
    await far.say(done(item.id))


async def refused_and_stored(far: Far) -> None:
    await far.say(done(await far.item(), 0, Outcome.REFUSED))


async def refused_and_there_already(far: Far) -> None:
    await far.say(done(await far.item(), 0x0111, Outcome.REFUSED))


async def stored_behind_the_end(far: Far) -> None:
    id_ = await far.item()
    await far.say(Ended(EndedBy.ROUTER, 2, 0, "over"), done(id_))


@pytest.mark.parametrize(
    "script",
    [
        stored_before_it_came,
        refused_and_stored,
        refused_and_there_already,
        stored_behind_the_end,
    ],
)
async def test_a_result_that_cannot_be_delivers_nothing(tmp_path: Path, script: Script) -> None:
    async def faulty(far: Far) -> None:
        await script(far)
        await until_it_is_told(far)

    async with scripted(tmp_path, faulty, takes_all) as it:
        await it.left(LARGE * 8)
        (item,) = await ended(it)
        assert item.state is State.WAITING
        assert item.attempted
        await it.becomes(delivered=1, hurry=True)


async def test_who_ends_without_end_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says something all the time, and takes nothing: the session is given up all the same."""

    async def storm(far: Far) -> None:
        await far.item()
        with suppress(AssociationAborted):
            while True:
                await far.say(Ended(EndedBy.DEVICE, 2, 0, "once more"))
                await trio.sleep(0.01)

    monkeypatch.setattr(delivery, "RESULT_WAIT", 60.0)
    async with scripted(tmp_path, storm, takes_all) as it:
        await it.left(*objects(3))
        with trio.fail_after(5):
            await ended(it)
        await it.becomes(delivered=3, hurry=True)


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_it_says(seed: int, tmp_path: Path) -> None:
    """Delivered is what it has said to be stored, and was sent; all else is there still."""
    rng = random.Random(seed)
    stored: set[bytes] = set()

    async def anything(far: Far) -> None:
        ids: list[bytes] = []
        with suppress(AssociationAborted, LocalProtocolError, trio.TooSlowError):
            while True:
                with trio.fail_after(0.5):
                    ids.append(await far.item())
                if rng.randrange(3):
                    await far.say(*some_words(rng, ids))

    def some_words(rng: random.Random, ids: list[bytes]) -> list[notes.Message | Atom]:
        id_ = ids.pop() if rng.randrange(8) else rng.choice([*ids, bytes(16)])
        status = rng.choice((0, 0, 0, 0xB000, 0x0111, 0xA700, 0xC001, 0xA900, 0xFF00))
        match rng.randrange(20):
            case 0:
                return [Ended(rng.choice(list(EndedBy)), 2, 0, "over"), AReleaseRP()]
            case 1:
                return [AReleaseRP()]
            case 2:
                return [AAbort(2, 0)]
            case 3:
                return [Answers((Answer(id_, Outcome.ANSWERED, 0, ""),))]
            case 4:
                return [done(id_, status, rng.choice([Outcome.CONFLICT, Outcome.CHANGED]))]
            case 5:
                return [done(id_, status, Outcome.REFUSED)]
            case _:
                if means_stored(status, sent_before=True):
                    stored.add(id_)
                return [done(id_, status)]

    async with scripted(tmp_path, *[anything] * 6, takes_all) as it:
        await it.left(*objects(12))
        for sessions in range(1, 6):
            with trio.move_on_after(3):
                await ended(it, sessions)
            it.hurry()
        for item in await it.items():
            assert (item.state is not State.DELIVERED) or item.id in stored
            folder = it.both.a.database.path.parent / "spool"
            there = (folder / item.stored.name).exists()
            assert there or item.state is State.DELIVERED
