"""A spool with objects in it, for tests of what is done with a whole spool."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from relay.spool.items import Batch, Change, Item, State
from relay.spool.segments import StoredObject
from relay.spool.spool import Spool, open_spool
from tests.spool.rows import a_batch, an_item


@asynccontextmanager
async def opened(data_dir: Path, *, key: Path | None = None) -> AsyncIterator[Spool]:
    """The spool of `data_dir`."""
    data_dir.mkdir(exist_ok=True)
    async with open_spool(data_dir, key=key, space=2**30, reserve=0) as spool:
        yield spool


async def keep(spool: Spool, batch: Batch, content: bytes, **more: Any) -> Item:
    """Take an object into custody; `more` is what its row says otherwise than another's."""
    writer = await spool.objects.begin()
    await writer.write(content)
    make = partial(item_of, batch, **more)
    item = await writer.finish_with(spool.custody.slipped(batch, make))
    return await spool.custody.keep(batch, item)


def item_of(batch: Batch, stored: StoredObject, **more: Any) -> Item:
    """The row of an object that has come whole."""
    values: dict[str, Any] = {
        "id": stored.item,
        "sop_instance": f"1.2.{int.from_bytes(stored.item)}",
        "command": b"",
        "length": stored.length,
        "digest": stored.digest,
        "key": stored.key,
        "key_name": stored.key_name,
        "folder": stored.folder,
        "size": stored.size,
        "study": "1.2.3",
    }
    return an_item(batch.called, **(values | more))


async def accept(spool: Spool, batch: Batch, content: bytes, **more: Any) -> Item:
    """As `keep`, as senders have it done: its row may follow."""
    writer = await spool.objects.begin()
    await writer.write(content)
    make = partial(item_of, batch, **more)
    return await spool.custody.finish(batch, writer, make, soon=True)


def crash(data_dir: Path, into: Path) -> Path:
    """What is on the disk now: as after a crash, the power staying on."""
    shutil.copytree(data_dir, into)
    return into


async def stock(spool: Spool, count: int, called: str = "PACS") -> list[Item]:
    """`count` objects of one batch, each with its number as content."""
    batch = a_batch(called)
    items = [await keep(spool, batch, b"object %d" % number) for number in range(count)]
    await spool.items.close_batch(batch, 3.0)
    return items


async def become(spool: Spool, items: list[Item], state: State, reason: str = "") -> None:
    """What a delivery, or a person, makes of items: the row first, then the file."""
    await spool.items.settle(
        [Change(number=i.number, state=state, attempts=1, reason=reason, ended=4.0) for i in items]
    )
    if state is State.DELIVERED:
        await spool.objects.remove([item.stored for item in items])


async def content(spool: Spool, item: Item) -> bytes:
    """What the object is. Raises ObjectDamaged."""
    async with spool.objects.reading(item.stored) as reader:
        return b"".join([segment async for segment in reader.segments()])
