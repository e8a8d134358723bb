"""Devices of ours, and of others, that hold what many share: nobody else waits for long."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from relay.dicom.pdu import AAssociateAC, AAssociateRJ
from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED
from relay.router.devices import DEFAULT_ANSWER_WAIT, DEFAULT_PLACE_WAIT
from relay.router.node import Node
from relay.router.outgoing import OutgoingCall
from relay.router.queue import courier as courier_module
from relay.router.queue import delivery
from relay.router.queue import lane as lane_module
from relay.router.queue.courier import Couriers
from relay.router.queue.destinations import Destination
from relay.router.queue.errand import IDLE_RELEASE, IDLE_WANTED, Errand
from relay.spool.items import Selection
from tests.router.queue.calls import calling, taking
from tests.router.queue.lanes import lanes


async def test_who_keeps_its_association_open_does_not_keep_the_others_waiting(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "PARALLEL", 2)
    async with lanes(tmp_path, monkeypatch) as it:
        slow = [it.batch(), it.batch()]
        it.start()
        for batch in slow:
            await it.bring(batch)
        await it.done()
        assert it.deliveries.running == 2  # more may come
        begun = trio.current_time()
        other = await it.left()
        it.queue.couriers.closed(other)
        await it.done()
        assert trio.current_time() - begun < IDLE_RELEASE / 2
        # And what comes then still goes out.
        for batch in slow:
            await it.bring(batch)
        await it.done()
    assert sorted(number for page in it.deliveries.pages for number in page) == [1, 2, 3, 4, 5]


async def test_who_has_all_sessions_open_does_not_keep_another_destination_waiting(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "MAXIMUM_SESSIONS", 1)
    async with lanes(tmp_path, monkeypatch) as it:
        it.queue.couriers = Couriers(it.queue)
        it.start()
        await it.bring(it.batch())
        await it.done()
        begun = trio.current_time()
        await it.bring(it.batch("ANOTHER"))
        await it.done("ANOTHER")
        assert trio.current_time() - begun < 4 * IDLE_WANTED


async def test_a_hospital_that_ends_no_session_does_not_have_them_all(
    tmp_path: Path, patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def for_ever(errand: Errand) -> None:
        if errand.batch.called != "HONEST":
            await trio.sleep_forever()

    monkeypatch.setattr(courier_module, "MAXIMUM_SESSIONS", 4)
    monkeypatch.setattr(lane_module, "PARALLEL", 2)
    async with lanes(tmp_path, monkeypatch, for_ever) as it:
        it.queue.couriers = Couriers(it.queue)
        for number in range(4):
            for _ in range(2):
                await it.left(1, f"DEAD{number}")
        it.start()
        await trio.sleep(10)
        honest = it.batch("HONEST")
        honest.peer = b"h" * 32
        await it.bring(honest)
        await it.done("HONEST")
        assert it.deliveries.running == 4
        await it.queue.spool.items.close_batch(honest, 1.0)
        it.queue.couriers.closed(honest)
        await trio.sleep(10)
        assert it.deliveries.running == 3


async def test_a_destination_that_is_away_does_not_fill_the_whole_spool(tmp_path: Path) -> None:
    async with taking(tmp_path, couriers=False) as it:
        it.queue.settings = attrs.evolve(it.queue.settings, space=1000)
        await it.left(b"x" * 800)
        async with calling(it) as (sender, answer):
            assert isinstance(answer, AAssociateAC)  # there is no other
            await sender.release()
        await it.queue.destinations.put(Destination("ANOTHER"))
        async with calling(it) as (_, answer):
            assert isinstance(answer, AAssociateRJ)
            assert answer == LOCAL_LIMIT_EXCEEDED
        await it.queue.spool.items.discard(Selection(), "gone", 1.0)
        async with calling(it) as (sender, answer):
            assert isinstance(answer, AAssociateAC)
            await sender.release()


async def test_a_device_that_takes_its_time_to_accept_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the usual waits at the far side add up to: no device waits here."""
    waits: list[float] = []
    real = delivery.tunnel

    def tunnel(node: Node, call: OutgoingCall, *, answer: float, **options: Any) -> Any:
        waits.append(answer)
        return real(node, call, answer=answer, **options)

    monkeypatch.setattr(delivery, "tunnel", tunnel)
    async with taking(tmp_path) as it:
        await it.left(b"object")
        await it.becomes(delivered=1)
    assert min(waits) > DEFAULT_PLACE_WAIT + 2 * DEFAULT_ANSWER_WAIT
