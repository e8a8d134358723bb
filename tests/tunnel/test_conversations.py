"""Deliveries and questions for knowledge between two Routers, as PROTOCOL.md §10.3 and §10.4 go.

What the Routers do with what they hear is other rooms'; here it is said, carried and ordered.
"""

import math
import random

import attrs
import pytest
import trio
from blake3 import blake3
from trio.testing import MockClock

from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateRJ,
    AReleaseRP,
    AReleaseRQ,
)
from relay.errors import AbortReason, RemoteProtocolError
from relay.signalling.messages import EndReason, Open
from relay.tunnel import notes, reader, writer
from relay.tunnel.chunks import SMALL_OBJECT
from relay.tunnel.handshake import Purpose
from relay.tunnel.notes import (
    Answers,
    Ended,
    EndedBy,
    Forget,
    Item,
    Knowledge,
    Outcome,
    Question,
    Result,
)
from relay.tunnel.records import FINAL_ATOMS, Note, Record
from relay.tunnel.session import TunnelAssociation
from tests.tunnel.fakes import (
    AC,
    Network,
    Store,
    near_end,
    received,
    running,
)

KNOWLEDGE = Knowledge(1, 86_400, 1, 1, 0, [(["1.2"], ["1.2.840.10008.1.2"])])
COMMAND = PDV(1, True, True, b"C-STORE-RQ".ljust(100))


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock clock jumps while a thread works: what is timed seals and opens in line."""
    monkeypatch.setattr(writer, "SEAL_IN_THREAD", math.inf)
    monkeypatch.setattr(reader, "OPEN_IN_THREAD", math.inf)


@attrs.frozen
class Object:
    """An object in the near Router's queue."""

    id: bytes
    data: bytes = attrs.field(repr=False)

    @property
    def item(self) -> Item:
        return Item(self.id, b"\x01" + blake3(self.data).digest(), len(self.data))


def objects(count: int, seed: int, sizes: tuple[int, ...]) -> list[Object]:
    rng = random.Random(seed)
    return [Object(rng.randbytes(16), rng.randbytes(rng.choice(sizes))) for _ in range(count)]


async def say(association: TunnelAssociation, message: notes.Message, *, more=False) -> None:
    await association.send(notes.encode(message), end_of_message=not more)


async def hear(association: TunnelAssociation) -> notes.Message:
    record = await association.receive_record()
    assert isinstance(record, Note)
    return notes.decode(record)


async def until_over(association: TunnelAssociation) -> list[Record]:
    heard: list[Record] = []
    while not (heard and isinstance(heard[-1], FINAL_ATOMS)):
        heard.append(await association.receive_record())
    return heard


async def send_object(association: TunnelAssociation, one: Object) -> None:
    await say(association, one.item, more=True)
    await association.send(COMMAND, end_of_message=False)
    fragment = PDV(1, False, True, one.data)
    await association.send(fragment, compressible=len(one.data) >= SMALL_OBJECT)


class Archive:
    """A far Router with a device that takes everything; `taken` is what it took, in order."""

    def __init__(self) -> None:
        self.taken: list[Object] = []
        self.known: list[bytes] = []
        self.forgotten: set[bytes] = set()

    async def serve(self, association: TunnelAssociation) -> None:
        await association.send(AC)
        while True:
            record = await association.receive_record()
            if isinstance(record, AReleaseRQ):
                break
            assert isinstance(record, Note), "nothing but an Item begins an object"
            match notes.decode(record):
                case Question(rows=rows):
                    known = [(id_, 0, 0xB000, "") for id_, _ in rows if id_ in self.known]
                    await say(association, Answers(known))
                case Item() as item:
                    self.taken.append(await self.take(association, item))
                    await say(association, Result(item.id, Outcome.ANSWERED, 0, ""))
                case Forget(ids=ids):
                    self.forgotten.update(ids)
                case other:
                    raise AssertionError(other)
        await association.send(AReleaseRP())

    async def take(self, association: TunnelAssociation, item: Item) -> Object:
        command = await association.receive()
        assert isinstance(command, PDV)
        assert command.is_command
        assert bytes(command.fragment) == COMMAND.fragment
        data = b""
        while True:
            fragment = await association.receive()
            assert isinstance(fragment, PDV)
            assert not fragment.is_command
            data += fragment.fragment
            if fragment.is_last:
                break
        one = Object(item.id, data)
        assert one.item == item
        return one


