"""The near end of a delivery, against the far end and a device, over tunnels in memory."""

import random
from collections import Counter
from pathlib import Path

import attrs
import pytest
import trio

from relay.dicom.pdu import AAssociateRJ, AAssociateRQ
from relay.router.pairs import Pairs
from relay.router.queue import watch
from relay.router.queue.destinations import Destination
from relay.router.queue.warnings import Kind
from relay.spool.items import Hold, Pause, Selection, State
from relay.spool.segments import SEGMENT
from tests.interop.peers import free_port
from tests.router.fakes import CT, IMPLICIT, MR
from tests.router.queue.sending import TAKEN, Archive, Instead, Sending, objects, sending
from tests.waiting import until

LARGE = random.Random(0).randbytes(2 * SEGMENT)  # two segments


class Gate:
    """Holds the device where it has this data set and has not answered it."""

    def __init__(self, at: bytes) -> None:
        self.at = at
        self.reached, self.opened = trio.Event(), trio.Event()

    async def __call__(self, content: bytes) -> None:
        if content == self.at and not self.reached.is_set():
            self.reached.set()
            await self.opened.wait()


def path_of(it: Sending, name: str) -> Path:
    (found,) = (it.both.a.database.path.parent / "spool").glob(f"*/{name}")
    return found


# --- what goes well -------------------------------------------------------------------------------


async def test_a_batch_goes_in_order_over_one_association(tmp_path: Path) -> None:
    wanted = objects(150)
    async with sending(tmp_path) as it:
        await it.left(*wanted)
        await it.becomes(delivered=150)
        await until(lambda: it.archive.released == 1)
        assert it.queue.statistics.delivered == 150
        assert it.queue.spool.objects.space.used == 0
    assert it.archive.associations == [wanted]
    assert len(it.deliveries) == 1


async def test_a_batch_goes_out_while_its_association_is_open(tmp_path: Path) -> None:
    first, second, third = objects(3)
    async with sending(tmp_path) as it:
        batch = it.batch()
        await it.bring(batch, first)
        await it.becomes(delivered=1)
        await it.bring(batch, second, third)
        await it.becomes(delivered=3)
        assert it.archive.released == 0
        await it.close(batch)
        await until(lambda: it.archive.released == 1)
    assert it.archive.associations == [[first, second, third]]


async def test_the_session_stands_when_the_first_object_is_kept(tmp_path: Path) -> None:
    first, second = objects(2)
    async with sending(tmp_path) as it:
        batch = it.batch()
        it.queue.couriers.coming(batch, TAKEN)
        await until(lambda: len(it.archive.associations) == 1)
        await it.bring(batch, first, second)
        await it.becomes(delivered=2)
        await it.close(batch)
        await until(lambda: it.archive.released == 1)
    assert it.archive.associations == [[first, second]]
    assert len(it.deliveries) == 1


async def test_the_command_is_the_senders_but_for_its_message_id(tmp_path: Path) -> None:
    async with sending(tmp_path) as it:
        await it.left(*objects(2))
        await it.becomes(delivered=2)
        items = await it.items()
    assert [c.sop_instance_uid for c in it.archive.commands] == [i.sop_instance for i in items]
    assert len({c.message_id for c in it.archive.commands}) == 2


async def test_a_large_object_arrives_as_it_was(tmp_path: Path) -> None:
    async with sending(tmp_path) as it:
        await it.left(LARGE)
        await it.becomes(delivered=1)
    assert it.archive.seen == [LARGE]


async def test_the_far_router_is_told_to_forget(tmp_path: Path) -> None:
    async with sending(tmp_path) as it:
        await it.left(*objects(5))
        await it.becomes(delivered=5)
        await until(lambda: it.queue.couriers.sessions("PACS") == 0)
        assert await it.queue.spool.items.unforgotten(it.both.b.identity.public, 10) == []
        assert len(it.far.spool.receipts) == 5  # for HORIZON


