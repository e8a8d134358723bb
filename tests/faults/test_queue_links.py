"""Lines that are cut and restored, a store that fails, a clock that is an hour off.

Senders send to queues meanwhile, and what must hold is the same as under kills
(tests/faults/test_queue_kills.py). Small, all of it happens in one run; at full size each trouble
has a run of its own.

RELAY_TEST_SEED sets the seed of another run.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import attrs
import pytest

from tests.faults.chaos import Blow, Chaos, CutLine, SilentLine, Victim, kills
from tests.faults.links import link
from tests.faults.queued import queued_hospitals
from tests.providers.faulty import Fault, FaultyProxy, faulty_proxy
from tests.providers.seaweed import seaweed

pytestmark = [pytest.mark.interop]

SEED = int(os.environ.get("RELAY_TEST_SEED", "3"))

DEVICES = {"PACS1": ("--slow", "0.02"), "PACS2": ()}

WEIGHTS = {
    "near's line cut": 2,
    "far's line cut": 2,
    "near's line silent": 1,
    "far's line silent": 1,
}

HOUR = 3600.0

# This share of the requests to the store meets a fault.
SHARE_OF_FAULTS = 0.25

# Each fault as often as the others, but for the one that costs the client its whole patience.
FAULTS = [
    *(fault for fault in Fault if fault is not Fault.STALL for _ in range(8)),
    Fault.STALL,
]

# More requests than any run makes.
REQUESTS = 100_000


@attrs.frozen
class Troubles:
    """What happens in one run."""

    lines: bool = False
    store: bool = False
    clocks: Mapping[str, float] = attrs.field(factory=dict)


@contextmanager
def failing(front: FaultyProxy, seed: int) -> Iterator[Callable[[], str]]:
    """Let a share of the requests fail, by the seed; gives what says how many did, in words."""
    source = random.Random(seed)
    before = len(front.seen)
    for method in ("PUT", "GET", "HEAD", "DELETE"):
        faults = [
            source.choice(FAULTS) if source.random() < SHARE_OF_FAULTS else None
            for _ in range(REQUESTS)
        ]
        front.next[method] = faults  # type: ignore[assignment]  # None: this one passes

    def words() -> str:
        seen = front.seen[before:]
        faulty = sorted({one for one in seen if not one.endswith(" passed")})
        counted = ", ".join(f"{seen.count(one)} × {one}" for one in faulty)
        return f"of {len(seen)} requests to the store: {counted}"

    yield words
    front.next.clear()


async def run(
    folder: Path,
    troubles: Troubles,
    count: int,
    cuts: int,
    figure: Callable[[str], None],
    *,
    limit: float,
    settling: float,
) -> None:
    """Send `count` objects through `troubles`; see `World.run`."""
    async with AsyncExitStack() as stack:
        store = front = None
        if troubles.store:
            (folder / "store").mkdir(parents=True)
            store = stack.enter_context(seaweed(folder / "store"))
            front = await stack.enter_async_context(
                faulty_proxy(folder / "front", store.port, store.trust())
            )
        lines = {}
        if troubles.lines:
            lines = {name: await stack.enter_async_context(link()) for name in ("A", "B")}
        world = await stack.enter_async_context(
            queued_hospitals(
                folder / "world",
                DEVICES,
                store=store,
                front=front,
                lines=lines,
                clocks=troubles.clocks,
            )
        )
        victims: dict[str, Victim] = {}
        if lines:
            victims = {
                "near's line cut": CutLine(lines["A"]),
                "far's line cut": CutLine(lines["B"]),
                "near's line silent": SilentLine(lines["A"]),
                "far's line silent": SilentLine(lines["B"]),
            }
        chaos = Chaos(victims)
        plan = kills(SEED, cuts, WEIGHTS, objects=count // (cuts + 1)) if lines else []
        start = time.time()
        if front is not None:
            said = stack.enter_context(failing(front, SEED))
            chaos.always.append(Blow("the store fails", start, float("inf")))
        for hospital, error in troubles.clocks.items():
            words = f"the clock of hospital {hospital} is {error:+g} s off"
            chaos.always.append(Blow(words, start, start))
        await world.run(count, SEED, chaos, plan, figure, limit=limit, settling=settling)
        if front is not None:
            figure(said())


@pytest.mark.timeout(300)
async def test_all_of_it(tmp_path: Path, figure: Callable[[str], None]) -> None:
    troubles = Troubles(lines=True, store=True, clocks={"A": HOUR})
    await run(tmp_path, troubles, 40, 6, figure, limit=200.0, settling=120.0)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("troubles", "cuts"),
    [
        (Troubles(lines=True), 200),
        (Troubles(store=True), 0),
        (Troubles(clocks={"A": HOUR}), 0),
        (Troubles(clocks={"B": -HOUR}), 0),
    ],
    ids=["lines", "store", "near clock an hour ahead", "far clock an hour behind"],
)
async def test_each(
    tmp_path: Path, troubles: Troubles, cuts: int, figure: Callable[[str], None]
) -> None:
    await run(tmp_path, troubles, 2000, cuts, figure, limit=3000.0, settling=900.0)
