"""The callee's side: what is refused, and with which word; what ends when a grant goes."""

from pathlib import Path

import attrs
import pytest
import trio

from relay.dicom import pdu, uids
from relay.dicom.pdu import AAbort, AAssociateRJ
from relay.errors import Refusal
from relay.router import opening as module
from relay.router.devices import Device
from relay.router.grants import Grant
from relay.router.node import Node, unix_time
from relay.router.opening import serve_opening
from relay.signalling import messages
from relay.tunnel.handshake import PendingOpening, Purpose
from tests.router.fakes import CT, TwoHospitals, proposal
from tests.router.openings import granted, opening


async def refusal(
    both: TwoHospitals,
    pending: PendingOpening,
    *,
    session: bytes | None = None,
    called: str | None = None,
) -> Refusal:
    """What B answers to an opening that is not served; `session`, `called`: the Bridge's words."""
    message = messages.Open(
        session or pending.session,
        both.a.identity.public,
        called or pending.header.called,
        pending.opening,
        pending.sealed_request,
    )
    await serve_opening(both.b, message)
    (refused,) = [m for m in both.bridge.passed if isinstance(m, messages.Refuse)]
    both.bridge.passed.clear()
    return pending.check_refusal(refused.refusal)


async def test_refusals(tmp_path: Path) -> None:
    async with granted(tmp_path) as both:
        old = opening(both, now=unix_time() - 4 * 3600)
        assert await refusal(both, old) is Refusal.EXPIRED
        assert await refusal(both, opening(both, called="WS")) is Refusal.UNKNOWN_DEVICE
        assert await refusal(both, opening(both, b"no PDU")) is Refusal.MALFORMED
        other = pdu.encode(proposal(CT, called="OTHER"))
        assert await refusal(both, opening(both, other)) is Refusal.MALFORMED
        delivery = opening(both, purpose=Purpose.DELIVERY)
        assert await refusal(both, delivery) is Refusal.NOT_SPECIFIED
        tampered = opening(both)
        tampered.sealed_request = bytes(len(tampered.sealed_request))
        assert await refusal(both, tampered) is Refusal.MALFORMED


async def test_an_opening_is_served_once(tmp_path: Path) -> None:
    async with granted(tmp_path) as both:
        await both.b.put_device(attrs.evolve(both.pacs, port=1))
        pending = opening(both)
        assert await refusal(both, pending) is Refusal.BUSY
        assert await refusal(both, pending) is Refusal.REPLAY


async def test_a_grant_that_covers_no_context_is_a_rejection(tmp_path: Path) -> None:
    async with granted(tmp_path) as both:
        device, answer = await both.call(proposal(uids.VERIFICATION))
        assert answer == AAssociateRJ(1, 1, 3)
        await device.aclose()


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

    monkeypatch.setattr(module, "_connect", hangs)
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
        connection = await module._connect(both.b, patient)
        assert connection._timeouts.association_answer > 120
        await connection.aclose()


@pytest.mark.parametrize("what", ["grant", "device", "publication"])
async def test_taking_back_ends_what_rests_on_it_within_five_seconds(
    tmp_path: Path, what: str
) -> None:
    async with granted(tmp_path) as both:
        device, _ = await both.call(proposal(CT))
        with trio.fail_after(5):
            if what == "grant":
                await both.b.remove_grant(next(iter(both.b.grants)).id)
            elif what == "device":
                await both.b.remove_device("PACS")
            else:
                await both.b.put_device(attrs.evolve(both.pacs, services=frozenset({"echo"})))
            assert isinstance(await device.receive(), AAbort)
            await both.b.live.wait_empty()
        await device.aclose()


async def test_another_grant_keeps_it_alive(tmp_path: Path) -> None:
    async with granted(tmp_path) as both:
        caller = both.a.identity.public
        device, _ = await both.call(proposal(CT))
        first = next(iter(both.b.grants))
        await both.b.add_grant(Grant(caller, "PACS", frozenset({"store"}), frozenset({"WS"})))
        await both.b.remove_grant(first.id)
        assert len(both.b.live) == 1
        await device.abort()
        await device.aclose()
