"""What came at once goes on at once, judged one by one, and in order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from relay.dicom import dimse
from relay.dicom.pdu import PDV, AAbort, AAssociateAC, AReleaseRQ
from relay.errors import AssociationAborted, RemoteProtocolError
from relay.router.direction import Verdict
from relay.router.passthrough import join
from relay.router.side import Passing, Side
from relay.signalling.messages import MAXIMUM_IN_LINE
from tests.router.fakes import FakeAssociation, acceptance, command, data, proposal, store_rq
from tests.router.gathering import GatheringFake

STORE, ECHO = 1, 3
REQUEST = proposal("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1")
REFUSAL = command(STORE, dimse.response_to(store_rq(1), 0x0124))


class Judge:
    """A guard that lets everything pass, but for what `says` has another verdict on."""

    def __init__(self) -> None:
        self.says: dict[int, Verdict | RemoteProtocolError] = {}  # by how many came before
        self._heard = 0

    def negotiated(self, answer: AAssociateAC) -> None: ...

    def outward(self, pdv: PDV) -> Verdict:
        verdict = self.says.get(self._heard, Verdict((pdv,), ends=pdv.is_last))
        self._heard += 1
        if isinstance(verdict, RemoteProtocolError):
            raise verdict
        return verdict

    def inward(self, pdv: PDV) -> Verdict:
        return Verdict((pdv,), ends=pdv.is_last)


@asynccontextmanager
async def passage(
    judge: Judge, *, to_tunnel: bool = True
) -> AsyncIterator[tuple[GatheringFake, GatheringFake]]:
    """Who asks, and whom it asks; they have agreed."""
    near, far = GatheringFake(), GatheringFake()

    async def run() -> None:
        await join(near, far, judge, tunnel=far if to_tunnel else near, answer_wait=25)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            far.say(acceptance(REQUEST))
            await near.got(1)
            near.sent.clear()
            yield near, far
            nursery.cancel_scope.cancel()


def parts(count: int) -> list[PDV]:
    """A data set in fragments."""
    return [PDV(STORE, False, number == count - 1, bytes([number, 0])) for number in range(count)]


@pytest.mark.parametrize("to_tunnel", [True, False])
async def test_what_came_at_once_goes_on_in_one_call(to_tunnel: bool) -> None:
    async with passage(Judge(), to_tunnel=to_tunnel) as (near, far):
        said = [command(STORE, store_rq(1)), *parts(3), command(STORE, store_rq(2)), *parts(2)]
        near.say(*said)
        assert await far.got(len(said)) == said
    assert far.calls == [(said, True)]


async def test_a_tunnel_is_told_which_of_it_is_worth_compressing() -> None:
    judge = Judge()
    pixels = data(STORE, bytes(8))
    judge.says[1] = Verdict((pixels,), ends=True, compressible=True)
    async with passage(judge) as (near, far):
        near.say(command(STORE, store_rq(1)), pixels, command(STORE, store_rq(2)))
        await far.got(3)
    assert [len(pdvs) for pdvs, _ in far.calls] == [1, 1, 1]
    assert far.compressible == [False, True, False]


async def test_what_has_ended_shares_a_chunk_with_much_that_has_begun_behind_it() -> None:
    """A pending C-GET-RSP, and an object that comes with it: cut between two reads of that, it
    would be there a round trip later."""
    pending, rq = command(STORE, store_rq(1)), command(STORE, store_rq(2))
    fragments = [PDV(STORE, False, is_last, bytes(MAXIMUM_IN_LINE)) for is_last in (False, True)]
    judge = Judge()
    judge.says[1] = Verdict((rq,), ends=False)
    async with passage(judge) as (near, far):
        near.say(pending, rq, fragments[0])
        await far.got(3)
        near.say(fragments[1])
        await far.got(4)
    assert far.calls == [([pending, rq, fragments[0]], False), ([fragments[1]], True)]


async def test_what_has_ended_does_not_wait_for_little_that_has_begun_behind_it() -> None:
    """A query's answers go on, though the last of a read is not whole."""
    pending, rq = command(STORE, store_rq(1)), command(STORE, store_rq(2))
    judge = Judge()
    judge.says[1] = Verdict((rq,), ends=False)
    async with passage(judge) as (near, far):
        near.say(pending, rq)
        await far.got(2)
    assert far.calls == [([pending, rq], True)]


