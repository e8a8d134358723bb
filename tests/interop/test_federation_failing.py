"""The federation with archives that refuse, freeze and die: the rest arrives, and it is said."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.interop import archives, peers
from tests.interop.archives import EAST, NORTH, SOUTH, Archive
from tests.interop.federated import World, federated
from tests.network import POLL

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

SMALL, FULL = 60, 600

CANCELLED = 0xFE00

KEYS = {"StudyDate": "20000101-20991231"}
RETURNED = ["StudyInstanceUID", "PatientID"]

Figure = Callable[[str], None]


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Processes, each with its group, that do nothing for the length of the block."""
    for pid in pids:
        os.killpg(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.killpg(pid, signal.SIGCONT)


async def test_the_rest_arrives_and_the_status_names_who_is_missing(
    tmp_path: Path, full_size: bool, figure: Figure
) -> None:
    holdings = archives.make(FULL if full_size else SMALL)
    with trio.fail_after(600):
        async with federated(tmp_path, holdings) as world:
            await all_answer(world, (NORTH, EAST, SOUTH), "")

            world.refuse.touch()
            await all_answer(world, (NORTH, SOUTH), "incomplete: EAST refused")
            world.refuse.unlink()

            for what, pid in (
                ("archive", world.archives["EAST"].process.pid),
                ("Router", world.net.routers["C"].pid),
            ):
                with frozen(pid):
                    started = trio.current_time()
                    await all_answer(world, (NORTH, SOUTH), "incomplete: EAST slow")
                    figure(f"with a frozen {what} {trio.current_time() - started:.2f} s")
                await eventually(world, (NORTH, EAST, SOUTH), 0)

            await peers.stop(world.archives["SOUTH"].process)
            started = trio.current_time()
            await all_answer(world, (NORTH, EAST), "incomplete: SOUTH unreachable")
            figure(f"with a dead archive {trio.current_time() - started:.2f} s")
            await world.net.routers["C"].stop(signal.SIGKILL)
            await all_answer(world, (NORTH,), "incomplete: EAST unreachable; SOUTH unreachable")

            # For callers that throw everything away on a failure.
            await world.restart_a({"federation.on_incomplete": "success"})
            await all_answer(world, (NORTH,), "")
            assert "federated query incomplete" in world.net.routers["A"].output()


async def all_answer(world: World, there: Sequence[Archive], comment: str) -> None:
    """One query: all that these have, and this Error Comment with a failure; success for none."""
    asked = await world.find("STUDY", KEYS, RETURNED)
    expected = world.holdings.find("STUDY", KEYS, RETURNED, there)
    assert asked.rows("StudyInstanceUID", RETURNED) == expected
    assert asked.comment == comment
    assert asked.status & 0xF000 == (0xC000 if comment else 0)


async def eventually(world: World, there: Sequence[Archive], status: int) -> None:
    """Wait until a query has this status, and what these have."""
    with trio.fail_after(60):
        while True:
            asked = await world.find("STUDY", KEYS, RETURNED)
            expected = world.holdings.find("STUDY", KEYS, RETURNED, there)
            if (asked.status, asked.rows("StudyInstanceUID", RETURNED)) == (status, expected):
                return
            await trio.sleep(POLL)


async def test_streamed_answers_come_before_the_last_archive_has_spoken(tmp_path: Path) -> None:
    """EAST is frozen until the caller has an answer; then a C-CANCEL in mid-answer."""
    holdings = archives.make(SMALL)
    settings = {"federation.site_wait": 60, "federation.answers": "streamed"}
    with trio.fail_after(600):
        async with federated(tmp_path, holdings, slow=0.1, settings=settings) as world:
            pid = world.archives["EAST"].process.pid
            with frozen(pid):
                asked = await world.find(
                    *("STUDY", KEYS, RETURNED), on_first=lambda: os.killpg(pid, signal.SIGCONT)
                )
            assert (asked.status, asked.comment) == (0, "")
            found = asked.rows("StudyInstanceUID", RETURNED)
            assert found.keys() == holdings.find("STUDY", KEYS, RETURNED).keys()
            uids = [str(answer.StudyInstanceUID) for answer in asked.answers]
            assert uids[0] in holdings.studies_of("NORTH", "SOUTH")
            assert uids[-1] in holdings.studies_of("EAST")

            asked = await world.find("STUDY", KEYS, RETURNED, cancel_after=1)
            assert asked.status == CANCELLED
            assert 1 <= len(asked.answers) < len(found)

            await a_merged_query_is_cancelled(world, pid)


async def a_merged_query_is_cancelled(world: World, pid: int) -> None:
    """EAST, the last that is asked, freezes in the middle of its answers, and does not hear of it.

    What it has said by then is with the caller; what the others have is held, and comes no more.
    """
    await world.restart_a({"federation.answers": "merged"})
    await world.settled()
    try:
        asked = await world.find(
            *("STUDY", KEYS, RETURNED),
            cancel_after=1,
            on_first=lambda: os.killpg(pid, signal.SIGSTOP),
        )
    finally:
        os.killpg(pid, signal.SIGCONT)
    assert asked.status == CANCELLED
    uids = {str(answer.StudyInstanceUID) for answer in asked.answers}
    assert uids
    assert uids < world.holdings.studies_of("EAST")
    await eventually(world, (NORTH, EAST, SOUTH), 0)
