"""Which items are meant: every field read, none ignored, titles as people know them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.errors import Refused
from relay.router.aliases import Alias
from relay.router.devices import Device
from relay.router.queue.destinations import Destination
from relay.router.queue.selecting import destination, from_query, picks, selection
from relay.router.queue.state import Queue
from relay.spool.items import Pause, Selection, State
from tests.router.fakes import hospital
from tests.router.queue.queues import NOW, batch_of, keep, still_queue


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    async with hospital(tmp_path) as node, still_queue(node, tmp_path) as queue:
        await queue.destinations.put(Destination("PACS"))
        yield queue


async def test_every_field_counts(queue: Queue) -> None:
    await queue.node.put_device(Device("CT", "192.0.2.1", published="CT_N"))
    await queue.node.put_alias(Alias("PACS_S", "PACS"))
    fields = {"called": "PACS_S", "calling": "CT", "study": "1.2.3", "state": "failed"}
    wanted = Selection(
        called="PACS",
        calling="CT_N",
        study="1.2.3",
        state=State.FAILED,
        numbers=(7, 8),
        after=3,
        until=9,
    )
    body = fields | {"numbers": [7, 8], "after": 3, "until": 9}
    assert await selection(queue, body) == wanted
    query = fields | {"numbers": "7,8", "after": "3", "until": "9"}
    assert await selection(queue, from_query(query)) == wanted


async def test_none_is_everything(queue: Queue) -> None:
    everything = await selection(queue, {})
    assert everything == Selection()
    assert not picks(everything)
    assert not picks(await selection(queue, {"after": 1, "until": 2}))
    assert not picks(await selection(queue, {"called": "", "calling": "", "study": ""}))
    for fields in ({"called": "PACS"}, {"calling": "X"}, {"study": "1.2"}, {"state": "held"}):
        assert picks(await selection(queue, fields))
    assert picks(await selection(queue, {"numbers": [1]}))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"caled": "PACS"}, "called"),
        ({"called": 7}, "called"),
        ({"called": "A title that is too long"}, "AE title"),
        ({"calling": ["CT"]}, "calling"),
        ({"study": "a study"}, "study"),
        ({"study": 1.2}, "study"),
        ({"state": "lost"}, "state"),
        ({"state": 3}, "state"),
        ({"numbers": 7}, "numbers"),
        ({"numbers": []}, "numbers"),
        ({"numbers": [0]}, "numbers"),
        ({"numbers": [True]}, "numbers"),
        ({"numbers": [2**63]}, "numbers"),
        ({"numbers": list(range(1, 1002))}, "numbers"),
        ({"after": -1}, "after"),
        ({"after": 2**63}, "after"),
        ({"until": "9"}, "until"),
    ],
)
async def test_what_is_not_understood_is_refused_by_name(
    queue: Queue, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(Refused, match=named) as refused:
        await selection(queue, fields)
    assert refused.value.status == 400


@pytest.mark.parametrize("text", ["", "-1", "1.5", "one", "1_000", "٣", "9" * 20, " 1"])
def test_what_is_no_number_is_refused(text: str) -> None:
    for name in ("after", "until", "limit", "numbers"):
        with pytest.raises(Refused, match=name):
            from_query({name: text})


async def test_a_destination_is_what_is_set_kept_or_paused(queue: Queue) -> None:
    await keep(queue, batch_of("ARCHIVE"))
    await queue.spool.items.pause(Pause("OLD", True, "", NOW))
    for title in ("PACS", "ARCHIVE", "OLD", " PACS "):
        assert await destination(queue, title) == title.strip()
    with pytest.raises(Refused, match="'PACZ'; `relay queue list`") as refused:
        await destination(queue, "PACZ")
    assert refused.value.status == 404


async def test_what_people_here_call_it_goes_before_what_the_network_does(queue: Queue) -> None:
    """A device here has the title that another hospital publishes: theirs has an alias."""
    await queue.node.put_alias(Alias("ARCHIVE", "PACS"))
    await queue.destinations.put(Destination("ARCHIVE"))  # a third hospital's
    assert await destination(queue, "ARCHIVE") == "PACS"
    await queue.node.remove_alias("ARCHIVE")
    assert await destination(queue, "ARCHIVE") == "ARCHIVE"


async def test_a_device_of_ours_hides_no_destination_of_its_title(queue: Queue) -> None:
    await queue.node.put_device(Device("PACS", "192.0.2.1", published="PACS_N"))
    assert await destination(queue, "PACS") == "PACS"
