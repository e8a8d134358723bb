"""The owner's side: what a peer is told of a device, when it is probed for that, and when not."""

from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from relay.dicom import uids
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ
from relay.dicom.rejection import TEMPORARY_CONGESTION
from relay.router.devices import Device
from relay.router.live import Side
from relay.router.node import unix_time
from relay.router.pairs import Pairs
from relay.router.places import Claim
from relay.router.queue import knowledge, probing
from relay.router.queue.knowledge import MAXIMUM_SEEN, Own, OwnKnowledge
from relay.router.schema import change
from relay.signalling import messages
from tests.router.fakes import CT, IMPLICIT, JPEG, MR, PRIVATE_CLASS
from tests.router.queue.knowing import (
    ASSOCIATIONS,
    TAKEN,
    Knowing,
    change_device,
    knowing,
    learn,
    told,
    told_in_line,
)
from tests.waiting import until


async def age(it: Knowing, seconds: int) -> None:
    """Make all that B has found out older."""
    await it.both.b.database.run(change("UPDATE knowledge_own SET made = made - ?", seconds))


def restart(it: Knowing) -> None:
    """B is started anew: of whom it has told what, nothing is left."""
    it.b = attrs.evolve(it.b, knowledge=OwnKnowledge(it.both.b.database))


async def test_one_answer_serves_for_a_day_whoever_asks(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        await it.both.a.put_device(Device("WS2", "127.0.0.1"))
        await change_device(it, present_as="OUTSIDE")
        first = await told(it)
        assert (await told(it, "WS2")).serial == first.serial
        assert set(it.device.calling) == {"OUTSIDE"}
        assert it.probes == 1
        # Also after a restart, and until the day is over.
        restart(it)
        await age(it, knowledge.FRESH - 60)
        again = await told(it)
        assert (again.serial, it.probes) == (first.serial, 1)
        assert knowledge.LIFETIME - again.expires + unix_time() >= knowledge.FRESH - 60
        restart(it)
        await age(it, 60)
        it.device.pairs = {(MR, JPEG)}
        assert (await told(it)).pairs == Pairs.of([(MR, JPEG)])
        assert it.probes == 2


async def test_each_calling_title_has_an_answer_of_its_own(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        await it.both.a.put_device(Device("WS2", "127.0.0.1"))
        first = await told(it)
        it.device.pairs = {(MR, JPEG)}
        other = await told(it, "WS2")
        assert (first.pairs, other.pairs) == (Pairs.of(TAKEN), Pairs.of([(MR, JPEG)]))
        assert other.serial > first.serial
        assert it.device.calling == ["WS"] * ASSOCIATIONS + ["WS2"] * ASSOCIATIONS


async def test_transfer_syntaxes_are_those_for_any_caller(tmp_path: Path) -> None:
    async with knowing(tmp_path, [(CT, IMPLICIT)]) as it:
        await it.both.a.put_device(Device("WS2", "127.0.0.1"))
        known, pacs = it.b.knowledge, it.both.pacs
        assert await known.transfer_syntaxes(pacs) == frozenset()
        await told(it)
        it.device.pairs = {(MR, JPEG)}
        await told(it, "WS2")
        assert await known.transfer_syntaxes(pacs) == {IMPLICIT, JPEG}
        # Of another machine of that name nothing is known; what is declared, is.
        moved = attrs.evolve(pacs, host="192.0.2.9")
        assert await known.transfer_syntaxes(moved) == frozenset()
        declared = attrs.evolve(moved, declares=Pairs.of([(CT, JPEG)]))
        assert await known.transfer_syntaxes(declared) == {JPEG}


async def test_who_asks_again_was_refused_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        first = await told(it)
        it.device.pairs = {(CT, IMPLICIT)}
        # Not more than once a minute, however often it is asked.
        assert (await told(it)).serial == (await told(it)).serial == first.serial
        assert it.probes == 1
        monkeypatch.setattr(knowledge, "AGAIN", 0)
        second = await told(it)
        assert second.serial > first.serial
        assert second.pairs == Pairs.of([(CT, IMPLICIT)])
        assert it.probes == 2
        # The same is found again: the serial still says that it was looked at.
        third = await told(it)
        assert (third.serial > second.serial, third.pairs) == (True, second.pairs)


async def test_what_was_refused_is_probed_until_the_device_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge, "AGAIN", 0)
    async with knowing(tmp_path, TAKEN) as it:
        await told(it)
        it.device.pairs = {(CT, IMPLICIT)}
        await it.a.acceptance.refuse("PACS", "WS", (CT, JPEG))
        for probes in (2, 3):
            assert not (await told(it)).takes(CT, JPEG)
            assert it.probes == probes
            assert (CT, JPEG) in it.a.acceptance.refused("PACS", "WS")
        it.device.pairs = set(TAKEN)
        assert (await told(it)).takes(CT, JPEG)
        assert not it.a.acceptance.refused("PACS", "WS")


async def test_a_changed_device_is_probed_at_once(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        await told(it)
        it.device.pairs = {(MR, JPEG)}
        restart(it)
        await change_device(it, host="localhost")
        assert (await told(it)).pairs == Pairs.of([(MR, JPEG)])
        assert it.probes == 2
        restart(it)
        await change_device(it, maximum_associations=5)  # that is no other device
        await told(it)
        assert it.probes == 2


async def test_what_is_declared_is_not_probed(tmp_path: Path) -> None:
    declares = {CT: [JPEG], uids.STORAGE_COMMITMENT_PUSH_MODEL: [IMPLICIT], PRIVATE_CLASS: [JPEG]}
    async with knowing(
        tmp_path, TAKEN, "store", "commit", published=[f"private:{PRIVATE_CLASS}"]
    ) as it:
        await change_device(it, declares=Pairs.from_json(declares))
        held = await told(it)
        # The private class is declared, and not granted.
        assert (held.pairs, held.window) == (Pairs.of([(CT, JPEG)]), 1)
        assert held.commitment
        assert (await told(it)).serial == held.serial
        (grant,) = it.both.b.grants
        both = grant.services | {f"private:{PRIVATE_CLASS}"}
        await it.both.b.add_grant(attrs.evolve(grant, services=both))
        assert (await told(it)).pairs == Pairs.of([(CT, JPEG), (PRIVATE_CLASS, JPEG)])
        assert not it.device.calling
        await change_device(it, declares=Pairs.from_json({CT: [IMPLICIT]}))
        other = await told(it)
        assert (other.serial > held.serial, other.commitment) == (True, False)
        await change_device(it, declares=Pairs())
        assert (await told(it)).pairs == Pairs.of(TAKEN)
        assert it.probes == 1


async def test_what_was_declared_does_not_grow_old(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        await change_device(it, declares=Pairs.of([(CT, JPEG)]))
        first = await told(it)
        await age(it, 2 * knowledge.LIFETIME)
        again = await told(it)
        assert (again.serial, again.expires - first.expires) in {(first.serial, n) for n in (0, 1)}


async def test_a_probe_that_is_cut_short_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "TRY_PAUSE", 0)
    async with knowing(tmp_path, TAKEN) as it:

        async def busy_at_the_end(request: AAssociateRQ) -> AAssociateRJ | None:
            await trio.lowlevel.checkpoint()
            return TEMPORARY_CONGESTION if len(it.device.calling) >= ASSOCIATIONS - 5 else None

        it.device.before = busy_at_the_end
        assert await learn(it) is None
        assert await _rows(it) == 0
        assert len(it.device.calling) == ASSOCIATIONS - 5 + probing.TRIES - 1
        # It is not bothered again at once, and there is still nothing to tell.
        it.device.before = None
        assert await learn(it) is None
        assert len(it.device.calling) < ASSOCIATIONS
        monkeypatch.setattr(knowledge, "AGAIN", 0)
        first = await told(it)
        assert first.pairs == Pairs.of(TAKEN)
        # What was found out before is told when a later probe is cut short.
        it.device.pairs = {(MR, JPEG)}
        it.device.before = busy_at_the_end
        assert (await told(it)).serial == first.serial
        await age(it, knowledge.LIFETIME)
        assert (await it.a.acceptance.learn(it.both.a, "PACS", "WS2")) is None


async def _rows(it: Knowing) -> int:
    return int(
        await it.both.b.database.run(lambda c: c.execute("SELECT count(*) FROM knowledge_own").get)
    )


async def test_a_device_that_is_busy_for_a_moment_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "TRY_PAUSE", 0)
    async with knowing(tmp_path, TAKEN) as it:

        async def every_other(request: AAssociateRQ) -> AAssociateRJ | None:
            await trio.lowlevel.checkpoint()
            return TEMPORARY_CONGESTION if len(it.device.calling) % 2 else None

        it.device.before = every_other
        assert (await told(it)).pairs == Pairs.of(TAKEN)


async def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "TRY_PAUSE", 0)
    async with knowing(tmp_path, TAKEN) as it:
        await change_device(it, port=1)
        assert await learn(it) is None
        assert len(it.sessions) == 1
        assert not [m for m in it.both.bridge.passed if isinstance(m, messages.Refuse)]
        (noted,) = it.both.b.refusals
        assert (noted.calling, noted.called) == ("WS", "PACS")
        assert noted.why.startswith("it could not be probed: ")
        assert it.a.acceptance.unknown("PACS") == {"WS": "rejected for now: temporary congestion"}
        await change_device(it, port=it.both.port)
        await told(it)
        assert not list(it.both.b.refusals)