async def test_what_was_not_told_is_told_in_the_next_session(tmp_path: Path) -> None:
    wanted = objects(3)
    gate = Gate(wanted[2])
    async with sending(tmp_path, Archive(before=gate)) as it:
        await it.left(*wanted)
        await it.becomes(delivered=2, waiting=1)
        it.lose_tunnels()
        peer = it.both.b.identity.public
        await until(lambda: it.queue.couriers.sessions("PACS") == 0)
        assert len(await it.queue.spool.items.unforgotten(peer, 10)) == 2
        gate.opened.set()
        await it.becomes(delivered=3, hurry=True)
        await until(lambda: it.queue.couriers.sessions("PACS") == 0)
        assert await it.queue.spool.items.unforgotten(peer, 10) == []
    assert it.archive.seen == wanted


# --- what the device answers ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007, 0x0107])
async def test_stored(tmp_path: Path, status: int) -> None:
    async with sending(tmp_path, Archive(answer=lambda content: status)) as it:
        await it.left(*objects(2))
        await it.becomes(delivered=2)
        assert {item.status for item in await it.items()} == {status}


@pytest.mark.parametrize("status", [0xA900, 0x0117, 0x0122, 0x0111])
async def test_never_taken_as_it_is(tmp_path: Path, status: int) -> None:
    bad, good = objects(2)
    archive = Archive(answer=lambda content: status if content == bad else 0)
    async with sending(tmp_path, archive) as it:
        await it.left(bad, good)
        await it.becomes(failed=1, delivered=1)
        (failed,) = await it.queue.spool.items.select(Selection(state=State.FAILED))
        assert (failed.status, failed.attempts) == (status, 1)
        assert it.queue.warnings.standing(Kind.FAILED) == {"PACS"}
        assert it.queue.statistics.failed == 1
    assert len(it.archive.associations) == 1


async def test_no_room_ends_the_session_and_pauses_the_lane(tmp_path: Path) -> None:
    first, second = objects(2)
    full = [True]
    archive = Archive(answer=lambda content: 0xA700 if full[0] else 0)
    async with sending(tmp_path, archive) as it:
        batch = it.batch()
        await it.bring(batch, first)
        await until(lambda: it.archive.released == 1)  # though the batch is open
        await until(lambda: it.queue.couriers.trouble("PACS") != "")
        assert "A700" in it.queue.couriers.trouble("PACS")
        await it.bring(batch, second)
        assert it.archive.seen == [first]
        full[0] = False
        await it.close(batch)
        await it.becomes(delivered=2, hurry=True)
        assert it.queue.couriers.trouble("PACS") == ""
    assert sorted(it.archive.seen) == sorted([first, first, second])


@pytest.mark.parametrize("status", [0x0110, 0xC000, 0x0FFF])
async def test_an_object_that_may_be_the_trouble_is_tried_alone(
    tmp_path: Path, status: int
) -> None:
    bad, *good = objects(4)
    archive = Archive(answer=lambda content: status if content == bad else 0)
    async with sending(tmp_path, archive) as it:
        await it.left(bad, *good)
        await it.becomes(waiting=1, delivered=3)
        (waiting,) = await it.queue.spool.items.select(Selection(state=State.WAITING))
        assert waiting.alone
        assert waiting.due > it.clock()
        await it.becomes(failed=1, delivered=3, hurry=True)
    assert it.archive.associations == [[bad, *good], [bad], [bad], [bad], [bad]]


async def test_a_night_without_room_uses_up_no_attempts_alone(tmp_path: Path) -> None:
    (content,) = objects(1)
    answers = [0xA700] * 10 + [0x0110, 0xA700, 0x0110, 0]
    archive = Archive(answer=lambda content: answers.pop(0))
    async with sending(tmp_path, archive) as it:
        await it.left(content)
        await it.becomes(delivered=1, hurry=True)
    assert len(it.archive.seen) == 14


async def test_not_authorized_stops_the_destination_until_a_person_acts(tmp_path: Path) -> None:
    status = [0x0124]
    async with sending(tmp_path, Archive(answer=lambda content: status[0])) as it:
        await it.left(*objects(3))
        await until(lambda: it.queue.warnings.standing(Kind.PAUSED) == {"PACS"})
        (pause,) = await it.queue.spool.items.pauses()
        assert not pause.by_person
        assert "0124" in pause.reason
        await until(lambda: it.queue.couriers.sessions("PACS") == 0)
        await it.left(b"another")
        it.hurry()
        await trio.sleep(0.05)
        assert len(it.deliveries) == 1
        status[0] = 0
        assert await it.queue.resume("PACS")
        await it.becomes(delivered=4)
        assert not it.queue.warnings.standing(Kind.PAUSED)


