"""One hospital's names, devices and directory, and what crosses its border: for the tests of it."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from relay.database import open_database
from relay.dicom import dimse
from relay.dicom.dimse import CommandSet, Status, Tag
from relay.router.aliases import Alias, AliasTable
from relay.router.arrival import Arrival
from relay.router.border import Crossing, Knowledge
from relay.router.commitments import CommitmentTable
from relay.router.departure import Departure
from relay.router.devices import Device, DeviceTable
from relay.router.moves import MoveRegister
from relay.router.names import Names
from relay.router.refusals import Refusals
from relay.router.schema import MIGRATIONS
from tests.router.fakes import move_rq, store_rq

OWN, PEER, THIRD = b"own" * 11, b"peer" * 8, b"third" * 7
NOW = 1_700_000_000
TRANSACTION = "1.2.3.4.5"
STORE = frozenset({"store"})

PACS = Device("PACS", "h", published="SOUTH_PACS", services=STORE)
WS = Device("WS1", "h", published="SOUTH_WS1", services=STORE)
SCANNER = Device("SCANNER", "h", services=frozenset({"echo"}))
ALIASES = (Alias("NORTH_PACS", "PACS"), Alias("NORTH_WS1", "WS1"))


@attrs.define
class FakeDirectory:
    """Who publishes what, and what of it is granted to this hospital."""

    owners: dict[str, bytes] = attrs.Factory(
        lambda: {
            "SOUTH_PACS": OWN,
            "SOUTH_WS1": OWN,
            "SCANNER": OWN,
            "LEFT_OVER": OWN,  # a device that was removed, and that the Bridge still shows
            "PACS": PEER,
            "WS1": PEER,
            "SCANNER_WS": PEER,
            "WS3": THIRD,
            "NORTH_PACS": THIRD,  # what is somebody else's name here
        }
    )
    grants: dict[str, frozenset[str]] = attrs.Factory(dict)
    only_listed: set[str] = attrs.Factory(set)

    def owner(self, title: str) -> bytes | None:
        return self.owners.get(title)

    def signed_owner(self, title: str) -> bytes | None:
        return None if title in self.only_listed else self.owners.get(title)

    def granted(self, title: str) -> frozenset[str]:
        return self.grants.get(title, frozenset())


@attrs.define
class World:
    knowledge: Knowledge
    moves: MoveRegister
    directory: FakeDirectory
    commitments: CommitmentTable

    @property
    def refused(self) -> list[tuple[str, str, str, str]]:
        """Who called whom, and the Move Destination that was refused and why; the oldest first."""
        rows = [(r.calling, r.called, r.destination, r.why) for r in self.knowledge.refusals]
        return rows[::-1]

    def departure(self, device: Device | None = WS, called: str = "PACS") -> Departure:
        return Departure(self.knowledge, device, PEER, called)

    def arrival(
        self,
        device: Device = PACS,
        calling: str = "WS1",
        *,
        seen: str = "NORTH_WS1",
        stores_at: Collection[str] = (),
        peer: bytes = PEER,
    ) -> Arrival:
        return Arrival(
            self.knowledge,
            device,
            peer,
            calling,
            seen=device.present_as or seen,
            may_store=lambda own: own.ae_title in stores_at,
        )


@asynccontextmanager
async def open_world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_database(tmp_path / "router.db", MIGRATIONS) as database:
        devices, aliases = await DeviceTable.load(database), await AliasTable.load(database)
        for device in (PACS, WS, SCANNER):
            await devices.put(device)
        for alias in ALIASES:
            await aliases.put(alias)
        moves, directory = MoveRegister(), FakeDirectory()
        commitments = await CommitmentTable.load(database)
        knowledge = Knowledge(
            names=Names("RELAY", devices, aliases),
            moves=moves,
            commitments=commitments,
            directory=directory,
            own=OWN,
            clock=lambda: NOW,
            refusals=Refusals(),
        )
        yield World(knowledge, moves, directory, commitments)


def final(message_id: int, status: int = 0) -> CommandSet:
    return dimse.response_to(move_rq("X", message_id), status)


def pending(message_id: int) -> CommandSet:
    return final(message_id, Status.PENDING)


def moved_rq(originator: str | bytes, message_id: int | None = None) -> CommandSet:
    values: dict[int, int | str | bytes] = {
        Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: originator
    }
    if message_id is not None:
        values[Tag.MOVE_ORIGINATOR_MESSAGE_ID] = message_id
    return store_rq().evolve(values)


def originator(crossing: Crossing, asked: CommandSet) -> tuple[str | None, int | None]:
    assert crossing.status is None
    command = crossing.command or asked
    return (
        command.text(Tag.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE),
        command.number(Tag.MOVE_ORIGINATOR_MESSAGE_ID),
    )


def passed_on(crossing: Crossing) -> tuple[str | None, int]:
    """The Move Destination and Message ID with which a C-MOVE goes on."""
    assert crossing.status is None
    assert crossing.command is not None
    return crossing.command.move_destination, crossing.command.message_id


async def finish(crossing: Crossing) -> None:
    assert crossing.before is not None
    await crossing.before()