async def test_a_device_is_probed_once_at_a_time(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        for number in range(3):
            await it.both.a.put_device(Device(f"WS{number}", "127.0.0.1"))
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(learn, it, f"WS{number}")
        assert (it.probes, it.device.most) == (3, 1)
        # One after the other, not by turns.
        runs = [a for a, b in zip(it.device.calling, it.device.calling[1:], strict=False) if a != b]
        assert len(runs) == 2


async def test_who_waits_for_the_same_probe_has_its_answer(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        await it.both.a.put_device(Device("WS2", "127.0.0.1"))
        await change_device(it, present_as="OUTSIDE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(learn, it, "WS")
            nursery.start_soon(learn, it, "WS2")
        assert it.probes == 1
        assert it.a.acceptance.callers(it.both.a, "PACS", unix_time()) == ["WS", "WS2"]


async def test_the_line_of_those_who_wait_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge, "MAXIMUM_WAITING", 1)
    async with knowing(tmp_path, TAKEN) as it:
        assert await told_in_line(it) is None


@pytest.mark.parametrize("wait", [0.01, 5.0])
async def test_a_probe_has_a_place_as_a_call_has(tmp_path: Path, wait: float) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        await change_device(it, maximum_associations=1, place_wait=wait)
        places = it.both.b.places
        place = places.take_now(Claim(side=Side.CALLEE, device="PACS", peer="x", maximum=1))
        assert place is not None
        if wait < 1:
            assert await learn(it) is None
            assert not it.device.calling
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(learn, it)
            await until(lambda: places.waiting == 1)
            assert not it.device.calling
            place.free()
        assert it.probes == 1


async def test_titles_that_a_peer_makes_up_do_not_fill_the_disk(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        database = it.both.b.database
        for number in range(MAXIMUM_SEEN + 5):
            own = Own(number, unix_time(), "", 1, False, Pairs())
            await database.run(partial(knowledge._write, device="PACS", seen=f"T{number}", own=own))
        assert await _rows(it) == MAXIMUM_SEEN
        await it.both.b.remove_device("PACS")
        assert await _rows(it) == 0