async def test_a_device_is_told_whether_more_follows() -> None:
    """So that the command may wait for the beginning of its data set."""
    judge = Judge()
    rq = command(STORE, store_rq(1))
    judge.says[0] = Verdict((rq,), ends=False)
    async with passage(judge, to_tunnel=False) as (near, far):
        near.say(rq)
        await far.got(1)
    assert far.calls == [([rq], False)]


async def test_what_must_be_done_first_is_done_behind_what_came_before_it() -> None:
    judge = Judge()
    first, second = command(STORE, store_rq(1)), command(STORE, store_rq(2))
    seen: list[int] = []
    async with passage(judge) as (near, far):

        async def before() -> None:
            seen.append(len(far.sent))

        judge.says[1] = Verdict((second,), ends=True, before=before)
        near.say(first, second, first)
        assert await far.got(3) == [first, second, first]
    assert seen == [1]


async def test_what_came_before_a_fault_goes_on() -> None:
    judge = Judge()
    judge.says[1] = RemoteProtocolError("it cannot be")
    async with passage(judge) as (near, far):
        near.say(command(STORE, store_rq(1)), command(STORE, store_rq(2)))
        while not far.aborts:
            await far._changed.park()
    assert far.sent == [command(STORE, store_rq(1))]


async def test_what_came_before_a_release_or_an_abort_goes_on_before_it() -> None:
    async with passage(Judge()) as (near, far):
        near.say(command(STORE, store_rq(1)), AReleaseRQ(), AAbort(0, 0))
        while not far.aborts:
            await far._changed.park()
    assert far.sent == [command(STORE, store_rq(1)), AReleaseRQ()]


async def test_a_reply_goes_between_two_messages_of_what_came_at_once() -> None:
    far = GatheringFake()
    side = Side("acceptor", far, None)
    first, rest = parts(2), [command(STORE, store_rq(2)), *parts(2)]
    await side.pass_on([Passing(first[0], ends=False)])
    await side.reply(REFUSAL)
    assert far.sent == first[:1]
    await side.pass_on(
        [Passing(first[1]), *(Passing(pdv, ends=pdv is rest[-1]) for pdv in rest)],
    )
    assert far.sent == [*first, REFUSAL, *rest]


async def test_a_reply_to_who_is_being_sent_much_is_not_waited_for() -> None:
    far = GatheringFake()
    side = Side("acceptor", far, None)
    said = command(ECHO, store_rq(1))
    far.held = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.pass_on, [Passing(said)])
        await trio.testing.wait_all_tasks_blocked()
        await side.reply(REFUSAL)
        far.held.set()
    assert far.sent == [said, REFUSAL]


async def test_nothing_to_pass_on_is_nothing_to_wait_for() -> None:
    far = GatheringFake()
    far.lost = True
    await Side("acceptor", far, far).pass_on([])
    with pytest.raises(AssociationAborted):
        await Side("acceptor", far, far).pass_on([Passing(command(ECHO, store_rq(1)))])


async def test_an_association_that_cannot_gather_is_given_one_after_the_other() -> None:
    far = FakeAssociation()
    said = [command(STORE, store_rq(1)), *parts(2)]
    for tunnel in (None, far):
        await Side("acceptor", far, tunnel).pass_on([Passing(pdv, pdv.is_last) for pdv in said])
        assert far.sent == said
        far.sent.clear()
    far.say(*said)
    assert await Side("requestor", far, None).receive() == (said[0],)
