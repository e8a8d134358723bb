"""Slots are there before they are needed, in order, and signed anew when they are old."""

import pytest
import trio
from trio.testing import MockClock

from relay.errors import SignallingError
from relay.signalling.messages import Done, Message, Resign, Resigned, Slots, SlotURLs
from relay.tunnel.slots import PUT_FRESH, SLOT_BATCH, SlotSupply, StoredBundle, resign

SESSION = bytes(16)


def row(method: str, slot: int) -> tuple:
    return (method, f"https://store.example/{slot}", (("If-None-Match", "*"),), 0)


class Bridge:
    """Answers requests as told; remembers which slots were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.failures = 0
        self.mangle = lambda answer: answer

    async def request(self, build) -> Message:
        await trio.sleep(0.1)
        if self.failures:
            self.failures -= 1
            raise SignallingError("no connection")
        match build(7):
            case Slots(request=number, first=first, count=count):
                self.asked.append((first, count))
                puts = tuple(row("PUT", slot) for slot in range(first, first + count))
                return self.mangle(SlotURLs(number, SESSION, first, puts))
            case Resign(request=number, slot=slot):
                return self.mangle(
                    Resigned(number, SESSION, (row("GET", slot),), (row("DELETE", slot),))
                )


async def test_slots_come_in_order_and_are_asked_for_ahead(autojump_clock: MockClock) -> None:
    bridge = Bridge()
    supply = SlotSupply(bridge.request, SESSION, 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supply.run)
        await trio.sleep(1)
        assert bridge.asked == [(0, SLOT_BATCH)]
        for number in range(SLOT_BATCH // 2):
            assert (await supply.take()).number == number
        await trio.sleep(1)
        assert bridge.asked == [(0, SLOT_BATCH), (SLOT_BATCH, SLOT_BATCH)]
        start = trio.current_time()
        for number in range(SLOT_BATCH // 2, 2 * SLOT_BATCH):
            slot = await supply.take()
            assert slot.number == number
            assert slot.put.url.endswith(f"/{number}")
            assert slot.put.headers == (("If-None-Match", "*"),)
        assert trio.current_time() == start
        nursery.cancel_scope.cancel()


async def test_the_first_are_asked_for_early(autojump_clock: MockClock) -> None:
    bridge = Bridge()
    supply = SlotSupply(bridge.request, SESSION, 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supply.ask_early)
        await trio.sleep(0.05)
        nursery.start_soon(supply.run)
        await trio.sleep(1)
        assert bridge.asked == [(0, SLOT_BATCH)]
        assert [(await supply.take()).number for _ in range(SLOT_BATCH)] == list(range(SLOT_BATCH))
        await trio.sleep(1)
        assert bridge.asked == [(0, SLOT_BATCH), (SLOT_BATCH, SLOT_BATCH)]
        await supply.ask_early()  # too late to be early
        assert len(bridge.asked) == 2
        nursery.cancel_scope.cancel()


async def test_what_is_refused_early_is_asked_for_again(autojump_clock: MockClock) -> None:
    bridge = Bridge()
    bridge.failures = 1
    supply = SlotSupply(bridge.request, SESSION, 20)
    await supply.ask_early()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supply.run)
        assert (await supply.take()).number == 0
        nursery.cancel_scope.cancel()
    assert supply.failures == 0


async def test_a_lost_connection_is_waited_for(autojump_clock: MockClock) -> None:
    bridge = Bridge()
    bridge.failures = 5
    supply = SlotSupply(bridge.request, SESSION, 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supply.run)
        assert (await supply.take()).number == 0
        assert supply.failures == 5
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "mangle",
    [
        lambda answer: Done(7, ("the provider is down",)),
        lambda answer: SlotURLs(7, SESSION, 1, answer.puts),
        lambda answer: SlotURLs(7, SESSION, 0, answer.puts[1:]),
    ],
)
async def test_no_slots_for_the_window_is_an_error(mangle, autojump_clock: MockClock) -> None:
    bridge = Bridge()
    bridge.mangle = mangle
    start = trio.current_time()
    with pytest.raises(SignallingError):
        await SlotSupply(bridge.request, SESSION, 20).run()
    assert 20 < trio.current_time() - start < 24


async def test_an_old_slot_is_signed_again(autojump_clock: MockClock) -> None:
    bridge = Bridge()
    supply = SlotSupply(bridge.request, SESSION, 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supply.run)
        slot = await supply.take()
        assert not slot.stale
        await trio.sleep(PUT_FRESH + 1)
        assert slot.stale
        renewed = await supply.renew(slot)
        assert (renewed.number, renewed.stale) == (slot.number, False)
        nursery.cancel_scope.cancel()


async def test_get_and_delete_are_signed_again(autojump_clock: MockClock) -> None:
    bridge = Bridge()
    stored = await resign(bridge.request, SESSION, 3)
    assert (stored.slot, stored.get.method, stored.delete.method) == (3, "GET", "DELETE")
    await trio.sleep(60)
    assert stored.stale
    bridge.mangle = lambda answer: Done(7, ("unknown session",))
    with pytest.raises(SignallingError, match="unknown session"):
        await resign(bridge.request, SESSION, 3)


async def test_a_chunk_without_urls_cannot_be_fetched(autojump_clock: MockClock) -> None:
    with pytest.raises(SignallingError):
        StoredBundle.from_rows(0, (), (row("DELETE", 0),))
