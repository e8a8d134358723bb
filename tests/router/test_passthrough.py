"""Two fake associations, or two real ones over sockets, joined with real guards."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trio.testing

from relay.association import TCPAssociation
from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandSet, Status
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
)
from relay.dicom.rejection import TEMPORARY_CONGESTION
from relay.dicom.upperlayer import Role
from relay.errors import DatabaseError
from relay.router.border import Crossing
from relay.router.contexts import granted, with_rejections
from relay.router.direction import PassOn, Verdict
from relay.router.guard import Guard
from relay.router.passthrough import RELEASE_WAIT, Ending, How, join
from relay.router.side import MAXIMUM_REPLIES
from tests.router.fakes import (
    CT,
    FakeAssociation,
    FakeBorder,
    acceptance,
    command,
    data,
    echo_rq,
    find_rq,
    get_rq,
    move_rq,
    proposal,
    read,
    store_rq,
)

REQUEST = proposal(uids.VERIFICATION, CT, uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_GET, scp=[CT])


@attrs.define
class Joined:
    """A device and a tunnel, joined. On the caller's side the device is the requestor."""

    requestor: FakeAssociation
    acceptor: FakeAssociation
    endings: list[Ending] = attrs.field(factory=list)
    done: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def ending(self) -> Ending:
        await self.done.wait()
        return self.endings[0]


@asynccontextmanager
async def joined(
    services: Collection[str] | None = None,
    *,
    caller_side: bool = True,
    established: bool = True,
    answer_wait: float = 25,
) -> AsyncIterator[Joined]:
    pair = Joined(FakeAssociation(), FakeAssociation())
    proposed = REQUEST if services is None else granted(REQUEST, services)
    guard = Guard(proposed, services, FakeBorder())

    async def run() -> None:
        try:
            with pair.scope:
                pair.endings.append(
                    await join(
                        pair.requestor,
                        pair.acceptor,
                        guard,
                        tunnel=pair.acceptor if caller_side else pair.requestor,
                        answer_wait=answer_wait,
                        answered=partial(with_rejections, original=REQUEST, proposed=proposed),
                    )
                )
        finally:
            pair.done.set()

    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            if established:
                pair.acceptor.say(acceptance(proposed))
                await pair.requestor.got(1)
                pair.requestor.sent.clear()
            yield pair
            nursery.cancel_scope.cancel()


async def test_the_answer_and_messages_cross_both_ways() -> None:
    async with joined() as pair:
        rq = command(1, echo_rq())
        rsp = command(1, dimse.response_to(echo_rq(), 0))
        pair.requestor.say(rq)
        assert await pair.acceptor.got(1) == [rq]
        pair.acceptor.say(rsp)
        assert await pair.requestor.got(1) == [rsp]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[PDV]:
    """What goes on in its time, whatever the acceptor says."""
    said = [command(3, dimse.response_to(store_rq(n), 0)) for n in (1, 2)]

    async def speech(pass_on: PassOn) -> None:
        for pdv in said:
            await pass_on(pdv, True)

    monkeypatch.setattr(Guard, "inward", lambda self, pdv: Verdict(speech=speech))
    return said


async def test_what_is_said_in_its_time_goes_on_alone(said: list[PDV]) -> None:
    async with joined() as pair:
        pair.acceptor.say(command(3, store_rq(9)))
        assert await pair.requestor.got(2) == said


@pytest.mark.parametrize("caller_side", [True, False])
async def test_who_left_while_its_answer_waited_is_released_by_us(
    said: list[PDV], caller_side: bool
) -> None:
    """Many a device aborts an association on which nothing happens for a minute."""
    async with joined(caller_side=caller_side) as pair:
        pair.acceptor.say(command(3, store_rq(9)), AAbort(0, 0))
        await pair.requestor.got(2)
        pair.requestor.say(AReleaseRQ())
        ending = await pair.ending()
    assert pair.requestor.sent == [*said, AReleaseRP()]
    assert pair.requestor.aborts == []
    assert (ending.how, ending.by) == (How.RELEASED, "requestor")


