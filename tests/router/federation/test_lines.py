"""Storms: each device has so many operations at once, whoever asks."""

import pytest
import trio
import trio.testing

from relay.errors import Outcome, SourceFailed
from relay.router.federation.lines import Lines


async def test_so_many_at_one_device_and_others_are_not_held_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lines = Lines(2)
    running = most = 0

    async def operate(title: str) -> None:
        nonlocal running, most
        async with lines.served(title, 100):
            running += title == "PACS"
            most = max(most, running)
            await trio.sleep(1)
            running -= title == "PACS"

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for title in ("PACS", "PACS", "PACS", "PACS", "OTHER"):
            nursery.start_soon(operate, title)
    assert most == 2
    assert trio.current_time() - start == pytest.approx(2)
    assert not lines._busy


async def test_who_waits_too_long_is_told_so(autojump_clock: trio.testing.MockClock) -> None:
    lines = Lines(1)
    async with lines.served("PACS", 1):
        with pytest.raises(SourceFailed, match=r"as many others .* in 5 s") as caught:
            async with lines.served("PACS", 5):
                pass
        assert caught.value.outcome is Outcome.SLOW
        with trio.move_on_after(1):
            async with lines.served("PACS", 5):
                pass
    async with lines.served("PACS", 1):  # whoever gave up holds nothing
        pass
    assert not lines._busy


async def test_an_error_in_the_block_frees_it() -> None:
    lines = Lines(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="mine"):
            async with lines.served("PACS", 1):
                raise ValueError("mine")
