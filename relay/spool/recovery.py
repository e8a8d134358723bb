"""Bringing rows and files together at the start, after whatever has ended the run before.

A row without a file is a loss, and a dead letter. A file without a row is one of three things: it
never had an answer (no slip, or one of an item that has a row and is over), and goes; or its slip
is whole, then it is in custody, and has its row now; or its slip cannot be read, being locked with
another spool key or on a disk that does not read it, then it stays for the start that can.
"""

from collections.abc import Sequence

import attrs
import structlog

from relay.digest import begin_like
from relay.errors import ObjectDamaged
from relay.spool.items import KEPT, Batch, Hold, Item, State
from relay.spool.objects import Objects
from relay.spool.slips import Locked, Slip, Unread
from relay.spool.table import ItemTable

log = structlog.get_logger()

# Items that get their rows at once: a start that is cut off has got on all the same.
PAGE = 64

_LOST = "its file is not there: the disk has lost it"
_DAMAGED = "the Router was cut off as it came to the disk, which has only a part: send it again"
_DOUBTFUL = "it is from before a restore: it may have been delivered already"


@attrs.define(slots=True)
class _Done:
    """What was found, in files and items."""

    removed: int = 0
    recovered: int = 0
    locked: int = 0
    left: int = 0  # the disk does not give them back
    lost: int = 0


async def reconcile(items: ItemTable, objects: Objects, now: float) -> None:
    """Every file has its row afterwards, and every row that keeps a file has that, or says so.

    Raises SpoolError, DatabaseError: then the next start does all of it.
    """
    done = _Done()
    for folder in sorted({*await objects.folders(), *await items.kept_folders()}):
        unknown, missing = await objects.compare(folder, await items.kept_in(folder))
        over, slips = await _look(unknown, items, objects, done)
        slips.sort(key=lambda slip: slip.item.accepted)
        for at in range(0, len(slips), PAGE):
            page = slips[at : at + PAGE]
            await items.recover([await _recovered(s, items, objects, now) for s in page], now)
        await objects.clear(folder, over)
        if missing:
            done.lost += await items.lost(missing, _LOST, now)
        done.removed += len(over)
        done.recovered += len(slips)
    if not (done.locked or done.left):
        await items.settle_slips()
    _say(done)
    objects.space.used = sum(t.bytes for t in await items.counts() if t.state in KEPT)


async def _look(
    names: Sequence[str], items: ItemTable, objects: Objects, done: _Done
) -> tuple[list[str], list[Slip]]:
    """Of files that no row keeps, those that may go, and the slips of those that are kept."""
    over, slips = [], []
    for name in names:
        try:
            slip = await objects.slip(name)
        except ObjectDamaged as error:
            # Its end was written, and is not what it was: whatever was sent with it is lost.
            log.error("object damaged", name=name, why=str(error))
            slip = None
        match slip:
            case Unread(why) if not await items.known(bytes.fromhex(name.rpartition("/")[2])):
                log.error("object damaged", name=name, why=why)
                done.left += 1
            case Locked() if not await items.known(bytes.fromhex(name.rpartition("/")[2])):
                done.locked += 1
            case Slip(run=run, item=item) if run >= items.settled and not await items.known(
                item.id
            ):
                slips.append(slip)
            case _:
                over.append(name)
    return over, slips


async def _recovered(
    slip: Slip, items: ItemTable, objects: Objects, now: float
) -> tuple[Batch, Item]:
    """How the item of a slip goes on, and the batch it is of."""
    item = slip.item
    if not await _is_whole(item, objects):
        item = attrs.evolve(item, state=State.FAILED, reason=_DAMAGED, ended=now)
    elif slip.epoch != items.epoch or slip.run >= items.run:
        # The same run, or a later one, has written it: these rows are not those that it had.
        item = attrs.evolve(
            item, state=State.HELD, hold=Hold.DOUBTFUL, doubtful=True, reason=_DOUBTFUL
        )
    return slip.batch, item


async def _is_whole(item: Item, objects: Objects) -> bool:
    """Whether all that a slip says came to the disk is there."""
    digest = begin_like(item.digest)
    try:
        async with objects.reading(item.stored) as reader:
            async for segment in reader.segments():
                digest.update(segment)
    except ObjectDamaged:
        return False
    return digest.digest() == item.digest


def _say(done: _Done) -> None:
    if done.removed:
        log.info("files that no object was accepted in removed", files=done.removed)
    if done.recovered:
        log.info("objects in custody taken over from the last run", objects=done.recovered)
    if done.locked:
        log.error("objects without rows locked with another spool key", objects=done.locked)
    if done.lost:
        log.error("objects lost", objects=done.lost, why=_LOST)
