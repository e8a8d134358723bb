"""A call that comes in: what is no call, who may not, and what a device is asked and shown."""

from pathlib import Path

import pytest

from relay.dicom import pdu, uids
from relay.errors import HandshakeError, Refusal
from relay.identity import Identity, Publication
from relay.invitation import Contact
from relay.router.devices import Device
from relay.router.grants import Grant
from relay.router.incoming import IncomingCall, check, live_entry
from relay.router.live import Side
from relay.router.node import unix_time
from relay.router.peers import Trust
from relay.signalling import messages
from relay.tunnel.handshake import PendingOpening, Purpose, accept_opening
from tests.router.fakes import (
    CT,
    NETWORK,
    TwoHospitals,
    listing,
    proposal,
    two_hospitals,
    yes_to_all,
)
from tests.router.openings import granted, opening


async def called(
    both: TwoHospitals,
    pending: PendingOpening,
    *,
    session: bytes | None = None,
    called: str | None = None,
) -> IncomingCall:
    """What B makes of an opening; `session`, `called`: the Bridge's words."""
    caller = both.a.identity.public
    message = messages.Open(
        session or pending.session,
        caller,
        called or pending.header.called,
        pending.opening,
        pending.sealed_request,
    )
    received = accept_opening(
        both.b.identity,
        both.b.keyring.pairs,
        NETWORK,
        caller,
        message.opening,
        message.request,
        unix_time(),
    )
    return await check(both.b, both.b.joined(), message, received)


async def refusal(both: TwoHospitals, pending: PendingOpening, **words: object) -> Refusal | None:
    try:
        await called(both, pending, **words)  # type: ignore[arg-type]
    except HandshakeError as error:
        return error.refusal
    return None


async def test_what_the_device_is_asked_is_what_is_granted(tmp_path: Path) -> None:
    async with granted(tmp_path) as both:
        call = await called(both, opening(both, pdu.encode(proposal(CT, uids.VERIFICATION))))
        assert call.device == both.pacs
        assert call.permission.services == {"store"}
        assert [context.abstract_syntax for context in call.proposal().contexts] == [CT]


async def test_what_runs_rests_on_its_grant(tmp_path: Path) -> None:
    async with granted(tmp_path) as both:
        call = await called(both, opening(both))
        entry = live_entry(both.b, both.b.joined(), call)
        assert (entry.side, entry.device, entry.called) == (Side.CALLEE, "PACS", "PACS")
        assert entry.still_permitted()
        await both.b.remove_grant(next(iter(both.b.grants)).id)
        assert not entry.still_permitted()


async def test_what_the_bridge_says_is_what_the_header_says(tmp_path: Path) -> None:
    """PROTOCOL.md §8.2, step 8; such a message does not use the opening up."""
    async with granted(tmp_path) as both:
        pending = opening(both)
        assert await refusal(both, pending, called="OTHER") is Refusal.MALFORMED
        assert await refusal(both, pending, session=b"s" * 16) is Refusal.MALFORMED
        assert await refusal(both, pending) is None


async def test_only_an_associate_rq_to_the_called_title_opens_an_association(
    tmp_path: Path,
) -> None:
    async with granted(tmp_path) as both:
        for request in (
            pdu.encode(pdu.AReleaseRQ()),
            pdu.encode(proposal(CT)) + b"\0",
            pdu.encode(proposal(CT, called="OTHER")),
        ):
            assert await refusal(both, opening(both, request)) is Refusal.MALFORMED


async def test_contacts_only(tmp_path: Path) -> None:
    async with granted(tmp_path, Trust.CONTACTS) as both:
        assert await refusal(both, opening(both)) is Refusal.UNTRUSTED_PEER
        await both.b.verify_peer(Contact(both.a.identity.public, "Hospital A"))
        assert await refusal(both, opening(both)) is None


async def test_a_grant_for_other_callers_is_none(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, published=["store"]) as both:
        caller = both.a.identity.public
        await both.b.add_grant(Grant(caller, "PACS", frozenset({"store"}), frozenset({"OTHER"})))
        assert await refusal(both, opening(both)) is Refusal.NOT_GRANTED


@pytest.mark.parametrize("purpose", [Purpose.DELIVERY, Purpose.KNOWLEDGE])
async def test_what_is_queued_needs_store_itself(tmp_path: Path, purpose: Purpose) -> None:
    async with granted(tmp_path) as both:
        call = await called(both, opening(both, purpose=purpose))
        assert (call.received.purpose, call.permission.services) == (purpose, {"store"})
        other = opening(both, pdu.encode(proposal(CT, calling="OTHER")), purpose=purpose)
        (grant,) = both.b.grants
        await both.b.remove_grant(grant.id)
        # Not only because a device here has asked for a C-MOVE.
        both.b.moves.ask(both.a.identity.public, "PACS")
        assert await refusal(both, other) is Refusal.NOT_GRANTED
        live = opening(both, pdu.encode(proposal(CT, calling="OTHER")))
        assert await refusal(both, live) is None


@pytest.mark.parametrize("why", [Refusal.UNTRUSTED_PEER, Refusal.NOT_GRANTED])
async def test_a_stranger_cannot_fill_the_memory_of_openings(tmp_path: Path, why: Refusal) -> None:
    """The Bridge lets through whoever has granted us something, of which we need not know."""
    trust = Trust.CONTACTS if why is Refusal.UNTRUSTED_PEER else Trust.FIRST_USE
    async with granted(tmp_path, trust) as both:
        for grant in list(both.b.grants):
            await both.b.remove_grant(grant.id)
        assert await refusal(both, opening(both)) is why
        count = await both.b.database.run(
            lambda connection: connection.execute("SELECT count(*) FROM opening").get
        )
        assert count == 0


@pytest.mark.parametrize(
    "calling",
    [
        "PACS",  # the called device itself
        "NORTH_WS",  # as the network knows another device here
        "WS",  # as it is called here
        "OUTSIDE",  # what a device here is told instead of all others' names
        "THIRD",  # published by another hospital than the one that calls
    ],
)
async def test_a_caller_that_takes_another_ones_name(tmp_path: Path, calling: str) -> None:
    async with granted(tmp_path) as both:
        await both.b.put_device(
            Device("WS", "127.0.0.1", published="NORTH_WS", present_as="OUTSIDE")
        )
        third = Identity.from_seed(b"t" * 32)
        statement = Publication(NETWORK, "THIRD", ("store",), 1).sign(third)
        await both.b.joined().directory.take(listing(both.a, whole=False, publications=[statement]))
        pending = opening(both, pdu.encode(proposal(CT, calling=calling)))
        assert await refusal(both, pending) is Refusal.AMBIGUOUS_CALLING