@pytest.mark.parametrize("caller_side", [True, False])
async def test_a_release_that_crosses_the_abort_of_who_has_said_its_last_is_granted(
    said: list[PDV], caller_side: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Its A-ABORT was on its way, or waited to be read, when the release was passed on to it."""
    async with joined(caller_side=caller_side) as pair:
        pair.acceptor.say(command(3, store_rq(9)))
        await pair.requestor.got(2)
        pair.requestor.say(AReleaseRQ())
        assert await pair.acceptor.got(1) == [AReleaseRQ()]
        pair.acceptor.say(AAbort(0, 0))
        ending = await pair.ending()
    assert pair.requestor.sent == [*said, AReleaseRP()]
    assert pair.requestor.aborts == []
    assert (ending.how, ending.by) == (How.RELEASED, "requestor")


async def test_who_has_said_more_since_and_aborts_has_aborted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last = command(3, dimse.response_to(store_rq(2), 0))

    async def speech(pass_on: PassOn) -> None:
        await pass_on(last, True)

    verdicts = [Verdict(speech=speech), Verdict((last,), ends=True)]
    monkeypatch.setattr(Guard, "inward", lambda self, pdv: verdicts.pop(0))
    async with joined() as pair:
        pair.acceptor.say(last, last, AAbort(2, 1))
        ending = await pair.ending()
    assert (ending.how, ending.by, ending.numbers) == (How.ABORTED, "acceptor", (2, 1))
    assert pair.requestor.aborts == [(2, 1)]


async def test_who_left_while_its_answer_waited_is_asked_nothing_more(
    said: list[PDV], autojump_clock: trio.testing.MockClock
) -> None:
    async with joined() as pair:
        pair.acceptor.lost = True
        pair.acceptor.say(command(3, store_rq(9)), AAbort(0, 0))
        await pair.requestor.got(2)
        await trio.testing.wait_all_tasks_blocked()
        pair.requestor.say(command(3, store_rq(10)))
        ending = await pair.ending()
    assert ending.how is How.ABORTED
    assert pair.requestor.aborts


async def test_nobody_waits_for_ever_for_a_release(
    said: list[PDV], autojump_clock: trio.testing.MockClock
) -> None:
    async with joined() as pair:
        pair.acceptor.say(command(3, store_rq(9)), AAbort(0, 0))
        ending = await pair.ending()
    assert ending.how is How.ABORTED
    assert pair.requestor.aborts


async def test_contexts_not_granted_come_back_rejected() -> None:
    async with joined({"echo"}, established=False) as pair:
        pair.acceptor.say(acceptance(granted(REQUEST, {"echo"})))
        (answer,) = await pair.requestor.got(1)
        assert [(r.id, r.result) for r in answer.contexts] == [(1, 0), (3, 1), (5, 1), (7, 1)]


async def test_a_far_rejection_arrives_as_it_was() -> None:
    async with joined(established=False) as pair:
        rejection = AAssociateRJ(1, 2, 2)
        pair.acceptor.say(rejection)
        ending = await pair.ending()
        assert pair.requestor.sent == [rejection]
        assert (ending.how, ending.by, ending.numbers) == (How.REJECTED, "acceptor", (1, 2, 2))
        assert not pair.requestor.aborts
        assert not pair.acceptor.aborts


@pytest.mark.parametrize("established", [False, True])
@pytest.mark.parametrize("side", ["requestor", "acceptor"])
async def test_an_abort_arrives_as_it_was(side: str, established: bool) -> None:
    async with joined(established=established) as pair:
        source, sink = (
            (pair.requestor, pair.acceptor)
            if side == "requestor"
            else (pair.acceptor, pair.requestor)
        )
        source.say(AAbort(2, 6))
        ending = await pair.ending()
        assert sink.aborts == [(2, 6)]
        assert (ending.how, ending.by, ending.numbers) == (How.ABORTED, side, (2, 6))


async def test_no_answer_in_time_is_a_transient_rejection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with joined(established=False, answer_wait=25) as pair:
        begin = trio.current_time()
        ending = await pair.ending()
        assert trio.current_time() - begin == pytest.approx(25)
        assert pair.requestor.sent == [TEMPORARY_CONGESTION]
        assert pair.acceptor.aborts == [(2, 0)]
        assert ending.how is How.REJECTED


@pytest.mark.parametrize("caller_side", [True, False])
@pytest.mark.parametrize("side", ["requestor", "acceptor"])
async def test_a_release_crosses(side: str, caller_side: bool) -> None:
    async with joined(caller_side=caller_side) as pair:
        source, sink = (
            (pair.requestor, pair.acceptor)
            if side == "requestor"
            else (pair.acceptor, pair.requestor)
        )
        source.say(AReleaseRQ())
        assert await sink.got(1) == [AReleaseRQ()]
        sink.say(AReleaseRP())
        ending = await pair.ending()
        assert source.sent == [AReleaseRP()]
        assert (ending.how, ending.by) == (How.RELEASED, side)


async def test_data_may_follow_a_release_request() -> None:
    async with joined() as pair:
        pair.requestor.say(command(1, echo_rq()), AReleaseRQ())
        await pair.acceptor.got(2)
        pair.acceptor.say(command(1, dimse.response_to(echo_rq(), 0)), AReleaseRP())
        await pair.ending()
        assert [type(atom).__name__ for atom in pair.requestor.sent] == ["PDV", "AReleaseRP"]


async def test_collision_that_crossed_in_the_tunnel_on_the_callers_side() -> None:
    """Both devices ask; ours is answered here, and the tunnel ends by our A-RELEASE-RP."""
    async with joined(caller_side=True) as pair:
        pair.requestor.say(AReleaseRQ())
        assert await pair.acceptor.got(1) == [AReleaseRQ()]
        pair.acceptor.say(AReleaseRQ())
        ending = await pair.ending()
        assert pair.requestor.sent == [AReleaseRP()]
        assert pair.acceptor.sent == [AReleaseRQ(), AReleaseRP()]
        assert ending.how is How.RELEASED


async def test_collision_that_crossed_in_the_tunnel_on_the_callees_side() -> None:
    """The device is answered at once; the tunnel is over when the caller's A-RELEASE-RP comes."""
    async with joined(caller_side=False) as pair:
        pair.acceptor.say(AReleaseRQ())
        assert await pair.requestor.got(1) == [AReleaseRQ()]
        pair.requestor.say(AReleaseRQ())
        assert await pair.acceptor.got(1) == [AReleaseRP()]
        assert not pair.endings
        pair.requestor.say(AReleaseRP())
        ending = await pair.ending()
        assert pair.requestor.sent == [AReleaseRQ()]
        assert ending.how is How.RELEASED


async def test_collision_on_the_hop_of_the_calling_device() -> None:
    """The device requested the association, so it answers first (Sta10, Sta12)."""
    async with joined(caller_side=True) as pair:
        pair.acceptor.say(AReleaseRQ())
        assert await pair.requestor.got(1) == [AReleaseRQ()]
        pair.requestor.say(AReleaseRQ())
        assert await pair.acceptor.got(1) == [AReleaseRP()]
        pair.requestor.say(AReleaseRP())
        await pair.ending()
        assert pair.requestor.sent == [AReleaseRQ(), AReleaseRP()]


async def test_collision_on_the_hop_of_the_called_device() -> None:
    """We requested the association, so we answer first (Sta9, Sta11)."""
    async with joined(caller_side=False) as pair:
        pair.requestor.say(AReleaseRQ())
        await pair.acceptor.got(1)
        pair.acceptor.say(AReleaseRQ())
        assert await pair.acceptor.got(2) == [AReleaseRQ(), AReleaseRP()]
        assert pair.requestor.sent == [AReleaseRP()]
        pair.acceptor.say(AReleaseRP())
        assert (await pair.ending()).how is How.RELEASED


async def test_collision_where_both_requests_have_arrived_already() -> None:
    """Neither hop lets an A-RELEASE-RQ out any more: both are answered."""
    async with joined(caller_side=True) as pair:
        pair.requestor.refuses = lambda atom: isinstance(atom, AReleaseRQ)
        pair.acceptor.say(AReleaseRQ())
        await trio.testing.wait_all_tasks_blocked()
        pair.requestor.say(AReleaseRQ())
        await pair.ending()
        assert pair.requestor.sent == [AReleaseRP()]
        assert pair.acceptor.sent == [AReleaseRP()]


async def test_a_release_that_nobody_answers_ends_in_aborts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with joined() as pair:
        pair.requestor.say(AReleaseRQ())
        begin = trio.current_time()
        ending = await pair.ending()
        assert trio.current_time() - begin == pytest.approx(RELEASE_WAIT)
        assert (ending.how, ending.by) == (How.ABORTED, "router")
        assert pair.requestor.aborts == pair.acceptor.aborts == [(2, 0)]


async def test_a_refused_command_is_answered_and_the_rest_goes_on() -> None:
    async with joined({"echo", "query"}) as pair:
        pair.requestor.say(command(5, find_rq(1)), data(5), command(1, echo_rq(2)))
        assert len(await pair.acceptor.got(3)) == 3
    async with joined({"retrieve"}, caller_side=False) as pair:
        pair.requestor.say(command(3, store_rq(1)), data(3), command(7, get_rq(2)), data(7))
        (refusal,) = await pair.requestor.got(1)
        assert read(refusal).status == Status.NOT_AUTHORIZED
        sent = await pair.acceptor.got(2)
        assert read(sent[0]).command_field == CommandField.C_GET_RQ


async def test_a_request_that_is_refused_while_the_acceptance_goes_out_is_answered() -> None:
    """A device may ask as soon as it has the A-ASSOCIATE-AC, before we know that it was sent."""

    class Hasty(FakeAssociation):
        async def send(self, atom: Atom, **options: bool) -> None:
            await super().send(atom, **options)
            if isinstance(atom, AAssociateAC):
                self.say(command(3, store_rq(1)), data(3))
                await trio.testing.wait_all_tasks_blocked()

    requestor, acceptor = Hasty(), FakeAssociation()
    proposed = granted(REQUEST, {"retrieve"})
    guard = Guard(proposed, {"retrieve"}, FakeBorder())
    acceptor.say(acceptance(proposed))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(join, requestor, acceptor, guard, tunnel=requestor, answer_wait=5)
        )
        with trio.fail_after(5):
            _, refusal = await requestor.got(2)
        assert read(refusal).status == Status.NOT_AUTHORIZED
        nursery.cancel_scope.cancel()