async def test_an_object_of_this_name_that_we_may_have_sent_is_there(tmp_path: Path) -> None:
    first, second = objects(2)
    gate = Gate(second)
    known = set[bytes]()

    def answer(content: bytes) -> int:
        if content in known:
            return 0x0111
        known.add(content)
        return 0

    async with sending(tmp_path, Archive(answer=answer, before=gate)) as it:
        await it.left(first, second)
        await gate.reached.wait()
        known.add(second)  # it has it, and the far Router does not live to hear that
        it.restart_far()
        gate.opened.set()
        await it.becomes(delivered=2, hurry=True)
        (item,) = [i for i in await it.items() if i.status == 0x0111]
        assert item.attempted


async def test_a_persons_retry_of_a_duplicate_is_no_delivery(tmp_path: Path) -> None:
    async with sending(tmp_path, Archive(answer=lambda content: 0x0111)) as it:
        await it.left(*objects(1))
        await it.becomes(failed=1)
        await it.queue.spool.items.retry(Selection())
        it.hurry()
        await until(lambda: len(it.archive.seen) == 2)
        await it.becomes(failed=1)


# --- associations that do not come about, or end --------------------------------------------------


async def test_a_permanent_rejection_stops_the_destination(tmp_path: Path) -> None:
    rejected = [AAssociateRJ(1, 1, 3)]
    archive = Archive(on_request=lambda request: rejected[0] if rejected else None)
    async with sending(tmp_path, archive) as it:
        await it.left(*objects(2))
        await until(lambda: it.queue.warnings.standing(Kind.PAUSED) == {"PACS"})
        rejected.clear()
        await it.queue.resume("PACS")
        await it.becomes(delivered=2)
    assert len(it.archive.associations) == 1


@pytest.mark.parametrize("said", [AAssociateRJ(2, 3, 2), Instead.ABORT])
async def test_a_transient_rejection_passes(tmp_path: Path, said: AAssociateRJ | Instead) -> None:
    times = [3]

    def on_request(request: AAssociateRQ) -> AAssociateRJ | Instead | None:
        times[0] -= 1
        return said if times[0] >= 0 else None

    async with sending(tmp_path, Archive(on_request=on_request)) as it:
        await it.left(*objects(2))
        await it.becomes(delivered=2, hurry=True)
        assert await it.queue.spool.items.pauses() == []
        assert {item.attempts for item in await it.items()} == {1}


async def test_a_device_that_is_switched_off_is_said_to_be(tmp_path: Path) -> None:
    async with sending(tmp_path) as it:
        (device,) = it.both.b.devices
        await it.both.b.put_device(attrs.evolve(device, port=free_port()))
        await it.left(*objects(1))
        words = "PACS of Hospital RELAY_B is busy or does not answer its Router"
        await until(lambda: it.queue.couriers.trouble("PACS") == words)


async def test_what_is_refused_is_held_until_it_is_accepted_again(tmp_path: Path) -> None:
    ct, mr = objects(2)
    archive = Archive(takes={(CT, IMPLICIT)})
    async with sending(tmp_path, archive) as it:
        batch = it.batch()
        await it.bring(batch, mr, pair=(MR, IMPLICIT))
        await it.bring(batch, ct)
        await it.close(batch)
        await it.becomes(held=1, delivered=1)
        (held,) = await it.queue.spool.items.select(Selection(state=State.HELD))
        assert (held.hold, held.attempts) == (Hold.NOT_ACCEPTED, 0)
        known = it.queue.acceptance.known(it.both.a, "PACS", "WS", int(it.clock()))
        assert known is not None
        assert not known.takes(MR, IMPLICIT)
        assert known.takes(CT, IMPLICIT)
        assert len(it.queue.warnings.standing(Kind.REFUSED)) == 1

        await watch.look(it.queue)
        assert await it.counts() == {State.HELD: 1, State.DELIVERED: 1}
        archive.takes = None
        again = attrs.evolve(known, serial=2, refused=Pairs())
        it.queue.acceptance._held["PACS", "WS"] = again
        await watch.look(it.queue)
        await it.becomes(delivered=2)
        assert not it.queue.warnings.standing(Kind.REFUSED)


