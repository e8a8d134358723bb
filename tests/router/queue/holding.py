"""A hospital that holds what PACS takes, and its owner, who says what a test wants."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from relay.errors import RelayError
from relay.router.devices import Device
from relay.router.node import Node, unix_time
from relay.router.pairs import Pairs
from relay.router.queue import acceptance
from relay.router.queue.acceptance import DEADLINE, Acceptance
from relay.router.queue.held import Held
from relay.tunnel.notes import Knowledge
from tests.router.fakes import CT, IMPLICIT, JPEG, hospital, listing, publication

WEEK = 7 * 86400
PAIRS = Pairs.of([(CT, IMPLICIT), (CT, JPEG)])
HELD_NOTHING = Held(b"", 0, 0, 1, 1, False, Pairs(), PAIRS)


def knowledge(serial: int = 1, lifetime: int = WEEK, pairs: Pairs = PAIRS) -> Knowledge:
    return Knowledge(serial, lifetime, 1, 1, False, pairs.groups())


@attrs.define(eq=False)
class Owner:
    """The hospital that publishes PACS: `says` is what its Router answers, an error or a note."""

    identity: bytes
    says: Knowledge | RelayError = attrs.field(factory=knowledge)
    asked: list[tuple[str, str]] = attrs.Factory(list)
    ready: trio.Event = attrs.Factory(trio.Event)

    async def __call__(
        self, node: Node, called: str, calling: str, deadline: float
    ) -> tuple[bytes, Knowledge]:
        assert deadline == DEADLINE
        self.asked.append((called, calling))
        await self.ready.wait()
        if isinstance(self.says, RelayError):
            raise self.says
        return self.identity, self.says


@attrs.define(eq=False)
class World:
    node: Node
    other: Node
    third: Node
    owner: Owner
    held: Acceptance

    async def learn(self, calling: str = "WS", *, anew: bool = True) -> Held | None:
        return await self.held.learn(self.node, "PACS", calling, anew=anew)

    def known(self, calling: str = "WS", after: int = 0) -> Held | None:
        return self.held.known(self.node, "PACS", calling, unix_time() + after)

    async def stored(self) -> Held | None:
        """What another run of the Router would know."""
        again = await Acceptance.load(self.node.database)
        return again.known(self.node, "PACS", "WS", unix_time())

    async def publish(self, node: Node, serial: int = 1) -> None:
        """The directory shows PACS as `node`'s."""
        statement = publication(node, "PACS", "store", serial=serial)
        directory = self.node.joined().directory
        await directory.take(listing(node, whole=False, publications=[statement]))


@asynccontextmanager
async def holding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """WS is a device here, nothing is held yet, and the owner answers at once."""
    async with (
        hospital(tmp_path / "a", "RELAY_A") as node,
        hospital(tmp_path / "b", "RELAY_B") as other,
        hospital(tmp_path / "c", "RELAY_C") as third,
    ):
        owner = Owner(other.identity.public)
        owner.ready.set()
        monkeypatch.setattr(acceptance, "ask", owner)
        await node.put_device(Device("WS", "h"))
        await node.joined().directory.take(listing(other, third))
        made = World(node, other, third, owner, await Acceptance.load(node.database))
        await made.publish(other)
        yield made