async def deliver(association: TunnelAssociation, queue: list[Object], doubtful: int = 0) -> None:
    """The near Router's side of a whole session, which asks for the first of the queue."""
    assert await association.receive_record() == AC
    if doubtful:
        await say(association, Question([(one.id, one.item.digest) for one in queue[:doubtful]]))
        answers = await hear(association)
        assert isinstance(answers, Answers)
        known = {row.id for row in answers.rows}
        queue = [one for one in queue if one.id not in known]

    async def send() -> None:
        for one in queue:
            await send_object(association, one)

    results: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for _ in queue:
            result = await hear(association)
            assert isinstance(result, Result)
            results.append(result.id)
    assert results == [one.id for one in queue]
    await say(association, Forget(results[:1024]), more=True)
    await association.send(AReleaseRQ())
    assert await association.receive_record() == AReleaseRP()


async def test_a_delivery_from_answer_to_release(autojump_clock: MockClock) -> None:
    network, store, archive = Network(), Store(), Archive()
    queue = objects(30, 1, (0, 10, 5_000, 300_000, 3_000_000))
    archive.known = [queue[0].id, queue[2].id]
    async with (
        running(network, archive.serve, store),
        near_end(network, store, purpose=Purpose.DELIVERY) as association,
    ):
        with trio.fail_after(600):
            await deliver(association, queue, doubtful=4)
    sent = [one for one in queue if one.id not in archive.known]
    assert archive.taken == sent
    assert archive.forgotten == {one.id for one in sent}
    assert set(network.ended) == {EndReason.FINISHED}


@pytest.mark.parametrize("seed", range(6))
async def test_cuts_and_a_failing_store_change_nothing(
    seed: int, autojump_clock: MockClock
) -> None:
    network, store, archive = Network(seed), Store(seed), Archive()
    store.delay, store.failing = 0.2, 0.1
    rng = network.random
    queue = objects(60, seed, (100, 20_000, 1_500_000))

    async def cut() -> None:
        while True:
            await trio.sleep(rng.expovariate(1 / 1.5))
            client = rng.choice(network.clients)
            network.cut(client)
            await trio.sleep(rng.uniform(0, 3))
            network.restore(client)

    with trio.fail_after(600):
        async with running(network, archive.serve, store), trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            async with near_end(network, store, purpose=Purpose.DELIVERY) as association:
                await deliver(association, queue)
            nursery.cancel_scope.cancel()
    assert archive.taken == queue


async def test_small_objects_share_chunks(autojump_clock: MockClock) -> None:
    """What waits for the window goes at once: the far side's answers too."""
    network, store, archive = Network(), Store(), Archive()
    network.latency = 0.05
    queue = objects(1_000, 1, (1_000, 3_000))
    async with (
        running(network, archive.serve, store),
        near_end(network, store, purpose=Purpose.DELIVERY) as association,
    ):
        await deliver(association, queue)
        statistics = association.statistics()
    assert archive.taken == queue
    assert statistics.writer.chunks < 100
    assert statistics.reader.chunks < 100
    assert statistics.writer.in_line + statistics.reader.in_line < 50
    assert store.puts < 30


async def test_an_item_shares_a_chunk_with_its_object(autojump_clock: MockClock) -> None:
    network, store, archive = Network(), Store(), Archive()
    async with (
        running(network, archive.serve, store),
        near_end(network, store, purpose=Purpose.DELIVERY) as association,
    ):
        assert await association.receive_record() == AC
        for number, one in enumerate(objects(3, 1, (40_000,))):
            await send_object(association, one)
            assert isinstance(await hear(association), Result)
            assert association.statistics().writer.chunks == number + 1
        await association.send(AReleaseRQ())
        assert await association.receive_record() == AReleaseRP()