async def test_a_delivery_lifts_the_refusal(tmp_path: Path) -> None:
    archive = Archive(takes={(CT, IMPLICIT)})
    async with sending(tmp_path, archive) as it:
        await it.queue.destinations.put(Destination("PACS"))
        await it.left(*objects(2), pair=(MR, IMPLICIT))
        await it.becomes(held=2)
        await watch.look(it.queue)
        (warning,) = it.queue.warnings.to_json()
        assert "MR in Implicit VR Little Endian" in warning["words"]
        assert warning["count"] == 2

        # One is tried again by a person, and the device is mended.
        archive.takes = None
        first, _ = await it.items()
        await it.queue.spool.items.retry(Selection(numbers=(first.number,)))
        it.queue.couriers.wake("PACS")
        await it.becomes(held=1, delivered=1)
        await it.accepts(MR, IMPLICIT)
        await watch.look(it.queue)  # the other one goes by itself
        await it.becomes(delivered=2)
        assert not it.queue.warnings.to_json()


async def test_everything_refused_is_one_association(tmp_path: Path) -> None:
    async with sending(tmp_path, Archive(takes=())) as it:
        await it.left(*objects(100))
        await it.becomes(held=100)
        it.hurry()
        await trio.sleep(0.05)
    assert len(it.archive.requests) == 1


@pytest.mark.parametrize("instead", [Instead.ABORT, Instead.RELEASE])
async def test_an_object_on_which_the_device_aborts_blocks_no_other(
    tmp_path: Path, instead: Instead
) -> None:
    wanted = objects(6)
    bad, good = wanted[2], [*wanted[:2], *wanted[3:]]
    archive = Archive(answer=lambda content: instead if content == bad else 0)
    async with sending(tmp_path, archive) as it:
        await it.left(*wanted)
        await it.becomes(delivered=5, waiting=1, hurry=False)
        assert [content for content in it.archive.seen if content != bad] == good
        (waiting,) = await it.queue.spool.items.select(Selection(state=State.WAITING))
        assert waiting.alone
        await it.becomes(delivered=5, failed=1, hurry=True)
        (failed,) = await it.queue.spool.items.select(Selection(state=State.FAILED))
        assert failed.attempts == 8
    assert it.archive.associations[2:] == [[bad]] * 7


async def test_of_several_under_way_those_in_the_devices_window_are_suspect(
    tmp_path: Path,
) -> None:
    wanted = objects(8)
    state = {"aborted": False}

    def answer(content: bytes) -> int | Instead:
        if content == wanted[0] and not state["aborted"]:
            return Instead.SILENCE
        if content == wanted[2] and not state["aborted"]:
            state["aborted"] = True
            return Instead.ABORT
        return 0

    async with sending(tmp_path, Archive(answer=answer, window=3)) as it:
        await it.left(*wanted)
        await until(lambda: len(it.archive.associations) == 2)
        rows = await it.items()
        assert rows[0].alone
        assert rows[2].alone
        assert not any(row.alone for row in rows[4:])
        await it.becomes(delivered=8, hurry=True)
    first, second, *alone = it.archive.associations
    assert first == wanted[:3]
    assert second[-4:] == wanted[4:]
    assert [wanted[0]] in alone
    assert [wanted[2]] in alone
    assert {len(one) for one in alone} == {1}


# --- sessions that break --------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 9])
async def test_a_lost_tunnel_costs_no_object_and_no_order(tmp_path: Path, at: int) -> None:
    wanted = objects(10)
    gate = Gate(wanted[at])
    async with sending(tmp_path, Archive(before=gate)) as it:
        await it.left(*wanted)
        await gate.reached.wait()
        it.lose_tunnels()
        await until(lambda: it.queue.couriers.sessions("PACS") == 0)
        rows = await it.queue.spool.items.select(Selection(state=State.WAITING))
        assert {row.attempts for row in rows} == {0}
        gate.opened.set()  # the far Router has the answer, and nobody to tell it to
        await it.becomes(delivered=10, hurry=True)
        assert it.queue.statistics.duplicates_avoided >= 1
        assert {item.attempts for item in await it.items()} == {1}
    assert it.archive.seen == wanted


