"""The caller's side, and with it a whole way through: device, Router, tunnel, Router, device."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from relay.association import TCPAssociation
from relay.dicom import uids
from relay.dicom.dimse import Status
from relay.dicom.negotiation import (
    AcceptedContext,
    UserIdentityRQ,
    UserIdentityType,
    accepted_contexts,
    find,
    request,
)
from relay.dicom.pdu import AAbort, AAssociateAC, AAssociateRJ, AAssociateRQ, Atom
from relay.dicom.upperlayer import Role
from relay.errors import AssociationAborted
from relay.router.aliases import Alias
from relay.router.calling import serve_device
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.settings import FederationSettings
from relay.router.grants import Grant
from relay.scu import echo, release, store
from tests.router.fakes import (
    CT,
    IMPLICIT,
    TwoHospitals,
    acceptance,
    listing,
    proposal,
    publication,
    two_hospitals,
    yes_to_all,
)


async def test_a_device_stores_at_a_device_far_away(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store", "echo") as both:
        rq = proposal(CT, uids.VERIFICATION, uids.STUDY_ROOT_FIND)
        device, ac = await both.call(rq)
        assert isinstance(ac, AAssociateAC)
        assert [(r.id, r.result) for r in ac.contexts] == [(1, 0), (3, 0), (5, 1)]
        contexts = accepted_contexts(rq, ac)
        assert await echo(device, contexts[3]) == 0
        assert await store(device, contexts[1], CT, "1.2.3", bytes(100_000), message_id=2) == 0
        assert [entry.side.value for entry in both.a.live] == ["caller"]
        assert [entry.side.value for entry in both.b.live] == ["callee"]
        await release(device)
        await device.aclose()
        await both.a.live.wait_empty()
        await both.b.live.wait_empty()


async def test_what_is_not_granted_is_refused_by_the_owners_router(tmp_path: Path) -> None:
    published = ["store", "retrieve", "echo"]
    async with two_hospitals(tmp_path, yes_to_all, "retrieve", published=published) as both:
        rq = proposal(CT, uids.STUDY_ROOT_GET, scp=[CT])
        device, ac = await both.call(rq)
        assert isinstance(ac, AAssociateAC)
        context = AcceptedContext(1, CT, IMPLICIT)
        assert await store(device, context, CT, "1.2.3", bytes(100)) == Status.NOT_AUTHORIZED
        await device.abort()
        await device.aclose()


@pytest.mark.parametrize(
    ("rq", "rejection"),
    [
        (proposal(CT, calling="STRANGER"), AAssociateRJ(1, 1, 3)),
        (proposal(CT, called="NOBODY"), AAssociateRJ(1, 1, 7)),
        (proposal(uids.STUDY_ROOT_FIND), AAssociateRJ(1, 1, 3)),
    ],
)
async def test_what_cannot_be_is_rejected(
    tmp_path: Path, rq: AAssociateRQ, rejection: AAssociateRJ
) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        device, answer = await both.call(rq)
        assert answer == rejection
        await device.aclose()


async def rejected(both: TwoHospitals, rq: AAssociateRQ) -> tuple[int, int, int]:
    device, answer = await both.call(rq)
    await device.aclose()
    assert isinstance(answer, AAssociateRJ)
    return (answer.result, answer.source, answer.reason)


async def test_without_a_grant_without_a_connection_without_room(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, published=["store"]) as both:
        assert await rejected(both, proposal(CT)) == (1, 1, 3)
        both.bridge.cut(both.bridge.caller)
        assert await rejected(both, proposal(CT)) == (2, 3, 1)
        both.bridge.restore(both.bridge.caller)
        await both.a.put_device(Device("WS", "192.0.2.1"))
        assert await rejected(both, proposal(CT)) == (1, 1, 3)  # not from its address
        await both.a.put_device(Device("WS", "192.0.2.1", check_address=False))
        assert await rejected(both, proposal(CT)) == (1, 1, 3)  # nothing granted, still


async def test_a_device_has_its_maximum_of_associations(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        await both.a.put_device(Device("WS", "127.0.0.1", maximum_associations=1, place_wait=0))
        first, answer = await both.call(proposal(CT))
        assert isinstance(answer, AAssociateAC)
        assert await rejected(both, proposal(CT)) == (2, 3, 2)
        await release(first)
        await first.aclose()


async def test_a_device_that_is_switched_off_is_a_transient_rejection(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        await both.b.put_device(Device("PACS", "127.0.0.1", 1, services=frozenset({"store"})))
        assert await rejected(both, proposal(CT)) == (2, 3, 1)


async def test_a_device_that_gives_up_waiting_frees_the_far_one_at_once(tmp_path: Path) -> None:
    heard: list[Atom] = []

    async def silent(association: TCPAssociation) -> None:
        await association.receive()  # the request, which it never answers
        heard.append(await association.receive())

    async with two_hospitals(tmp_path, silent, "store") as both:
        near, far = trio.testing.memory_stream_pair()
        device = TCPAssociation(near, Role.REQUESTOR, host="127.0.0.1")
        router = TCPAssociation(far, Role.ACCEPTOR, host="127.0.0.1")
        both.nursery.start_soon(both._serve, router, False)
        await device.send(proposal(CT))
        while not len(both.b.live):
            await trio.sleep(0.001)
        with trio.fail_after(2):
            await device.abort()
            await both.a.live.wait_empty()
            await both.b.live.wait_empty()
        await device.aclose()
    # An A-ABORT, or nothing at all where the opening was withdrawn before the device was called.
    assert all(isinstance(atom, AAbort) for atom in heard)


async def test_a_changed_binding_carries_nothing(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        device, _ = await both.call(proposal(CT))
        stolen = publication(both.a, "PACS", "store", serial=9)
        await both.a.joined().directory.take(listing(both.b, whole=False, publications=[stolen]))
        both.a.live.recheck()
        assert isinstance(await device.receive(), AAbort)
        await device.aclose()
        assert await rejected(both, proposal(CT)) == (1, 1, 3)


async def test_the_router_answers_an_echo_itself(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        rq = proposal(uids.VERIFICATION, CT, called="RELAY_A")
        device, ac = await both.call(rq)
        assert isinstance(ac, AAssociateAC)
        (context,) = accepted_contexts(rq, ac).values()
        assert await echo(device, context) == 0
        await release(device)
        await device.aclose()


async def test_the_command_line_calls_as_the_router(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        device, answer = await both.call(proposal(CT, calling="RELAY_A"), local=True)
        assert isinstance(answer, AAssociateAC)
        await release(device)
        await device.aclose()
        device, answer = await both.call(proposal(CT, calling="WS"), local=True)
        assert answer == AAssociateRJ(1, 1, 3)
        await device.aclose()


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_user_identity_crosses_only_if_both_hospitals_say_so(
    tmp_path: Path, allowed: bool
) -> None:
    seen: list[AAssociateRQ] = []

    async def scp(association: TCPAssociation) -> None:
        heard = await association.receive()
        assert isinstance(heard, AAssociateRQ)
        seen.append(heard)
        await association.send(AAssociateRJ(1, 1, 1))

    identity = UserIdentityRQ(UserIdentityType.USERNAME, False, b"radiologist")
    async with two_hospitals(tmp_path, scp, "store") as both:
        await both.a.put_device(Device("WS", "127.0.0.1", user_identity=allowed))
        grant = next(iter(both.b.grants))
        await both.b.remove_grant(grant.id)
        await both.b.add_grant(
            type(grant)(grant.grantee, "PACS", grant.services, user_identity=allowed)
        )
        rq = request("PACS", "WS", proposal(CT).contexts, identity)
        assert await rejected(both, rq) == (1, 1, 1)
    assert bool(find(seen[0].user_items, UserIdentityRQ)) is allowed


async def test_an_association_ends_when_its_device_is_removed(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        device, _ = await both.call(proposal(CT))
        with trio.fail_after(5):
            await both.a.remove_device("WS")
            assert isinstance(await device.receive(), AAbort)
            await both.b.live.wait_empty()
        await device.aclose()


async def test_why_a_call_is_refused_is_kept_for_people(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, published=["store"]) as both:
        for rq, local, words in (
            (proposal(CT), False, "Hospital RELAY_B has granted this Router nothing of PACS"),
            (proposal(CT, called="NOBODY"), False, "not published"),
            (proposal(CT, calling="RELAY_A", called="WS"), True, "relay device test WS"),
        ):
            device, answer = await both.call(rq, local=local)
            assert isinstance(answer, AAssociateRJ)
            await device.aclose()
            await both.a.live.wait_empty()
            await trio.testing.wait_all_tasks_blocked()
            newest = next(iter(both.a.refusals))
            assert words in newest.why
            assert newest.called == rq.called
        both.bridge.cut(both.bridge.caller)
        await rejected(both, proposal(CT))
        assert "no connection to the Bridge: `relay doctor` says" in next(iter(both.a.refusals)).why


async def test_a_refusal_is_forgotten_once_the_call_comes_about(tmp_path: Path) -> None:
    """By the title that the device has for the other one: an alias, here."""
    async with two_hospitals(tmp_path, yes_to_all, published=["store"]) as both:
        await both.a.put_alias(Alias("NORTH_PACS", "PACS"))
        await rejected(both, proposal(CT, called="NORTH_PACS"))
        await rejected(both, proposal(CT, called="NOBODY"))
        await both.a.live.wait_empty()
        asked, unknown = sorted(both.a.refusals, key=lambda refusal: refusal.called, reverse=True)
        assert (asked.calling, asked.called) == ("WS", "NORTH_PACS")
        assert "relay peer list" in unknown.why
        grant = Grant(both.a.identity.public, "PACS", frozenset({"store"}))
        await both.b.add_grant(grant)
        device, answer = await both.call(proposal(CT, called="NORTH_PACS"))
        assert isinstance(answer, AAssociateAC)
        assert list(both.a.refusals) == [unknown]
        await release(device)
        await device.aclose()


async def test_a_calling_title_that_means_another_device_there(tmp_path: Path) -> None:
    """Both hospitals have a WS: the far one is asked to give this one another name."""
    seen: list[str] = []

    async def scp(association: TCPAssociation) -> None:
        heard = await association.receive()
        assert isinstance(heard, AAssociateRQ)
        seen.append(heard.calling)
        await association.send(AAssociateRJ(1, 1, 1))

    async with two_hospitals(tmp_path, scp, "store") as both:
        await both.b.put_device(Device("WS", "127.0.0.1", published="NORTH_WS"))
        assert await rejected(both, proposal(CT)) == (1, 1, 3)
        await both.a.live.wait_empty()
        assert "`relay alias add LOCAL WS`" in next(iter(both.a.refusals)).why
        assert "`relay alias add LOCAL WS`" in next(iter(both.b.refusals)).why
        assert not seen
        await both.b.put_alias(Alias("SOUTH_WS", "WS"))
        assert await rejected(both, proposal(CT)) == (1, 1, 1)
        assert seen == ["SOUTH_WS"]
        assert not list(both.b.refusals)


async def test_an_abort_that_the_device_did_not_ask_for_is_kept_for_people(tmp_path: Path) -> None:
    accepted = trio.Event()

    async def scp(association: TCPAssociation) -> None:
        heard = await association.receive()
        assert isinstance(heard, AAssociateRQ)
        await association.send(acceptance(heard))
        await accepted.wait()
        await association.abort()

    async with two_hospitals(tmp_path, scp, "store") as both:
        device, answer = await both.call(proposal(CT))
        assert isinstance(answer, AAssociateAC)
        accepted.set()
        assert isinstance(await device.receive(), AAbort)
        await both.a.live.wait_empty()
        (refusal,) = both.a.refusals
        assert refusal.why == "the association was aborted: by PACS of Hospital RELAY_B"
        await device.aclose()


# --- the federation -------------------------------------------------------------------------------


@asynccontextmanager
async def calls_federation(
    both: TwoHospitals, rq: AAssociateRQ, federation: Federation | None, *, local: bool = False
) -> AsyncIterator[tuple[TCPAssociation, Atom]]:
    """A device of A calls, and what it hears first."""
    near, far = trio.testing.memory_stream_pair()
    device = TCPAssociation(near, Role.REQUESTOR, host="127.0.0.1")
    router = TCPAssociation(far, Role.ACCEPTOR, host="" if local else "127.0.0.1")

    async def serve() -> None:
        try:
            with suppress(AssociationAborted):  # the listener logs it
                await serve_device(both.a, router, federation=federation, local=local)
        finally:
            await router.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await device.send(rq)
        yield device, await device.receive()
        await device.abort()
        await device.aclose()


@pytest.mark.parametrize("local", [False, True])
async def test_a_device_calls_the_federation(tmp_path: Path, local: bool) -> None:
    rq = proposal(uids.VERIFICATION, called="FEDERATION", calling="RELAY_A" if local else "WS")
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        both.a.refusals.note(rq.calling, "FEDERATION", "it was off")
        async with calls_federation(both, rq, Federation(both.a), local=local) as (device, answer):
            assert isinstance(answer, AAssociateAC)
            assert await echo(device, AcceptedContext(1, uids.VERIFICATION, IMPLICIT)) == 0
            [entry] = both.a.live
            assert (entry.calling, entry.called) == (rq.calling, "FEDERATION")
            assert len(both.a.places._taken) == 1
            assert not list(both.a.refusals)
        assert not len(both.a.live)
        assert not both.a.places._taken


async def test_its_association_ends_when_the_device_is_removed(tmp_path: Path) -> None:
    rq = proposal(uids.VERIFICATION, called="FEDERATION")
    async with (
        two_hospitals(tmp_path, yes_to_all, "store") as both,
        calls_federation(both, rq, Federation(both.a)) as (device, _),
    ):
        with trio.fail_after(5):
            await both.a.remove_device("WS")
            assert isinstance(await device.receive(), AAbort)


@pytest.mark.parametrize(
    ("calling", "title", "rejection"),
    [
        ("STRANGER", "FEDERATION", AAssociateRJ(1, 1, 3)),
        ("WS", "ALL", AAssociateRJ(1, 1, 7)),  # it is called by another title
        ("WS", "", AAssociateRJ(1, 1, 7)),  # there is none
    ],
)
async def test_who_cannot_call_it(
    tmp_path: Path, calling: str, title: str, rejection: AAssociateRJ
) -> None:
    rq = proposal(uids.VERIFICATION, called="FEDERATION", calling=calling)
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        settings = FederationSettings(ae_title=title)
        federation = Federation(both.a, settings) if title else None
        async with calls_federation(both, rq, federation) as (_, answer):
            assert answer == rejection


async def test_its_callers_have_their_maximum_of_associations(tmp_path: Path) -> None:
    rq = proposal(uids.VERIFICATION, called="FEDERATION")
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        await both.a.put_device(Device("WS", "127.0.0.1", maximum_associations=1, place_wait=0))
        federation = Federation(both.a)
        async with (
            calls_federation(both, rq, federation),
            calls_federation(both, rq, federation) as (_, answer),
        ):
            assert answer == AAssociateRJ(2, 3, 2)


@pytest.mark.parametrize("queries", [False, True])
async def test_what_is_stored_to_it_goes_to_the_device_of_the_configuration(
    tmp_path: Path, queries: bool
) -> None:
    """Not where queries go over the same association: those are for the federation itself."""
    classes = [CT, uids.VERIFICATION, *([uids.STUDY_ROOT_FIND] if queries else [])]
    rq = proposal(*classes, called="FEDERATION")
    async with two_hospitals(tmp_path, yes_to_all, "store", "echo") as both:
        await both.a.put_alias(Alias("NORTH_PACS", "PACS"))
        federation = Federation(both.a, FederationSettings(store_to="NORTH_PACS"))
        async with calls_federation(both, rq, federation) as (device, answer):
            assert isinstance(answer, AAssociateAC)
            assert answer.called == "FEDERATION"
            assert len(both.b.live) == (not queries)
            if not queries:
                context = AcceptedContext(1, CT, IMPLICIT)
                assert await store(device, context, CT, "1.2.3", bytes(1000)) == 0
