"""C-ECHOs and C-FINDs inside one association, as a program: it runs where the caller's site is.

    python -m scripts.benchmark.calls echo|find HOST PORT CALLED COUNT [IDENTIFIER ANSWERS]

Each call's seconds are printed as JSON. The identifier is in hexadecimal.
"""

import json
import sys

import trio

from scripts.benchmark import work
from scripts.benchmark.links import Place
from tests.interop.peers import Address, Target


async def echo(place: Place, target: Target, count: int) -> list[float]:
    """Each C-ECHO's seconds, from `place`."""
    return await _run(place, "echo", target, count)


async def find(
    place: Place, target: Target, count: int, identifier: bytes, answers: int
) -> list[float]:
    """Each C-FIND's seconds to its final response, from `place`; raises PeerError if there are not
    so many answers."""
    return await _run(place, "find", target, count, identifier.hex(), str(answers))


async def _run(place: Place, what: str, target: Target, count: int, *more: str) -> list[float]:
    done = await place.run(
        *(sys.executable, "-m", "scripts.benchmark.calls", what, target.host, str(target.port)),
        *(target.ae_title, str(count), *more),
        deadline=work.DEADLINE,
    )
    times: list[float] = json.loads(done.check().output)
    return times


async def main(*words: str) -> None:
    what, host, port, called, count, *more = words
    target = Address(int(port), called, host)
    if what == "echo":
        times = await work.echo(target, int(count))
    else:
        identifier, answers = more
        times = await work.find(target, int(count), int(answers), bytes.fromhex(identifier))
    print(json.dumps(times))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