@pytest.mark.parametrize("at", [0, 1, 9])
async def test_a_far_router_that_restarts_costs_no_object_and_no_order(
    tmp_path: Path, at: int
) -> None:
    wanted = objects(10)
    gate = Gate(wanted[at])
    async with sending(tmp_path, Archive(before=gate)) as it:
        await it.left(*wanted)
        await gate.reached.wait()
        await until(lambda: len(it.far.spool.receipts) == at)
        it.restart_far()
        gate.opened.set()
        await it.becomes(delivered=10, hurry=True)
    copies = Counter(it.archive.seen)
    assert set(copies) == set(wanted)
    assert all(count == 1 for content, count in copies.items() if content != wanted[at])
    assert [content for content in it.archive.seen if copies[content] == 1] == [
        content for content in wanted if copies[content] == 1
    ]


async def test_a_lost_tunnel_in_the_middle_of_an_object(tmp_path: Path) -> None:
    large = LARGE * 8
    async with sending(tmp_path) as it:
        it.both.store.delay = 0.02
        await it.left(large, b"behind it")
        await until(lambda: it.both.store.puts > 2)
        it.lose_tunnels()
        await it.becomes(delivered=2, hurry=True)
    assert it.archive.seen == [large, b"behind it"]


async def test_an_earlier_run_that_did_not_live_to_note_it(tmp_path: Path) -> None:
    wanted = objects(5)
    gate = Gate(wanted[2])
    async with sending(tmp_path, Archive(before=gate)) as it:
        batch = await it.left(*wanted)
        await gate.reached.wait()
        gate.opened.set()
        await it.becomes(delivered=5)
        # As a start finds it: what was sent is not known to have been.
        items = it.queue.spool.items
        await items._execute("UPDATE item SET state = 1, attempts = 0 WHERE number > 2")
        await items._execute("UPDATE batch SET done = 0, run = 77")
        for row in (await it.items())[2:]:
            (it.both.a.database.path.parent / "spool" / row.stored.name).write_bytes(b"gone")
        it.hurry()
        await it.becomes(delivered=5)
        assert batch.number == 1
        assert it.queue.statistics.duplicates_avoided == 3
    assert it.archive.seen == wanted


async def test_the_destination_belongs_to_another_hospital_by_now(tmp_path: Path) -> None:
    async with sending(tmp_path) as it:
        batch = it.batch()
        batch.peer = bytes(32)
        await it.bring(batch, *objects(3))
        await it.becomes(held=3)
        await it.bring(batch, b"another")
        await it.close(batch)
        await it.becomes(held=4)
        assert {item.hold for item in await it.items()} == {Hold.MOVED}
    assert it.deliveries == []


# --- damage ---------------------------------------------------------------------------------------


async def test_a_lost_file_is_a_dead_letter_and_the_session_goes_on(tmp_path: Path) -> None:
    wanted = objects(3)
    async with sending(tmp_path, couriers=False) as it:
        await it.left(*wanted)
        path_of(it, (await it.items())[1].id.hex()).unlink()
        it.nursery.start_soon(it.queue.couriers.run)
        await it.becomes(delivered=2, failed=1)
        (failed,) = await it.queue.spool.items.select(Selection(state=State.FAILED))
        assert "damaged" in failed.reason
    assert it.archive.associations == [[wanted[0], wanted[2]]]


async def test_a_file_that_is_damaged_behind_its_beginning(tmp_path: Path) -> None:
    first, third = objects(2)
    async with sending(tmp_path, couriers=False) as it:
        await it.left(first, LARGE, third)
        damaged = (await it.items())[1]
        path = path_of(it, damaged.id.hex())
        raw = bytearray(path.read_bytes())
        raw[damaged.size - 1] ^= 1  # behind it is its slip
        path.write_bytes(raw)
        it.nursery.start_soon(it.queue.couriers.run)
        await it.becomes(delivered=2, failed=1)
    assert it.archive.seen == [first, third]  # no part of it whole, and none twice


# --- people ---------------------------------------------------------------------------------------


async def test_discarded_under_way(tmp_path: Path) -> None:
    wanted = objects(3)
    gate = Gate(wanted[0])
    async with sending(tmp_path, Archive(before=gate)) as it:
        await it.left(*wanted)
        await gate.reached.wait()
        spool = it.queue.spool
        gone = await spool.items.discard(Selection(numbers=(1, 3)), "not wanted", it.clock())
        await spool.objects.remove(gone)
        gate.opened.set()
        await until(lambda: it.archive.released == 1)
        await until(lambda: it.queue.couriers.sessions("PACS") == 0)
        states = [item.state for item in await it.items()]
        assert states[1] is State.DELIVERED
        assert states[2] in (State.DISCARDED, State.DELIVERED)  # it was on its way already
        assert spool.objects.space.used == 0


