"""A near Router and a device that say anything, in any order: what holds all the same.

The device never has an object whole that is not what its item says; whatever the near Router hears
to be stored was stored by the device, and its receipt is written; the session ends, and leaves
nothing in anybody's hands.
"""

import random
from collections import defaultdict

import pytest
import trio
from trio.testing import MockClock

from relay.dicom import dimse
from relay.dicom.commandset import CommandSet, Tag
from relay.dicom.pdu import PDV, AAbort, AReleaseRP, AReleaseRQ
from relay.dicom.status import means_stored
from relay.errors import AssociationAborted, LocalProtocolError
from relay.router.queue.consignment import NEAR_SILENCE
from relay.tunnel import notes
from relay.tunnel.notes import Answers, Asked, Forget, Outcome, Question, Result
from relay.tunnel.records import Note, Record
from tests.router.fakes import command, data, read, store_rq
from tests.router.queue.consignments import (
    ORIGIN,
    World,
    consignment,
    data_set,
    fragments,
    item,
    object_id,
)

OBJECTS = 6
STATUSES = (0, 0, 0, 0xB000, 0xA700, 0xC001, 0x0110, 0x0111, 0x0124, 0xFF00)


def object_of(number: int, content: bytes, size: int) -> list[Record]:
    request = store_rq(7).evolve({Tag.AFFECTED_SOP_INSTANCE_UID: f"1.2.{number}"})
    return [notes.encode(item(number)), command(1, request), *fragments(content, size)]


def some_records(rng: random.Random, tame: int) -> list[Record]:
    number = rng.randrange(OBJECTS)
    good, bad = data_set(number), bytes(len(data_set(number)))
    whole = object_of(number, good, rng.choice((2, 60, 1000)))
    match rng.randrange(tame):
        case 0:
            return object_of(number, bad, 60)
        case 1:
            return object_of(number, good[:-2], 60)
        case 2:
            return object_of(number, good + b"xx", 60)
        case 3:
            return whole[: rng.randrange(1, len(whole))]  # and goes on with something else
        case 4:
            asked = tuple(Asked(object_id(n), item(n).digest) for n in range(OBJECTS))
            return [notes.encode(Question(asked))]
        case 5:
            return [notes.encode(Forget((object_id(number), object_id(99))))]
        case 6:
            return [rng.choice([data(1), PDV(3, True, True, b"x"), AReleaseRP(), Note(b"\x90")])]
        case 7:
            return [AAbort(2, 0)]
        case _:
            return whole


class Device:
    """Answers as it likes; `stored` is what it has said to be stored."""

    def __init__(self, world: World, rng: random.Random, tame: int) -> None:
        self.world, self.rng, self.tame = world, rng, tame
        self.whole: list[bytes] = []
        self.stored: defaultdict[str, set[bytes]] = defaultdict(set)

    async def run(self) -> None:
        try:
            await self._serve()
        except (AssociationAborted, LocalProtocolError):
            return  # the Router has ended it

    async def _serve(self) -> None:
        asked: CommandSet | None = None
        content = bytearray()
        while True:
            atom = await self.world.device.receive()
            if isinstance(atom, AReleaseRQ):
                await self.world.device.send(AReleaseRP())
                return
            if not isinstance(atom, PDV):
                return
            if atom.is_command:
                asked, content = read(atom), bytearray()
                continue
            content += atom.fragment
            if atom.is_last:
                assert asked is not None
                self.whole.append(bytes(content))
                await self._answer(asked, bytes(content))

    async def _answer(self, asked: CommandSet, content: bytes) -> None:
        match self.rng.randrange(self.tame):
            case 0:
                await self.world.device.abort()
                return
            case 1:
                await self.world.device.send(AReleaseRQ())
                return
            case 2:
                return  # never
            case 3:
                asked = asked.evolve({Tag.MESSAGE_ID: 999})
        status = self.rng.choice(STATUSES)
        for _ in range(self.rng.choice((1, 1, 1, 1, 2))):
            if means_stored(status):
                self.stored[asked.sop_instance_uid or ""].add(content)
            await self.world.device.send(command(1, dimse.response_to(asked, status)))


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("seed", range(80))
async def test_whatever_both_say(seed: int, window: int, autojump_clock: MockClock) -> None:
    rng = random.Random(seed)
    tame = rng.choice((16, 400))  # one of so many is what it should not be
    async with consignment(window=window) as world:
        device = Device(world, rng, tame)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.run)
            for _ in range(rng.randrange(1, 25)):
                world.near.say(*some_records(rng, tame))
                await trio.sleep(rng.choice((0, 0, 0.01)))
            world.near.say(rng.choice([AReleaseRQ(), AAbort(2, 0)]))
            with trio.fail_after(2 * NEAR_SILENCE):
                await world.ended()
            await world.relay.abort()
            nursery.cancel_scope.cancel()
        legal = {data_set(number) for number in range(OBJECTS)}
        assert set(device.whole) <= legal
        kept = {id_ for origin, id_ in world.table.receipts if origin == ORIGIN}
        for id_ in kept:
            number = int.from_bytes(id_, "big")
            assert data_set(number) in device.stored[f"1.2.{number}"]
        for note in world.near.heard:
            rows = [note] if isinstance(note, Result) else []
            rows += note.rows if isinstance(note, Answers) else []  # type: ignore[arg-type]
            for row in rows:
                if row.outcome is Outcome.ANSWERED and means_stored(row.status):
                    assert row.id in kept
        assert not world.recorder._in_hand