async def test_a_refusal_does_not_interrupt_a_message_of_that_direction() -> None:
    async with joined({"retrieve"}, caller_side=False) as pair:
        pair.requestor.say(command(7, get_rq(1)), data(7))
        await pair.acceptor.got(2)
        pair.acceptor.say(command(3, store_rq(9)), data(3, b"part", last=False))
        await pair.requestor.got(2)
        pair.requestor.say(command(3, store_rq(2)), data(3))
        await trio.testing.wait_all_tasks_blocked()
        assert len(pair.requestor.sent) == 2
        pair.acceptor.say(data(3, b"rest"))
        sent = await pair.requestor.got(4)
        assert not sent[2].is_command
        assert read(sent[3]).message_id_responded_to == 2


async def test_a_device_that_never_reads_cannot_fill_memory_with_refusals() -> None:
    async with joined({"retrieve"}, caller_side=False) as pair:
        pair.requestor.say(command(7, get_rq(1)), data(7))
        await pair.acceptor.got(2)
        pair.acceptor.say(command(3, store_rq(9)), data(3, last=False))
        await pair.requestor.got(2)
        for message_id in range(MAXIMUM_REPLIES + 1):
            pair.requestor.say(command(3, store_rq(message_id)), data(3))
        ending = await pair.ending()
        assert (ending.how, ending.by) == (How.ABORTED, "router")


