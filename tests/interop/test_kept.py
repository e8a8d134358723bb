"""What is kept open beside the tests: opened once, closed at the end, and its errors are heard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.interop.kept import kept


def test_it_is_open_in_the_block_and_closed_after_it() -> None:
    steps = []

    @asynccontextmanager
    async def manager() -> AsyncIterator[str]:
        steps.append("opened")
        yield "it"
        await trio.lowlevel.checkpoint()
        steps.append("closed")

    with kept(manager) as it:
        assert (it, steps) == ("it", ["opened"])
    assert steps == ["opened", "closed"]


def test_what_cannot_be_opened_says_why() -> None:
    @asynccontextmanager
    async def manager() -> AsyncIterator[str]:
        await trio.lowlevel.checkpoint()
        raise OSError("no room")
        yield ""

    with pytest.raises(OSError, match="no room"), kept(manager):
        pytest.fail("it was opened")


def test_what_ends_it_early_is_raised_at_the_end() -> None:
    @asynccontextmanager
    async def manager() -> AsyncIterator[trio.Event]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield trio.Event()

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("it broke")

    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="it broke")), kept(manager):
        pass
