"""Senders at one end of a line: programs that send files and end when they are answered."""

from collections.abc import Sequence
from pathlib import Path

import trio

from scripts.benchmark import work
from scripts.benchmark.links import Place
from tests.interop.peers import PeerError, Target

DEADLINE = 1800.0

# Explicit VR Little Endian first.
UNCOMPRESSED = "-xe"


async def storescu(
    place: Place,
    target: Target,
    files: Sequence[Path],
    *,
    senders: int = 1,
    syntax: str = UNCOMPRESSED,
) -> None:
    """DCMTK's storescu, so many at once with a share of the files each; `syntax` is its option for
    what it proposes. Raises PeerError."""

    async def send(share: Sequence[Path]) -> None:
        done = await place.run(
            *("storescu", syntax, "-aet", work.CALLING, "-aec", target.ae_title),
            *(target.host, str(target.port), *map(str, share)),
            deadline=DEADLINE,
        )
        if done.status:  # `check` would name all files
            raise PeerError(f"storescu {target.ae_title}: {done.output[-2000:]}")

    async with trio.open_nursery() as nursery:
        for number in range(senders):
            nursery.start_soon(send, files[number::senders])
