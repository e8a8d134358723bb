"""Connections that are made before they are needed: who gets them, and what becomes of the rest."""

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.errors import ProviderError
from relay.tunnel.origin import Origin
from relay.tunnel.warming import Warming

ORIGIN = Origin("https", "store.example", 443)
OTHER = Origin("https", "other.example", 443)


class Fault(Exception):
    """What the fake connection raises."""


@attrs.define
class Bench:
    """Connections are numbers; each takes a second."""

    made: int = 0
    fault: Exception | None = None
    kept: list[tuple[Origin, int]] = attrs.field(factory=list)
    warming: Warming[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.warming = Warming(
            self.connect, lambda origin, made: self.kept.append((origin, made)), Fault
        )

    async def connect(self, origin: Origin) -> int:
        self.made += 1
        number = self.made
        await trio.sleep(1)
        if self.fault is not None:
            raise self.fault
        return number


async def test_what_nobody_asks_for_is_kept(autojump_clock: MockClock) -> None:
    bench = Bench()
    await bench.warming.make(ORIGIN, 3)
    assert sorted(bench.kept) == [(ORIGIN, 1), (ORIGIN, 2), (ORIGIN, 3)]
    assert (bench.warming.making, bench.warming.coming(ORIGIN)) == (0, 0)
    assert await bench.warming.take(ORIGIN) is None


async def test_who_comes_meanwhile_takes_one(autojump_clock: MockClock) -> None:
    bench = Bench()
    taken: list[int | None] = []

    async def take(origin: Origin) -> None:
        taken.append(await bench.warming.take(origin))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.warming.make, ORIGIN, 2)
        await trio.sleep(0.5)
        assert (bench.warming.making, bench.warming.coming(ORIGIN)) == (2, 2)
        for origin in (ORIGIN, ORIGIN, ORIGIN, OTHER):
            nursery.start_soon(take, origin)
        await trio.sleep(0.1)
        assert taken == [None, None]  # there is none for them
        assert (bench.warming.making, bench.warming.coming(ORIGIN)) == (2, 0)
    assert sorted(filter(None, taken)) == [1, 2]
    assert bench.kept == []


@pytest.mark.parametrize("fault", [Fault(), ProviderError("not to be spoken to")])
async def test_what_fails_is_nobodys(fault: Exception, autojump_clock: MockClock) -> None:
    bench = Bench(fault=fault)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.warming.make, ORIGIN, 2)
        await trio.sleep(0.5)
        assert await bench.warming.take(ORIGIN) is None
    assert bench.kept == []
    assert bench.warming.making == 0


async def test_who_is_cancelled_leaves_it_to_others(autojump_clock: MockClock) -> None:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.warming.make, ORIGIN, 1)
        await trio.sleep(0.5)
        with trio.move_on_after(0.1):
            await bench.warming.take(ORIGIN)
        assert bench.warming.coming(ORIGIN) == 1
        assert await bench.warming.take(ORIGIN) == 1
    assert bench.kept == []


async def test_who_makes_them_may_be_cancelled(autojump_clock: MockClock) -> None:
    bench = Bench()
    taken: list[int | None] = []

    async def take() -> None:
        taken.append(await bench.warming.take(ORIGIN))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            nursery.start_soon(take)
            async with trio.open_nursery() as making:
                making.start_soon(bench.warming.make, ORIGIN, 2)
                await trio.sleep(0.1)
                nursery.start_soon(take)
    assert taken == [None, None]
    assert (bench.warming.making, bench.warming.coming(ORIGIN), bench.kept) == (0, 0, [])