async def test_a_refused_request_after_a_release_request_is_not_answered() -> None:
    """Sta7 sends nothing more; without the answer the release goes its way."""
    async with joined({"retrieve"}, caller_side=False) as pair:
        pair.requestor.refuses = lambda atom: not isinstance(atom, AReleaseRQ)
        pair.acceptor.say(AReleaseRQ())
        assert await pair.requestor.got(1) == [AReleaseRQ()]
        pair.requestor.say(command(3, store_rq(1)), data(3), AReleaseRP())
        ending = await pair.ending()
        assert (ending.how, ending.by) == (How.RELEASED, "acceptor")
        assert pair.acceptor.sent == [AReleaseRP()]


@pytest.mark.parametrize("atom", [command(7, get_rq()), AReleaseRQ()])
async def test_nothing_follows_a_release_request(atom: Atom) -> None:
    """A socket's upper layer sees to that; a peer's tunnel has none."""
    async with joined({"retrieve"}, caller_side=False) as pair:
        pair.requestor.say(AReleaseRQ(), atom)
        ending = await pair.ending()
        assert (ending.how, ending.by) == (How.ABORTED, "router")
        assert pair.acceptor.sent == [AReleaseRQ()]
        assert pair.requestor.aborts == [(2, 2)]


@pytest.mark.parametrize(
    "atom",
    [acceptance(REQUEST), AReleaseRP(), AAssociateRJ(1, 1, 1), REQUEST],
    ids=lambda atom: type(atom).__name__,
)
async def test_what_is_out_of_turn_aborts_both(atom: Atom) -> None:
    async with joined() as pair:
        pair.acceptor.say(atom)
        ending = await pair.ending()
        assert (ending.how, ending.by) == (How.ABORTED, "router")
        assert pair.acceptor.aborts == [(2, 2)]
        assert pair.requestor.aborts == [(2, 0)]