async def test_retried_under_way_is_not_sent_twice(tmp_path: Path) -> None:
    wanted = objects(3)
    gate = Gate(wanted[0])
    async with sending(tmp_path, Archive(before=gate)) as it:
        await it.left(*wanted)
        await gate.reached.wait()
        await it.queue.spool.items.retry(Selection())
        it.hurry()
        await trio.sleep(0.05)
        gate.opened.set()
        await it.becomes(delivered=3)
    assert it.archive.seen == wanted


async def test_paused_under_way(tmp_path: Path) -> None:
    first, second = objects(2)
    gate = Gate(first)
    async with sending(tmp_path, Archive(before=gate)) as it:
        batch = it.batch()
        await it.bring(batch, first)
        await gate.reached.wait()
        await it.queue.pause(Pause("PACS", True, "the PACS is moved", it.clock()))
        await it.bring(batch, second)
        await it.close(batch)
        gate.opened.set()
        await it.becomes(delivered=1, waiting=1)
        await until(lambda: it.archive.released == 1)
        it.hurry()
        await trio.sleep(0.05)
        assert it.archive.seen == [first]
        await it.queue.resume("PACS")
        await it.becomes(delivered=2)


async def test_what_is_being_sent_ends_before_the_router_does(tmp_path: Path) -> None:
    first, second = objects(2)
    gate = Gate(first)
    async with sending(tmp_path, Archive(before=gate)) as it:
        batch = it.batch()
        await it.bring(batch, first)
        await gate.reached.wait()
        it.queue.couriers.finish()
        await it.bring(batch, second)
        gate.opened.set()
        await it.becomes(delivered=1, waiting=1)
        await it.both.a.live.wait_empty()
        await trio.sleep(0.05)
    assert it.archive.associations == [[first]]


async def test_cut_off_when_the_router_does_not_wait(tmp_path: Path) -> None:
    wanted = objects(3)
    gate = Gate(wanted[1])
    async with sending(tmp_path, Archive(before=gate)) as it:
        await it.left(*wanted)
        await it.becomes(delivered=1, waiting=2)
        it.queue.couriers.finish()
        it.both.a.live.end_all()
        await it.both.a.live.wait_empty()
        await until(lambda: it.queue.couriers.sessions("PACS") == 0)
        rows = await it.items()
        assert [row.state for row in rows] == [State.DELIVERED, State.WAITING, State.WAITING]
        assert rows[1].doubtful
        gate.opened.set()


# --- several destinations, several associations ---------------------------------------------------


async def test_a_device_that_is_divided_among(tmp_path: Path) -> None:
    wanted = objects(120)

    async def slow(content: bytes) -> None:
        await trio.sleep(0.001)

    async with sending(tmp_path, Archive(before=slow), split=3) as it:
        await it.left(*wanted)
        await it.becomes(delivered=120)
        await until(lambda: it.archive.released == 3)
    assert it.archive.most == 3
    assert sorted(it.archive.seen) == sorted(wanted)
    places = {content: place for place, content in enumerate(wanted)}
    for association in it.archive.associations:
        order = [places[content] for content in association]
        assert order == sorted(order)


async def test_a_title_that_nobody_publishes_keeps_no_other_waiting(tmp_path: Path) -> None:
    async with sending(tmp_path) as it:
        await it.left(*objects(3), called="NOBODY")
        await it.left(*objects(3))
        await it.becomes(delivered=3, waiting=3)
        await until(lambda: it.queue.couriers.trouble("NOBODY") != "")
        assert it.queue.couriers.trouble("PACS") == ""


async def test_without_the_bridge_nothing_is_tried_and_nothing_lost(tmp_path: Path) -> None:
    async with sending(tmp_path) as it:
        it.both.bridge.cut(it.both.bridge.caller)
        await it.left(*objects(3))
        await until(lambda: it.queue.couriers.trouble("PACS") != "")
        assert it.deliveries == []
        it.both.bridge.restore(it.both.bridge.caller)
        it.queue.couriers.wake()
        await it.becomes(delivered=3)
