"""Two hospitals with real devices, as most tests of the whole want them."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests import images
from tests.images import Image
from tests.interop import peers
from tests.network import Network, network
from tests.tap import Tap, messages

EVERYTHING = "echo,store,query,retrieve"


@asynccontextmanager
async def two_hospitals(
    directory: Path, *callers: str, **options: object
) -> AsyncIterator[Network]:
    """Hospitals A and B; `callers` are devices of A that only call."""
    async with network(directory, "A", "B", **options) as net:  # type: ignore[arg-type]
        for caller in callers:
            await net.device("A", caller)
        yield net


async def publish(net: Network, ae_title: str, port: int, services: str = EVERYTHING) -> None:
    """Publish a device of B and grant A all that is published."""
    await net.publish("B", ae_title, port, services)
    await net.grant(owner="B", grantee="A", ae_title=ae_title, services=services)


def ct_image() -> Image:
    return next(i for i in images.shipped() if i.path.name == "CT_small.dcm")


async def send_all(target: peers.Address, directory: Path) -> None:
    result = await peers.storescu(target, directory, deadline=400)
    assert result.status == 0, result.output[-2000:]


def make(directory: Path) -> Path:
    directory.mkdir()
    return directory


def assert_all_arrived(near: Tap, stored: list[Path], series: list[Image]) -> None:
    """As many successes as objects, and each object there byte for byte as it was sent."""
    statuses = [m.status for a in near.associations for m in messages(bytes(a.answered))]
    assert statuses == [0] * len(series)
    there = {hashlib.sha256(peers.data_set_of(path)).digest() for path in stored}
    assert there == {hashlib.sha256(sent).digest() for sent in near.data_sets_requested()}
    assert len(stored) == len(series)
