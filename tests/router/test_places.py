"""Places: who gets one, who waits, who leaves the line, and that none is lost or given twice."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from relay import scu
from relay.association import TCPAssociation
from relay.dicom.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ, Atom
from relay.dicom.upperlayer import Role
from relay.errors import AssociationAborted, AssociationRejected
from relay.router.calling import serve_device
from relay.router.devices import Device
from relay.router.live import Side
from relay.router.places import MAXIMUM_WAITING, Claim, Place, Places
from tests.router.fakes import CT, TwoHospitals, proposal, two_hospitals, yes_to_all
from tests.waiting import until


def claim(
    peer: str = "P",
    maximum: int = 1,
    *,
    device: str = "PACS",
    side: Side = Side.CALLEE,
    shared: bool = False,
) -> Claim:
    return Claim(side=side, device=device, peer=peer, maximum=maximum, shared=shared)


async def stays() -> None:
    await trio.sleep_forever()


@attrs.define(eq=False)
class Line:
    """Callers that wait, and the order in which they were served."""

    places: Places
    nursery: trio.Nursery
    served: list[str] = attrs.field(factory=list)
    refused: list[str] = attrs.field(factory=list)
    why: list[str] = attrs.field(factory=list)
    left: list[str] = attrs.field(factory=list)
    held: dict[str, Place] = attrs.field(factory=dict)

    async def call(
        self,
        name: str,
        wanted: Claim,
        wait: float = 5,
        left: Callable[[], Awaitable[object]] = stays,
    ) -> None:
        """Stand in line behind everybody who does so far."""
        self.nursery.start_soon(self._call, name, wanted, wait, left)
        await trio.testing.wait_all_tasks_blocked()

    async def _call(
        self, name: str, wanted: Claim, wait: float, left: Callable[[], Awaitable[object]]
    ) -> None:
        try:
            self.held[name] = await self.places.take(wanted, wait, left)
        except AssociationRejected as error:
            self.refused.append(name)
            self.why.append(str(error))
        except AssociationAborted:
            self.left.append(name)
        else:
            self.served.append(name)

    async def free(self, name: str) -> None:
        self.held.pop(name).free()
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def line(nursery: trio.Nursery) -> Line:
    return Line(Places(100), nursery)


# --- limits ---------------------------------------------------------------------------------------


async def test_limits_by_device_and_in_all() -> None:
    places = Places(3)
    first = places.take_now(claim(side=Side.CALLER))
    assert first is not None
    assert places.take_now(claim(side=Side.CALLER)) is None
    assert places.take_now(claim(side=Side.CALLER, maximum=2)) is not None
    assert places.take_now(claim(side=Side.CALLER, device="OTHER")) is not None
    assert places.take_now(claim(side=Side.CALLER, device="THIRD", maximum=5)) is None
    first.free()
    first.free()
    assert len(places) == 2


async def test_each_side_of_a_device_has_its_own_places() -> None:
    places = Places(10)
    assert places.take_now(claim(side=Side.CALLER)) is not None
    assert places.take_now(claim(side=Side.CALLEE)) is not None


async def test_peers_do_not_keep_our_own_devices_from_calling() -> None:
    places = Places(4)
    for device in ("A", "B", "C"):
        assert places.take_now(claim(device=device)) is not None
    assert places.take_now(claim(device="D")) is None
    assert places.take_now(claim(device="D", side=Side.CALLER)) is not None


async def test_one_peer_does_not_get_all_places_of_a_device_that_others_may_call() -> None:
    places = Places(100)
    for _ in range(6):
        assert places.take_now(claim("P", 8, shared=True)) is not None
    assert places.take_now(claim("P", 8, shared=True)) is None
    for _ in range(2):
        assert places.take_now(claim("Q", 8, shared=True)) is not None
    assert places.take_now(claim("Q", 8, shared=True)) is None


@pytest.mark.parametrize(("maximum", "shared"), [(3, True), (8, False)])
async def test_no_place_lies_idle_for_nobody(maximum: int, shared: bool) -> None:
    """Few places, or nobody else who may call."""
    places = Places(100)
    for _ in range(maximum):
        assert places.take_now(claim("P", maximum, shared=shared)) is not None


# --- waiting --------------------------------------------------------------------------------------


async def test_who_came_first_is_served_first(line: Line, autojump_clock: MockClock) -> None:
    for name in ("1", "2", "3", "4"):
        await line.call(name, claim())
    for name in ("1", "2", "3"):
        await line.free(name)
    assert line.served == ["1", "2", "3", "4"]
    assert line.places.waiting == 0


async def test_a_place_is_waited_for_so_long_and_then_refused(
    line: Line, autojump_clock: MockClock
) -> None:
    await line.call("1", claim())
    start = trio.current_time()
    await line.call("2", claim(), wait=7)
    await trio.sleep(6.9)
    assert line.refused == []
    await trio.sleep(0.2)
    assert line.refused == ["2"]
    assert trio.current_time() == pytest.approx(start + 7.1)
    assert line.places.waiting == 0
    await line.free("1")
    assert len(line.places) == 0


async def test_no_wait_is_an_answer_at_once(line: Line) -> None:
    await line.call("1", claim(), wait=0)
    await line.call("2", claim(), wait=0)
    assert (line.served, line.refused) == (["1"], ["2"])


async def test_the_refusal_is_transient_and_a_limit() -> None:
    places = Places(1)
    with places.take_now(claim(side=Side.CALLER)) or pytest.fail("no place"):
        for wait in (0, 0.01):
            with pytest.raises(AssociationRejected) as refused:
                await places.take(claim(side=Side.CALLER), wait, stays)
            numbers = refused.value.result, refused.value.source, refused.value.reason
            assert numbers == (2, 3, 2)


async def test_one_place_goes_to_one_of_many_that_wait(
    line: Line, autojump_clock: MockClock
) -> None:
    await line.call("first", claim())
    for number in range(20):
        await line.call(str(number), claim())
    await line.free("first")
    assert line.served == ["first", "0"]
    await trio.sleep(10)
    assert set(line.refused) == {str(number) for number in range(1, 20)}
    assert len(line.places) == 1


async def test_the_peer_with_the_fewest_places_is_next(
    line: Line, autojump_clock: MockClock
) -> None:
    for name in ("P1", "P2"):
        await line.call(name, claim("P", 2))
    for name in ("P3", "P4", "Q1", "Q2", "R1"):
        await line.call(name, claim(name[0], 2))
    await line.free("P1")  # P has one, the others none: Q came before R
    assert line.served[2:] == ["Q1"]
    await line.free("P2")  # P has none either now, and came before R
    await line.free("P3")
    assert line.served[3:] == ["P3", "P4"]
    await line.free("P4")  # P has none and waits for none; R has none, Q has one
    assert line.served[5:] == ["R1"]
    await line.free("Q1")
    assert line.served[6:] == ["Q2"]


async def test_who_waits_on_its_own_share_holds_nobody_up(line: Line) -> None:
    for number in range(3):
        await line.call(f"P{number}", claim("P", 4, shared=True))
    await line.call("P3", claim("P", 4, shared=True))
    assert line.places.waiting == 1
    await line.call("Q", claim("Q", 4, shared=True))
    assert line.served == ["P0", "P1", "P2", "Q"]
    await line.free("Q")
    assert line.places.waiting == 1  # the last place is not P's
    await line.free("P0")
    assert line.served[4:] == ["P3"]


async def test_the_total_is_waited_for_too(nursery: trio.Nursery) -> None:
    line = Line(Places(2), nursery)
    for device in ("A", "B", "C"):
        await line.call(device, claim(device=device, side=Side.CALLER))
    assert line.served == ["A", "B"]
    await line.free("A")
    assert line.served == ["A", "B", "C"]


# --- a line that is full --------------------------------------------------------------------------


async def test_the_line_is_bounded(line: Line) -> None:
    await line.call("first", claim())
    for number in range(MAXIMUM_WAITING):
        await line.call(str(number), claim())
    await line.call("late", claim())
    assert line.refused == ["late"]
    await line.call("elsewhere", claim(device="OTHER"))
    assert line.served == ["first", "elsewhere"]


async def test_a_peer_cannot_fill_the_line_of_a_device(line: Line) -> None:
    await line.call("first", claim("P"))
    for number in range(MAXIMUM_WAITING):
        await line.call(f"P{number}", claim("P"))
    await line.call("Q", claim("Q"))
    assert line.refused == [f"P{MAXIMUM_WAITING - 1}"]
    assert "another hospital calls" in line.why[0]
    assert line.places.waiting == MAXIMUM_WAITING
    await line.free("first")
    assert line.served == ["first", "P0"]  # neither has a place, and it came first
    await line.free("P0")
    assert line.served[-1] == "P1"


async def test_lines_are_bounded_together_and_the_longest_gives_way(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.router.places.MAXIMUM_WAITING_IN_ALL", 4)
    line = Line(Places(100), nursery)
    for device in ("DEAD", "OTHER"):
        await line.call(device, claim(device=device))
    for number in range(4):
        await line.call(f"dead {number}", claim(device="DEAD"))
    await line.call("dead 4", claim(device="DEAD"))
    assert line.refused == ["dead 4"]
    for number in range(3):
        await line.call(f"other {number}", claim(device="OTHER"))
    assert line.refused == ["dead 4", "dead 3", "dead 2", "other 2"]
    assert "somebody else calls" in line.why[1]
    assert line.places.waiting == 4
    await line.free("OTHER")
    assert line.served[-1] == "other 0"


# --- leaving --------------------------------------------------------------------------------------


async def test_who_goes_away_leaves_the_line_at_once(line: Line) -> None:
    gone = trio.Event()
    await line.call("1", claim())
    await line.call("2", claim(), left=gone.wait)
    await line.call("3", claim())
    gone.set()
    await trio.testing.wait_all_tasks_blocked()
    assert line.left == ["2"]
    assert line.places.waiting == 1
    await line.free("1")
    assert line.served == ["1", "3"]


async def test_a_place_given_to_who_leaves_in_that_moment_goes_on(line: Line) -> None:
    for both_at_once in (True, False):
        gone = trio.Event()
        await line.call("1", claim())
        await line.call("2", claim(), left=gone.wait)
        await line.call("3", claim())
        if both_at_once:
            gone.set()
        line.held.pop("1").free()
        if not both_at_once:
            gone.set()
        await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        if "2" in line.held:
            await line.free("2")
        assert line.served[-1] == "3"
        await line.free("3")
        assert (len(line.places), line.places.waiting) == (0, 0)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("step", range(1, 7))
async def test_cancelled_at_any_step_no_place_is_lost(
    step: int, given: bool, autojump_clock: MockClock
) -> None:
    places = Places(100)
    first = places.take_now(claim())
    assert first is not None

    class CancelAtStep(trio.abc.Instrument):
        def __init__(self, scope: trio.CancelScope) -> None:
            self.left, self.scope = step, scope
            self.task = trio.lowlevel.current_task()

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task is self.task:
                self.left -= 1
                if self.left == 0:
                    self.scope.cancel()

    async def waits() -> None:
        with trio.CancelScope() as scope:
            instrument = CancelAtStep(scope)
            trio.lowlevel.add_instrument(instrument)
            try:
                with await places.take(claim(), 5, stays):
                    await trio.sleep(1)
            except AssociationRejected:
                pass
            finally:
                trio.lowlevel.remove_instrument(instrument)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
        if given:
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            first.free()
    first.free()
    assert (len(places), places.waiting) == (0, 0)
    assert places.take_now(claim()) is not None


# --- places in other hands ------------------------------------------------------------------------


@attrs.define(eq=False)
class Kept:
    """Something open that comes with a place."""

    places: list[Place] = attrs.field(factory=list)

    def abandoned(self, place: Place) -> None:
        self.places.append(place)


async def test_a_place_is_handed_on_and_freed_once(line: Line) -> None:
    await line.call("1", claim())
    await line.call("2", claim())
    old = line.held["1"]
    new = old.hand_on()
    old.free()
    assert line.places.waiting == 1
    new.free()
    await trio.testing.wait_all_tasks_blocked()
    assert line.served == ["1", "2"]


async def test_who_is_next_gets_what_is_kept(line: Line) -> None:
    await line.call("1", claim())
    place = line.held["1"]
    assert line.places.after(place) is None
    await line.call("2", claim("Q"))
    await line.call("3", claim("P"))
    following = line.places.after(place)
    assert following is not None
    assert following.peer == "Q"
    kept = Kept()
    line.places.hand_to_next(place, kept)
    await trio.testing.wait_all_tasks_blocked()
    place.free()
    assert line.served == ["1", "2"]
    assert (line.held["2"].kept, line.held["2"].claim.peer) == (kept, "Q")


async def test_what_is_kept_goes_back_with_its_place(line: Line) -> None:
    """A device counts its associations, whoever has them: the place is not free before."""
    await line.call("1", claim())
    await line.call("2", claim())
    kept = Kept()
    line.held["1"].hand_on(kept).free()
    await trio.testing.wait_all_tasks_blocked()
    assert line.served == ["1"]
    (place,) = kept.places
    place.free()
    await trio.testing.wait_all_tasks_blocked()
    assert line.served == ["1", "2"]


async def test_waiting_is_told(line: Line) -> None:
    told: list[Claim] = []
    line.places.on_waiting = told.append
    await line.call("1", claim("P"))
    await line.call("2", claim("Q"))
    assert [c.peer for c in told] == ["Q"]


# --- two hospitals --------------------------------------------------------------------------------


async def ringing(both: TwoHospitals, request: AAssociateRQ) -> TCPAssociation:
    """A device of A that calls, and has no answer yet."""
    near, far = trio.testing.memory_stream_pair()
    device = TCPAssociation(near, Role.REQUESTOR, host="127.0.0.1")
    router = TCPAssociation(far, Role.ACCEPTOR, host="127.0.0.1")

    async def serve() -> None:
        try:
            await serve_device(both.a, router)
        finally:
            await router.aclose()

    both.nursery.start_soon(serve)
    await device.send(request)
    return device


async def limit(both: TwoHospitals, side: Side, *, place_wait: float = 5.0) -> Places:
    """One association on that side; its places."""
    if side is Side.CALLER:
        await both.a.put_device(
            attrs.evolve(
                Device("WS", "127.0.0.1", 104), maximum_associations=1, place_wait=place_wait
            )
        )
        return both.a.places
    await both.b.put_device(attrs.evolve(both.pacs, maximum_associations=1, place_wait=place_wait))
    return both.b.places


SIDES = pytest.mark.parametrize("side", list(Side))


@SIDES
async def test_a_call_waits_for_another_to_end(side: Side, tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        places = await limit(both, side)
        first, _ = await both.call(proposal(CT))
        second = await ringing(both, proposal(CT))
        await until(lambda: places.waiting == 1)
        await scu.release(first)
        assert isinstance(await second.receive(), AAssociateAC)
        await scu.release(second)
        await until(lambda: len(places) == 0)
        for device in (first, second):
            await device.aclose()


@SIDES
async def test_a_call_that_finds_no_place_is_refused_and_says_why(
    side: Side, tmp_path: Path
) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        places = await limit(both, side, place_wait=0.05)
        first, _ = await both.call(proposal(CT))
        second, answer = await both.call(proposal(CT))
        assert answer == AAssociateRJ(2, 3, 2)
        assert places.waiting == 0
        await until(lambda: bool(list(both.a.refusals)))
        await first.abort()
        for device in (first, second):
            await device.aclose()


@SIDES
@pytest.mark.parametrize("how", ["abort", "close"])
async def test_who_gives_up_leaves_the_line(how: str, side: Side, tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        places = await limit(both, side, place_wait=60)
        first, _ = await both.call(proposal(CT))
        second = await ringing(both, proposal(CT))
        await until(lambda: places.waiting == 1)
        if how == "abort":
            await second.abort()
        else:
            await second._stream.aclose()
        await until(lambda: places.waiting == 0)
        await until(lambda: len(both.a.live) == len(both.b.live) == 1)
        await scu.release(first)
        for device in (first, second):
            await device.aclose()


async def test_a_device_that_is_gone_when_its_turn_comes(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        places = await limit(both, Side.CALLEE)
        first, _ = await both.call(proposal(CT))
        await both.b.put_device(attrs.evolve(both.pacs, maximum_associations=1, port=1))
        answers: list[Atom] = []

        async def second() -> None:
            device, answer = await both.call(proposal(CT))
            answers.append(answer)
            await device.aclose()

        both.nursery.start_soon(second)
        await until(lambda: places.waiting == 1)
        await scu.release(first)
        await until(lambda: bool(answers))
        assert answers == [AAssociateRJ(2, 3, 1)]
        await first.aclose()


async def test_a_device_that_is_somewhere_else_when_its_turn_comes(tmp_path: Path) -> None:
    """What is at its old address now may be another machine."""
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        await limit(both, Side.CALLEE)
        first, _ = await both.call(proposal(CT))
        second = await ringing(both, proposal(CT))
        await until(lambda: both.b.places.waiting == 1)
        await both.b.put_device(attrs.evolve(both.pacs, maximum_associations=1, port=1))
        await scu.release(first)
        assert await second.receive() == AAssociateRJ(2, 3, 1)
        for device in (first, second):
            await device.aclose()


async def test_what_is_revoked_while_it_waits(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        places = await limit(both, Side.CALLEE, place_wait=60)
        first, _ = await both.call(proposal(CT))
        second = await ringing(both, proposal(CT))
        await until(lambda: places.waiting == 1)
        await both.b.remove_grant(next(iter(both.b.grants)).id)
        await until(lambda: (places.waiting, len(places), len(both.b.live)) == (0, 0, 0))
        for device in (first, second):
            await device.aclose()