async def test_knowledge_is_one_chunk_and_needs_no_store(autojump_clock: MockClock) -> None:
    network, store = Network(), Store()
    opened: list[Purpose] = []

    async def far(association: TunnelAssociation) -> None:
        await say(association, KNOWLEDGE)
        await association.send(AReleaseRP())

    async with running(network, far, store):
        accept = network.on_open

        def note_purpose(message: Open) -> None:
            opened.append(received(message).purpose)
            accept(message)

        network.on_open = note_purpose
        async with near_end(network, store, purpose=Purpose.KNOWLEDGE) as association:
            assert await hear(association) == KNOWLEDGE
            assert await association.receive_record() == AReleaseRP()
            statistics = association.statistics()
    assert opened == [Purpose.KNOWLEDGE]
    assert (statistics.writer.chunks, statistics.reader.chunks) == (0, 1)
    assert store.puts == 0
    assert set(network.ended) == {EndReason.FINISHED}


async def test_a_rejection_ends_either(autojump_clock: MockClock) -> None:
    rejection = AAssociateRJ(2, 3, 2)

    async def far(association: TunnelAssociation) -> None:
        await association.send(rejection)

    for purpose in (Purpose.DELIVERY, Purpose.KNOWLEDGE):
        network = Network()
        async with running(network, far), near_end(network, purpose=purpose) as association:
            assert await association.receive_record() == rejection


async def test_results_come_before_the_end_of_a_device_that_aborts(
    autojump_clock: MockClock,
) -> None:
    network = Network()
    said = [
        Result(bytes(16), Outcome.ANSWERED, 0, ""),
        Ended(EndedBy.DEVICE, 2, 6, "the device aborted"),
    ]

    async def far(association: TunnelAssociation) -> None:
        await association.send(AC)
        for message in said:
            await say(association, message)
        await association.send(AReleaseRP())

    async with running(network, far), near_end(network, purpose=Purpose.DELIVERY) as association:
        heard = await until_over(association)
    assert heard == [AC, *map(notes.encode, said), AReleaseRP()]


async def test_two_devices_hear_no_note(autojump_clock: MockClock) -> None:
    network = Network()
    heard: list[Record] = []

    async def far(association: TunnelAssociation) -> None:
        await association.send(AC)
        await say(association, KNOWLEDGE)
        heard.extend(await until_over(association))

    async with running(network, far), near_end(network) as association:
        assert await association.receive() == AC
        with pytest.raises(RemoteProtocolError, match="note in the session") as caught:
            await association.receive()
        assert caught.value.abort_reason is AbortReason.UNEXPECTED_PDU
        await association.abort(2, caught.value.abort_reason)
    assert heard == [AAbort(2, 2)]


# --- the throttle --------------------------------------------------------------------------------


async def test_either_end_may_have_a_throttle(autojump_clock: MockClock) -> None:
    network, store, archive = Network(), Store(), Archive()
    near_sizes: list[int] = []
    far_sizes: list[int] = []

    async def near(size: int) -> None:
        near_sizes.append(size)
        await trio.sleep(size / 100_000)

    async def far(size: int) -> None:
        far_sizes.append(size)
        await trio.sleep(5)

    start = trio.current_time()
    async with (
        running(network, archive.serve, store, throttle=far),
        near_end(network, store, purpose=Purpose.DELIVERY, throttle=near) as association,
    ):
        await deliver(association, objects(5, 1, (1_000_000,)))
        statistics = association.statistics()
    assert sum(near_sizes) == statistics.writer.sealed_bytes
    assert trio.current_time() - start >= sum(near_sizes) / 100_000
    assert len(far_sizes) == statistics.reader.chunks - 1  # all but the final one


async def test_a_throttle_that_lets_nothing_pass_holds_nobody_up(
    autojump_clock: MockClock,
) -> None:
    """The session lives as long as both ends do, and ends at once when it is left."""
    network, store = Network(), Store()
    heard: list[Record] = []

    async def far(association: TunnelAssociation) -> None:
        await association.send(AC)
        heard.extend(await until_over(association))

    async def never(size: int) -> None:
        await trio.sleep_forever()

    async with (
        running(network, far, store),
        near_end(network, store, purpose=Purpose.DELIVERY, throttle=never) as association,
    ):
        assert await association.receive_record() == AC
        with trio.move_on_after(3600):
            for one in objects(50, 1, (1_000_000,)):
                await send_object(association, one)
        assert not association.cause
        start = trio.current_time()
    assert trio.current_time() - start < 1
    assert heard[-1] == AAbort(2, 0)
