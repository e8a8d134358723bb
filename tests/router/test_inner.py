"""An association inside this process: the same conversations as over TCP, and both bounds."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.testing

from relay import scu
from relay.association import Gathering
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
)
from relay.errors import AssociationAborted, AssociationRejected, LocalProtocolError
from relay.router.inner import MAXIMUM_COMING, MAXIMUM_COMING_BYTES, InnerAssociation, pair
from tests.association_pairs import IMPLICIT, REQUEST, VERIFICATION, accept_all, pdv

CONTEXT = AcceptedContext(1, VERIFICATION, IMPLICIT)


async def established() -> tuple[InnerAssociation, InnerAssociation]:
    requestor, acceptor = pair()
    await requestor.send(REQUEST)
    rq = await acceptor.receive()
    assert isinstance(rq, AAssociateRQ)
    await acceptor.send(accept_all(rq))
    assert isinstance(await requestor.receive(), AAssociateAC)
    return requestor, acceptor


async def test_it_serves_and_is_served_as_any_other() -> None:
    requestor, acceptor = pair()
    assert isinstance(requestor, Gathering)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                rq = await acceptor.receive()
                assert isinstance(rq, AAssociateRQ)

                await scu.respond_to_echo(acceptor, rq)

            nursery.start_soon(serve)
            await scu.negotiate(requestor, REQUEST)
            assert await scu.echo(requestor, CONTEXT) == 0
            await scu.release(requestor)
    assert (requestor.cause, acceptor.cause) == ("released", "released")
    assert requestor.over
    assert acceptor.over


async def test_an_answer_repeats_the_titles_of_its_request() -> None:
    requestor, acceptor = pair()
    await requestor.send(REQUEST)
    await acceptor.receive()
    await acceptor.send(AAssociateAC("OTHER", "ELSE", ()))
    ac = await requestor.receive()
    assert isinstance(ac, AAssociateAC)
    assert (ac.called, ac.calling) == (REQUEST.called, REQUEST.calling)


async def test_a_rejection_ends_both() -> None:
    requestor, acceptor = pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await acceptor.receive()
            await acceptor.send(AAssociateRJ(1, 1, 7))

        nursery.start_soon(serve)
        with pytest.raises(AssociationRejected):
            await scu.negotiate(requestor, REQUEST)
    assert "called AE title not recognized" in requestor.cause
    for end in (requestor, acceptor):
        with pytest.raises(AssociationAborted):
            await end.send(pdv(b"late"))
    with pytest.raises(LocalProtocolError, match="after the end"):
        await requestor.receive()
    assert isinstance(await acceptor.receive(), AAbort)  # nobody waits for more than that


async def test_what_comes_is_seen_before_it_is_taken() -> None:
    requestor, acceptor = await established()
    await requestor.send_all([pdv(b"ab", last=False), pdv(b"cd")])
    assert await acceptor.wait_indication() == pdv(b"ab", last=False)
    assert await acceptor.receive_some() == [pdv(b"ab", last=False), pdv(b"cd")]
    with trio.move_on_after(0.01) as waiting:
        await acceptor.wait_indication()
    assert waiting.cancelled_caught


@pytest.mark.parametrize("first", ["requestor", "acceptor"])
async def test_two_releases_cross(first: str) -> None:
    """PS3.8 §9.2.3: who requested the association answers first."""
    requestor, acceptor = await established()
    one, other = (requestor, acceptor) if first == "requestor" else (acceptor, requestor)
    await one.send(AReleaseRQ())
    await other.send(AReleaseRQ())
    assert isinstance(await requestor.receive(), AReleaseRQ)
    assert isinstance(await acceptor.receive(), AReleaseRQ)
    with pytest.raises(LocalProtocolError):
        await acceptor.send(AReleaseRP())  # Sta10: not its turn
    await requestor.send(AReleaseRP())
    assert isinstance(await acceptor.receive(), AReleaseRP)
    await acceptor.send(AReleaseRP())
    assert isinstance(await requestor.receive(), AReleaseRP)
    assert requestor.over
    assert acceptor.over


async def test_data_may_follow_a_release_until_it_is_answered() -> None:
    """PS3.8 §7.2.2.1."""
    requestor, acceptor = await established()
    await requestor.send(AReleaseRQ())
    assert isinstance(await acceptor.receive(), AReleaseRQ)
    await acceptor.send(pdv(b"ab"))
    await acceptor.send(AReleaseRP())
    assert await requestor.receive_some() == [pdv(b"ab"), AReleaseRP()]
    with pytest.raises(AssociationAborted):
        await requestor.send(pdv(b"ab"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda requestor, acceptor: requestor.receive(),
        lambda requestor, acceptor: requestor.send(pdv(b"ab")),
        lambda requestor, acceptor: requestor.send(AReleaseRQ()),
        lambda requestor, acceptor: acceptor.send(REQUEST),
        lambda requestor, acceptor: acceptor.send(AReleaseRP()),
        lambda requestor, acceptor: acceptor.send(accept_all(REQUEST)),
    ],
)
async def test_what_the_state_does_not_allow_changes_nothing(
    wrong: Callable[[InnerAssociation, InnerAssociation], Awaitable[object]],
) -> None:
    requestor, acceptor = pair()
    with pytest.raises(LocalProtocolError):
        await wrong(requestor, acceptor)
    await requestor.send(REQUEST)
    assert isinstance(await acceptor.receive(), AAssociateRQ)
    with pytest.raises(LocalProtocolError):
        await requestor.send(REQUEST)


@pytest.mark.parametrize("size", [2, 64 * 1024])
async def test_who_sends_more_than_is_taken_waits(size: int) -> None:
    requestor, acceptor = await established()
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await requestor.send(PDV(1, False, False, bytes(size)))
            sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        room = min(MAXIMUM_COMING, MAXIMUM_COMING_BYTES // size)
        assert sent == room
        await acceptor.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert sent == room + 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("who", ["itself", "the other"])
async def test_an_abort_ends_who_waits_to_send_or_to_receive(who: str) -> None:
    requestor, acceptor = await established()
    heard: list[object] = []

    async def send() -> None:
        with suppress(AssociationAborted):
            while True:
                await requestor.send(PDV(1, False, False, bytes(64 * 1024)))

    async def receive() -> None:
        heard.append(await requestor.receive())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await (requestor if who == "itself" else acceptor).abort(2, 1)
    assert heard == [AAbort(2, 0 if who == "itself" else 1)]
    if who == "itself":
        *fragments, last = await acceptor.receive_some()
        assert len(fragments) == 4
        assert last == AAbort(2, 1)
        assert acceptor.cause == "aborted: source 2, reason 1"


async def test_closing_is_an_abort_of_what_is_not_over() -> None:
    requestor, acceptor = await established()
    await requestor.aclose()
    await requestor.aclose()
    await requestor.abort()
    assert await acceptor.receive() == AAbort(0, 0)
    with pytest.raises(LocalProtocolError):
        await acceptor.receive()


async def test_a_peer_that_left_before_it_spoke_is_heard_to_have_left() -> None:
    requestor, acceptor = pair()
    await requestor.aclose()
    assert isinstance(await acceptor.receive(), AAbort)


async def test_a_send_that_is_cancelled_sends_nothing() -> None:
    requestor, acceptor = await established()
    fragment = PDV(1, False, False, bytes(MAXIMUM_COMING_BYTES))
    await requestor.send(fragment)
    with trio.move_on_after(0.01) as waiting:
        await requestor.send(pdv(b"late"))
    assert waiting.cancelled_caught
    assert await acceptor.receive_some() == [fragment]
    await requestor.send(pdv(b"ab"))
    assert await acceptor.receive() == pdv(b"ab")