async def test_data_before_the_answer_aborts_both() -> None:
    async with joined(established=False) as pair:
        pair.acceptor.say(command(1, echo_rq()))
        await pair.ending()
        assert pair.acceptor.aborts
        assert pair.requestor.aborts


async def test_a_lost_sink_leaves_the_last_word_to_its_own_abort() -> None:
    async with joined() as pair:
        pair.acceptor.lost = True
        pair.requestor.say(command(1, echo_rq()))
        await trio.testing.wait_all_tasks_blocked()
        assert not pair.endings
        pair.acceptor.say(AAbort(0, 0))
        ending = await pair.ending()
        assert (ending.by, ending.numbers) == ("acceptor", (0, 0))
        assert pair.requestor.aborts == [(0, 0)]


async def test_both_lost_at_once() -> None:
    async with joined() as pair:
        pair.acceptor.lost = pair.requestor.lost = True
        pair.requestor.say(command(1, echo_rq()))
        await trio.testing.wait_all_tasks_blocked()
        pair.acceptor.say(AReleaseRQ())
        assert (await pair.ending()).how is How.ABORTED


async def test_cancelled_it_aborts_both() -> None:
    async with joined() as pair:
        pair.acceptor.deaf = True  # and in the middle of a send
        pair.requestor.say(command(1, echo_rq()))
        await trio.testing.wait_all_tasks_blocked()
        pair.scope.cancel()
        await pair.done.wait()
        assert pair.requestor.aborts == pair.acceptor.aborts == [(2, 0)]


async def test_an_error_of_our_own_aborts_both_and_is_not_swallowed() -> None:
    requestor, acceptor = FakeAssociation(), FakeAssociation()
    guard = Guard(REQUEST, None, FakeBorder())

    def broken(answer: object) -> object:
        raise ZeroDivisionError

    acceptor.say(acceptance(REQUEST))
    with pytest.RaisesGroup(ZeroDivisionError):
        await join(requestor, acceptor, guard, tunnel=acceptor, answer_wait=1, answered=broken)
    assert requestor.aborts == acceptor.aborts == [(2, 0)]


