"""A queue on a disk of its own whose couriers carry nothing: what people see, and what they do."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from relay.router.node import Node
from relay.router.queue.state import Queue
from relay.spool.items import Batch, Change, Hold, Item, Pause, Priority, State
from relay.spool.spool import open_spool
from tests.router.queue.parts import queue_of
from tests.spool import stock

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
NOW = 1_780_300_000.0


@attrs.define
class FakeCouriers:
    """Notes what it is told."""

    told: list[tuple[str, str]] = attrs.Factory(list)
    running: dict[str, int] = attrs.Factory(dict)
    troubles: dict[str, str] = attrs.Factory(dict)
    tried_again: dict[str, float] = attrs.Factory(dict)

    def coming(self, batch: Batch, accepted: frozenset[tuple[str, str]]) -> None:
        self.told.append(("coming", batch.called))

    def arrived(
        self,
        batch: Batch,
        accepted: frozenset[tuple[str, str]],
        item: Item | None = None,
        content: bytes | None = None,
    ) -> None:
        self.told.append(("arrived", batch.called))

    def closed(self, batch: Batch) -> None:
        self.told.append(("closed", batch.called))

    def discarded(self, items: Collection[bytes]) -> None:
        self.told.append(("discarded", str(len(items))))

    def wake(self, called: str | None = None) -> None:
        self.told.append(("wake", called or "all"))

    def network_changed(self) -> None:
        self.told.append(("network_changed", ""))

    def finish(self) -> None:
        self.told.append(("finish", ""))

    def stop(self, pause: Pause) -> None:
        self.told.append(("stop", pause.called))

    def resume(self, called: str) -> None:
        self.told.append(("resume", called))

    def sessions(self, called: str) -> int:
        return self.running.get(called, 0)

    def trouble(self, called: str) -> str:
        return self.troubles.get(called, "")

    def again(self, called: str) -> float | None:
        return self.tried_again.get(called)

    async def run(self) -> None:
        await trio.sleep_forever()


@asynccontextmanager
async def still_queue(node: Node, folder: Path, *, space: int = 2**30) -> AsyncIterator[Queue]:
    """A queue of `node` in which it is NOW, and nothing moves by itself."""
    async with open_spool(folder, space=space, reserve=0, clock=lambda: NOW) as spool:
        queue = await queue_of(node, spool)
        queue.couriers = FakeCouriers()
        yield queue


def couriers_of(queue: Queue) -> FakeCouriers:
    assert isinstance(queue.couriers, FakeCouriers)
    return queue.couriers


def batch_of(
    called: str = "PACS", calling: str = "CT_N", device: str = "CT", peer: bytes = bytes(32)
) -> Batch:
    """An association that came in."""
    return Batch(
        peer=peer,
        called=called,
        calling=calling,
        device=device,
        opened=NOW - 60,
        priority=Priority.NORMAL,
    )


async def keep(
    queue: Queue,
    batch: Batch,
    *,
    study: str = "1.2.3",
    instance: str = "1.2.3.4",
    data: bytes = b"a data set",
    accepted: float = NOW,
) -> Item:
    """One object, in custody."""
    return await stock.keep(
        queue.spool,
        batch,
        data,
        sop_instance=instance,
        transfer_syntax=EXPLICIT,
        accepted=accepted,
        study=study,
    )


async def becomes(
    queue: Queue, item: Item, state: State, reason: str = "", hold: Hold = Hold.NONE
) -> None:
    """What an attempt came to."""
    ended = NOW if state in (State.DELIVERED, State.FAILED) else None
    noted = await queue.spool.items.settle(
        [
            Change(
                number=item.number,
                state=state,
                attempts=item.attempts + 1,
                hold=hold,
                reason=reason,
                ended=ended,
            )
        ]
    )
    if state is State.DELIVERED and noted:
        await queue.spool.objects.remove([item.stored])
