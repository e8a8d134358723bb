"""Reaching a device: no room there, no answer, and what ends while it is called."""

from pathlib import Path

import attrs
import pytest
import trio

from relay.dicom.pdu import AAssociateRJ
from relay.errors import Refusal
from relay.router import reaching
from relay.router.devices import Device
from relay.router.node import Node
from tests.router.fakes import CT, proposal
from tests.router.openings import granted, opening, refusal


async def test_no_room_at_the_owner_is_a_limit(tmp_path: Path) -> None:
    async with granted(tmp_path) as both:
        await both.b.put_device(attrs.evolve(both.pacs, maximum_associations=1, place_wait=0))
        first, _ = await both.call(proposal(CT))
        second, answer = await both.call(proposal(CT))
        assert answer == AAssociateRJ(2, 3, 2)
        await second.aclose()
        await first.abort()
        await first.aclose()


@pytest.mark.parametrize("revoked", [True, False])
async def test_what_ends_while_the_device_is_called_is_refused_for_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revoked: bool
) -> None:
    async def hangs(node: Node, device: Device) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(reaching, "connect", hangs)
    async with granted(tmp_path) as both, trio.open_nursery() as nursery:
        refusals: list[Refusal] = []

        async def open_and_wait() -> None:
            refusals.append(await refusal(both, opening(both)))

        nursery.start_soon(open_and_wait)
        while not len(both.b.live):
            await trio.sleep(0.001)
        if revoked:
            await both.b.remove_grant(next(iter(both.b.grants)).id)
        else:
            both.b.live.end_all()  # the Router stops: another try may succeed
        await both.b.live.wait_empty()
        while not refusals:
            await trio.sleep(0.001)
        assert refusals == [Refusal.NOT_GRANTED if revoked else Refusal.BUSY]


async def test_a_devices_answer_wait_is_its_own(tmp_path: Path) -> None:
    async with granted(tmp_path) as both:
        patient = attrs.evolve(both.pacs, answer_wait=120.0)
        connection = await reaching.connect(both.b, patient)
        assert connection._timeouts.association_answer > 120
        await connection.aclose()
