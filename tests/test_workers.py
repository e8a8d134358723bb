"""Threads for work that blocks: what comes back, how many there are, and who waits."""

import subprocess
import sys
import threading
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.workers import SWITCHING, Workers

MAXIMUM = 3


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(MAXIMUM)
    yield workers
    workers.close()


async def test_what_a_call_gives_or_raises_arrives(workers: Workers) -> None:
    assert await workers.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0)
    assert await workers.run(lambda: "still there") == "still there"


async def test_a_thread_is_used_again(workers: Workers) -> None:
    assert len({await workers.run(threading.get_ident) for _ in range(20)}) == 1


async def test_there_are_no_more_threads_than_that_and_the_others_wait(
    workers: Workers, nursery: trio.Nursery
) -> None:
    may_go = threading.Event()
    begun: list[int] = []
    done: list[int] = []

    async def ask() -> None:
        def work() -> int:
            begun.append(threading.get_ident())
            assert may_go.wait(10)
            return threading.get_ident()

        done.append(await workers.run(work))

    for _ in range(3 * MAXIMUM):
        nursery.start_soon(ask)
    with trio.fail_after(5):
        while len(begun) < MAXIMUM:
            await trio.sleep(0.001)
        await trio.sleep(0.05)
        assert len(begun) == MAXIMUM
        assert not done
        may_go.set()
        while len(done) < 3 * MAXIMUM:
            await trio.sleep(0.001)
    assert len(set(begun)) == MAXIMUM


async def test_what_was_asked_for_is_waited_for(workers: Workers, nursery: trio.Nursery) -> None:
    may_go = threading.Event()
    done: list[bool] = []
    scope = trio.CancelScope()

    async def ask() -> None:
        with scope:
            done.append(await workers.run(lambda: may_go.wait(10)))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    assert not done
    assert workers.busy
    may_go.set()
    with trio.fail_after(5):
        while not done:
            await trio.sleep(0.001)
    assert not workers.busy


async def test_who_is_cancelled_asks_for_nothing(workers: Workers) -> None:
    begun: list[bool] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await workers.run(lambda: begun.append(True))
    assert scope.cancelled_caught
    assert not begun


async def test_the_threads_end_with_it() -> None:
    workers = Workers(MAXIMUM)
    name = await workers.run(lambda: threading.current_thread())
    workers.close()
    with trio.fail_after(5):
        while name.is_alive():
            await trio.sleep(0.001)
    assert await workers.run(lambda: 1) == 1  # begun anew
    workers.close()


def test_threads_take_turns_as_often_as_it_says() -> None:
    """In a process of its own: it is for all of one."""
    script = (
        "import sys; from relay.workers import share_interpreter;"
        " share_interpreter(); print(sys.getswitchinterval())"
    )
    command = (sys.executable, "-c", script)
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert float(result.stdout) == pytest.approx(SWITCHING)