async def test_over_real_sockets_with_a_release_collision() -> None:
    """Two real upper layers each side, so that no atom is sent where Table 9-10 has no cell."""
    device_end, near_end = trio.testing.memory_stream_pair()
    device = TCPAssociation(device_end, Role.REQUESTOR)
    near = TCPAssociation(near_end, Role.ACCEPTOR)
    far = FakeAssociation()
    endings = []

    async def run() -> None:
        request = await near.receive()
        assert isinstance(request, AAssociateRQ)
        guard = Guard(request, None, FakeBorder())
        endings.append(await join(near, far, guard, tunnel=far, answer_wait=5))
        await near.aclose()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await device.send(REQUEST)
            far.say(acceptance(REQUEST))
            await device.receive()
            far.say(AReleaseRQ())
            await device.send(AReleaseRQ())
            # Either it crossed the Router's own A-RELEASE-RQ on this hop, or it was the first.
            while not isinstance(heard := await device.receive(), AReleaseRP):
                assert heard == AReleaseRQ()
                await device.send(AReleaseRP())
            await device.aclose()
    assert endings[0].how is How.RELEASED
    assert AReleaseRP() in far.sent


async def test_what_the_disk_does_not_take_does_not_pass() -> None:
    """Nothing reaches the device, and its sender hears an abort, which is no success."""

    class FullDisk(FakeBorder):
        def move_asked(self, request: CommandSet) -> Crossing:
            async def keep() -> None:
                raise DatabaseError("disk full")

            return Crossing(before=keep)

    requestor, acceptor = FakeAssociation(), FakeAssociation()
    proposed = proposal(uids.STUDY_ROOT_MOVE)
    acceptor.say(acceptance(proposed))
    guard = Guard(proposed, None, FullDisk())
    endings = []

    async def run() -> None:
        endings.append(await join(requestor, acceptor, guard, tunnel=acceptor, answer_wait=5))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await requestor.got(1)
            requestor.say(command(1, move_rq("WS")), data(1))
    (ending,) = endings
    assert (ending.how, ending.by, ending.why) == (How.ABORTED, "router", "disk full")
    assert not acceptor.sent
    assert requestor.aborts[0] == acceptor.aborts[0] == (2, 0)


@pytest.mark.parametrize("crossing", [False, True])
async def test_a_device_that_closes_at_once_after_its_release_has_released(crossing: bool) -> None:
    """Its end may be read before we know that the A-RELEASE-RP was written."""

    class Hasty(FakeAssociation):
        async def send(self, atom: Atom, **options: bool) -> None:
            await super().send(atom, **options)
            if isinstance(atom, AReleaseRP):
                self.say(AAbort(2, 0))
                await trio.testing.wait_all_tasks_blocked()

    requestor, acceptor = Hasty(), FakeAssociation()
    endings = []

    async def run() -> None:
        guard = Guard(REQUEST, None, FakeBorder())
        endings.append(await join(requestor, acceptor, guard, tunnel=acceptor, answer_wait=5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        acceptor.say(acceptance(REQUEST))
        await requestor.got(1)
        requestor.say(AReleaseRQ())
        await acceptor.got(1)
        acceptor.say(AReleaseRQ() if crossing else AReleaseRP())
        with trio.fail_after(5):
            await requestor.got(2)
    assert endings[0].how is How.RELEASED
    assert acceptor.aborts == []


async def test_a_device_that_is_gone_before_its_release_was_answered_is_named() -> None:
    async with joined() as pair:
        pair.requestor.say(AReleaseRQ())
        await pair.acceptor.got(1)
        pair.requestor.lost = True
        pair.acceptor.say(AReleaseRP())
        ending = await pair.ending()
        assert (ending.how, ending.by) == (How.ABORTED, "requestor")
