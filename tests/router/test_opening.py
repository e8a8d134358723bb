"""The callee's side: what is refused, and with which word; what ends when a grant goes."""

from pathlib import Path

import attrs
import pytest
import trio

from relay.dicom import pdu, uids
from relay.dicom.pdu import AAbort, AAssociateRJ
from relay.errors import Refusal
from relay.router.grants import Grant
from relay.router.node import unix_time
from relay.tunnel.handshake import Purpose
from tests.router.fakes import CT, proposal
from tests.router.openings import granted, opening, refusal


async def test_refusals(tmp_path: Path) -> None:
    async with granted(tmp_path) as both:
        old = opening(both, now=unix_time() - 4 * 3600)
        assert await refusal(both, old) is Refusal.EXPIRED
        assert await refusal(both, opening(both, called="WS")) is Refusal.UNKNOWN_DEVICE
        assert await refusal(both, opening(both, b"no PDU")) is Refusal.MALFORMED
        other = pdu.encode(proposal(CT, called="OTHER"))
        assert await refusal(both, opening(both, other)) is Refusal.MALFORMED
        for purpose in (Purpose.DELIVERY, Purpose.KNOWLEDGE):  # this Router has no queue
            queued = opening(both, purpose=purpose)
            assert await refusal(both, queued) is Refusal.NOT_SPECIFIED
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
        # Signed, so that it is not taken for the device's own word.
        nothing = pdu.encode(proposal(uids.VERIFICATION))
        assert await refusal(both, opening(both, nothing)) is Refusal.NOT_GRANTED
        device, answer = await both.call(proposal(uids.VERIFICATION))
        assert answer == AAssociateRJ(1, 1, 3)
        await device.aclose()


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
