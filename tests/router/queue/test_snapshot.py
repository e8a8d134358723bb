"""The queue at one moment, for people and for Prometheus."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.metrics.described import render
from relay.router.queue.destinations import Destination, Mode
from relay.router.queue.metrics import families
from relay.router.queue.snapshot import figures, room, standings, summary
from relay.router.queue.state import Queue
from relay.router.queue.warnings import Kind
from relay.spool.items import Change, Pause, State
from tests.router.fakes import hospital
from tests.router.queue.queues import NOW, batch_of, becomes, couriers_of, keep, still_queue

SPACE = 10_000


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    async with hospital(tmp_path) as node, still_queue(node, tmp_path, space=SPACE) as queue:
        yield queue


async def fill(queue: Queue) -> None:
    """PACS: two wait, one has failed, one is delivered; OTHER: one waits. 1000 bytes each."""
    batch, other = batch_of("PACS"), batch_of("OTHER")
    items = [await keep(queue, batch, data=bytes(1000), accepted=NOW - n) for n in (90, 60, 30, 9)]
    await keep(queue, other, data=bytes(1000), accepted=NOW - 5)
    await becomes(queue, items[2], State.FAILED, "A900")
    await becomes(queue, items[3], State.DELIVERED)


async def test_an_empty_queue(queue: Queue) -> None:
    assert await standings(queue) == []
    assert await summary(queue) == {
        "waiting": 0,
        "held": 0,
        "failed": 0,
        "bytes": 0,
        "oldest": None,
        "paused": [],
        "refusing": None,
        "limit": None,
    }


async def test_each_destination_and_how_it_stands(queue: Queue) -> None:
    await fill(queue)
    await queue.destinations.put(Destination("PACS"))
    couriers_of(queue).running["PACS"] = 2
    couriers_of(queue).troubles["OTHER"] = "nobody listens"
    await queue.spool.items.pause(Pause("OTHER", True, "moves house", NOW - 1))
    other, pacs = [place.to_json() for place in await standings(queue)]
    assert (pacs["called"], pacs["queued"], pacs["sessions"], pacs["oldest"]) == (
        "PACS",
        True,
        2,
        NOW - 90,
    )
    assert (pacs["paused"], pacs["trouble"]) == (None, None)
    assert [pacs[state.word] for state in State] == [2, 0, 1, 1, 0]
    assert pacs["bytes"] == {"waiting": 2 * 1016, "failed": 1016, "delivered": 1016}
    assert (other["called"], other["queued"]) == ("OTHER", False)
    assert other["paused"] == {"by": "person", "reason": "moves house", "since": NOW - 1}
    assert other["trouble"] == "nobody listens"


async def test_a_destination_is_shown_before_anything_was_sent_there(queue: Queue) -> None:
    await queue.destinations.put(Destination("NEW", "CT"))
    await queue.destinations.put(Destination("LIVE", mode=Mode.CONFIRMED))
    await queue.spool.items.pause(Pause("OLD", False, "", NOW))
    assert [(place.called, place.queued) for place in await standings(queue)] == [
        ("NEW", True),
        ("OLD", False),
    ]


async def test_the_whole_queue_in_a_few_figures(queue: Queue) -> None:
    await fill(queue)
    await queue.spool.items.pause(Pause("OTHER", True, "", NOW))
    assert await summary(queue) == {
        "waiting": 3,
        "held": 0,
        "failed": 1,
        "bytes": 4 * 1016,
        "oldest": NOW - 90,
        "paused": ["OTHER"],
        "refusing": None,
        "limit": None,
    }


async def test_when_a_destination_is_tried_again(queue: Queue) -> None:
    await fill(queue)
    couriers_of(queue).tried_again["OTHER"] = NOW + 30
    item = await keep(queue, batch_of("LATER"))
    later = Change(number=item.number, state=State.WAITING, attempts=1, due=NOW + 60)
    await queue.spool.items.settle([later])

    async def again() -> dict[str, float | None]:
        return {place.called: place.to_json()["again"] for place in await standings(queue)}

    assert await again() == {"LATER": NOW + 60, "OTHER": NOW + 30, "PACS": None}
    await queue.spool.items.pause(Pause("OTHER", True, "", NOW))
    couriers_of(queue).running["LATER"] = 1
    assert set((await again()).values()) == {None}


async def test_room(queue: Queue) -> None:
    await fill(queue)
    shown = room(queue)
    assert (shown["used"], shown["maximum"], shown["refusing"]) == (4 * 1016, SPACE, None)
    assert shown["free"] > 0
    queue.spool.objects.space.maximum = 4000
    assert "4064 bytes of at most 4000" in room(queue)["refusing"]


async def test_what_prometheus_is_told(queue: Queue) -> None:
    await fill(queue)
    queue.statistics.accepted, queue.statistics.delivered = 5, 1
    queue.statistics.failed, queue.statistics.duplicates_avoided = 1, 4
    queue.warnings.begin(Kind.FAILED, "PACS", "objects for PACS have failed")
    snapshot = await figures(queue)
    other, pacs = snapshot.destinations
    assert (pacs.destination, pacs.bytes, pacs.oldest) == ("PACS", 3 * 1016, 90)
    assert pacs.items == {"waiting": 2, "held": 0, "failed": 1, "delivered": 1, "discarded": 0}
    assert (other.destination, other.oldest) == ("OTHER", 5)
    assert (snapshot.accepted, snapshot.delivered, snapshot.failed) == (5, 1, 1)
    assert snapshot.duplicates == 4
    assert snapshot.committed == 5
    assert 1 <= snapshot.commits <= 5
    assert snapshot.spool_bytes == 4 * 1016
    assert snapshot.spool_free > 0
    assert snapshot.warnings["failed"] == 1
    assert snapshot.webhook_failures == 0


async def test_no_figure_names_an_object(queue: Queue) -> None:
    await keep(queue, batch_of("PACS"), study="1.2.840.77", instance="1.2.840.99")
    text = render(families(await figures(queue))).decode()
    assert 'relay_queue_items{destination="PACS",state="waiting"} 1.0' in text
    assert "1.2.840" not in text
