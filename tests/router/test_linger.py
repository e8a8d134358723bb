"""Linger: what is kept after a release, who gets it, and that everything else ends it properly."""

from collections.abc import AsyncIterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from relay import scu
from relay.association import ABORT_LIMIT, TCPAssociation
from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandSet, Status
from relay.dicom.negotiation import UserIdentityRQ, UserIdentityType
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
)
from relay.errors import AssociationRejected, LocalProtocolError
from relay.router.devices import Device
from relay.router.lasting import Lasting
from relay.router.linger import Kept, Lingering, kind_of
from relay.router.live import Side
from relay.router.places import Claim, Place, Places
from tests.association_pairs import pair
from tests.router.fakes import (
    CT,
    MR,
    TwoHospitals,
    acceptance,
    command,
    data,
    echo_rq,
    proposal,
    read,
    store_rq,
    two_hospitals,
)

PACS = Device("PACS", "192.0.2.1", 104, linger=10, maximum_associations=1)
LINGER = 10


@attrs.define(eq=False)
class Owner:
    """A Router with one device, which counts the associations that it was asked for."""

    places: Places = attrs.field(factory=lambda: Places(100))
    devices: list[TCPAssociation] = attrs.field(factory=list)
    lingering: Lingering = attrs.field(init=False)
    over: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.lingering = Lingering(self.places)

    def claim(self, request: AAssociateRQ, peer: str = "P", maximum: int = 1) -> Claim:
        return Claim(
            side=Side.CALLEE,
            device="PACS",
            peer=peer,
            maximum=maximum,
            proposal=kind_of(PACS, peer, request),
        )

    async def call(
        self,
        request: AAssociateRQ,
        *said: CommandSet,
        peer: str = "P",
        maximum: int = 1,
        wait: float = 5,
        name: str = "",
    ) -> None:
        """One call as the owner's Router serves it: these requests, all answered, and a release."""
        async with self.associated(request, peer, maximum, wait) as device:
            for asked in said:
                await device.send(command(1, asked))
                if asked.has_data_set:
                    await device.send(data(1))
                await device.receive()
            await self.release(device)
        self.over.append(name)

    @asynccontextmanager
    async def associated(
        self, request: AAssociateRQ, peer: str = "P", maximum: int = 1, wait: float = 5
    ) -> AsyncIterator[Lasting]:
        """An association with the device; after the block it lingers, if it can."""
        claim = self.claim(request, peer, maximum)
        async with AsyncExitStack() as stack:
            place = self.lingering.take(claim) or await self.places.take(
                claim, wait, trio.sleep_forever
            )
            stack.callback(place.free)
            device = await self._reach(request, place, stack)
            answer = await device.receive()
            assert isinstance(answer, AAssociateAC)
            yield device
            if device.stays:
                await self.lingering.stay(place, device, LINGER)

    async def _reach(self, request: AAssociateRQ, place: Place, stack: AsyncExitStack) -> Lasting:
        if isinstance(kept := place.kept, Kept):
            device = kept.over(place)
            stack.push_async_callback(device.aclose)
            if await kept.ready():
                return device
        near, far = pair()
        self.devices.append(far)
        device = Lasting(near, stay=place.claim.proposal is not None)
        stack.push_async_callback(device.aclose)
        await device.send(request)
        return device

    @staticmethod
    async def release(device: Lasting) -> None:
        await device.send(AReleaseRQ())
        while not isinstance(await device.receive(), AReleaseRP | AAbort):
            pass


async def yes(association: TCPAssociation, heard: list[Atom]) -> None:
    """A device that accepts, answers each request with success, and tells what it heard."""
    reader = dimse.CommandReader()
    asked = None
    while True:
        atom = await association.receive()
        heard.append(atom)
        match atom:
            case AAssociateRQ():
                await association.send(acceptance(atom))
            case AReleaseRQ():
                await association.send(AReleaseRP())
                return
            case AAbort():
                return
            case PDV():
                asked = reader.feed(atom) or asked
                if asked is not None and not reader.message_open and not asked.is_response:
                    await association.send(command(1, dimse.response_to(asked, 0)))


@attrs.define(eq=False)
class Hospital:
    """An owner whose device's associations are all served by `yes`."""

    owner: Owner
    nursery: trio.Nursery
    heard: list[list[Atom]] = attrs.field(factory=list)

    async def serve(self) -> None:
        while True:
            while len(self.heard) < len(self.owner.devices):
                self.heard.append([])
                self.nursery.start_soon(
                    yes, self.owner.devices[len(self.heard) - 1], self.heard[-1]
                )
            await trio.sleep(0.01)

    def start(self, *arguments: object, **options: object) -> None:
        async def run() -> None:
            try:
                await self.owner.call(*arguments, **options)  # type: ignore[arg-type]
            except AssociationRejected:
                self.owner.over.append("rejected")

        self.nursery.start_soon(run)


@pytest.fixture
async def hospital(nursery: trio.Nursery, autojump_clock: MockClock) -> Hospital:
    both = Hospital(Owner(), nursery)
    nursery.start_soon(both.serve)
    return both


def releases(heard: list[Atom]) -> int:
    return sum(isinstance(atom, AReleaseRQ) for atom in heard)


# --- what is kept, and for whom -------------------------------------------------------------------


async def test_the_next_call_of_its_kind_takes_it_over(
    hospital: Hospital, autojump_clock: MockClock
) -> None:
    owner = hospital.owner
    hospital.start(proposal(CT), store_rq(), name="first")
    await trio.sleep(1)
    assert (len(owner.lingering), len(owner.places), releases(hospital.heard[0])) == (1, 1, 0)
    hospital.start(proposal(CT), store_rq(), store_rq(2), name="second")
    await trio.sleep(1)
    assert owner.over == ["first"]
    assert len(owner.devices) == 1
    assert len(owner.lingering) == 1
    await trio.sleep(LINGER)
    assert owner.over == ["first", "second"]
    assert [type(a) for a in hospital.heard[0]].count(AAssociateRQ) == 1
    assert releases(hospital.heard[0]) == 1
    assert hospital.heard[0][-1] == AReleaseRQ()
    assert (len(owner.lingering), len(owner.places)) == (0, 0)


async def test_it_begins_with_the_same_answer(
    hospital: Hospital, autojump_clock: MockClock
) -> None:
    owner, answers = hospital.owner, []
    for _ in range(2):
        async with owner.associated(proposal(CT)) as device:
            answers.append(device.answer)
            await device.send(AReleaseRQ())
            assert await device.receive() == AReleaseRP()
            with pytest.raises(LocalProtocolError):
                await device.receive()
            assert device.stays
            device.released = False  # not now: this test has no task to linger in
    assert answers[0] == answers[1]


def _named(request: AAssociateRQ) -> AAssociateRQ:
    identity = UserIdentityRQ(UserIdentityType.USERNAME, False, b"somebody")
    return attrs.evolve(request, user_items=(*request.user_items, identity.encode()))


@pytest.mark.parametrize(
    ("device", "peer", "request_"),
    [
        (PACS, "Q", proposal(CT)),
        (PACS, "P", proposal(MR)),
        (PACS, "P", proposal(CT, calling="OTHER")),
        (PACS, "P", proposal(CT, scp=[CT])),
        (PACS, "P", proposal(CT, transfer_syntaxes=[uids.EXPLICIT_VR_LITTLE_ENDIAN])),
        (attrs.evolve(PACS, host="192.0.2.2"), "P", proposal(CT)),
        (attrs.evolve(PACS, tls=True), "P", proposal(CT)),
    ],
)
def test_what_differs_is_of_another_kind(device: Device, peer: str, request_: AAssociateRQ) -> None:
    kind = kind_of(PACS, "P", proposal(CT))
    assert kind is not None
    assert kind == kind_of(PACS, "P", proposal(CT))
    assert kind_of(device, peer, request_) not in (kind, None)


def test_who_names_a_user_shares_nothing() -> None:
    assert kind_of(PACS, "P", _named(proposal(CT))) is None
    assert kind_of(attrs.evolve(PACS, linger=0), "P", proposal(CT)) is None


async def test_another_kind_does_not_get_it(hospital: Hospital, autojump_clock: MockClock) -> None:
    hospital.start(proposal(CT), maximum=2, name="CT")
    await trio.sleep(1)
    hospital.start(proposal(MR), maximum=2, name="MR")
    await trio.sleep(1)
    assert len(hospital.owner.devices) == 2
    assert len(hospital.owner.lingering) == 2


def _n(field: CommandField) -> CommandSet:
    sop_class, instance = uids.STORAGE_COMMITMENT_PUSH_MODEL, "1.2.840.10008.1.20.1.1"
    return dimse.request(field, 1, sop_class, instance, has_data_set=False)


async def test_an_n_service_that_was_answered_leaves_its_state_behind(
    hospital: Hospital, autojump_clock: MockClock
) -> None:
    hospital.start(proposal(CT), _n(CommandField.N_ACTION_RQ), name="commitment")
    await trio.sleep(1)
    assert hospital.owner.over == ["commitment"]
    assert releases(hospital.heard[0]) == 1


# --- making way -----------------------------------------------------------------------------------


async def test_who_waits_for_its_place_has_it_once_it_is_released(
    hospital: Hospital, autojump_clock: MockClock
) -> None:
    owner = hospital.owner
    hospital.start(proposal(CT), echo_rq(), name="CT")
    await trio.sleep(1)
    hospital.start(proposal(MR), echo_rq(), name="MR")
    await trio.sleep(1)
    assert owner.over == ["CT"]
    assert releases(hospital.heard[0]) == 1
    assert len(owner.devices) == 2
    assert len(owner.lingering) == 1


@pytest.mark.parametrize(("second", "taken_over"), [(CT, True), (MR, False)])
async def test_who_looked_before_it_lingered(
    second: str, taken_over: bool, hospital: Hospital, autojump_clock: MockClock
) -> None:
    """A call looks for what lingers, finds nothing, and waits: by then the other one lingers.

    Of the same kind it goes to the call; of another it is released, and the call has the place.
    """
    owner = hospital.owner
    hospital.start(proposal(CT), echo_rq(), name="CT")
    await trio.sleep(1)
    assert len(owner.lingering) == 1
    place = await owner.places.take(owner.claim(proposal(second)), 5, trio.sleep_forever)
    assert (place.kept is not None) is taken_over
    assert releases(hospital.heard[0]) == (0 if taken_over else 1)
    place.free()  # what came with it goes back to who kept it, and is released
    await trio.sleep(1)
    assert releases(hospital.heard[0]) == 1
    assert (len(owner.places), len(owner.lingering)) == (0, 0)


@pytest.mark.parametrize(("second", "devices"), [(CT, 1), (MR, 2)])
async def test_who_waits_while_it_is_in_use(
    second: str, devices: int, hospital: Hospital, autojump_clock: MockClock
) -> None:
    """Of the same kind: it goes from hand to hand. Of another: it is released."""
    owner = hospital.owner
    async with trio.open_nursery() as nursery:
        started, go_on = trio.Event(), trio.Event()

        async def first() -> None:
            async with owner.associated(proposal(CT)) as device:
                started.set()
                await go_on.wait()
                await owner.release(device)

        nursery.start_soon(first)
        await started.wait()
        hospital.start(proposal(second), echo_rq(), name="second")
        await trio.sleep(1)
        assert owner.places.waiting == 1
        go_on.set()
    assert len(hospital.heard[0]) <= 3
    await trio.sleep(1)
    assert len(owner.devices) == devices
    assert releases(hospital.heard[0]) == devices - 1
    await trio.sleep(LINGER)
    assert owner.over == ["second"]
    assert len(owner.places) == 0


@pytest.mark.parametrize("how", ["cancelled", "left"])
async def test_who_is_given_it_and_does_not_take_it(
    how: str, hospital: Hospital, autojump_clock: MockClock
) -> None:
    """In the moment in which it is handed over the other's caller is gone: nothing is left over."""
    owner = hospital.owner
    gone = trio.Event()
    scope = trio.CancelScope()

    async def second() -> None:
        with scope:
            claim = owner.claim(proposal(CT))
            with pytest.raises((trio.Cancelled, Exception)):
                await owner.places.take(claim, 5, gone.wait)

    async with owner.associated(proposal(CT)) as device:
        hospital.nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        await owner.release(device)
        if how == "cancelled":
            scope.cancel()
        else:
            gone.set()
    await trio.sleep(1)
    assert (len(owner.places), owner.places.waiting, len(owner.lingering)) == (0, 0, 0)
    assert releases(hospital.heard[0]) == 1
    assert not any(isinstance(atom, AAbort) for atom in hospital.heard[0])


async def test_both_calls_are_cancelled_as_it_is_handed_over(
    hospital: Hospital, autojump_clock: MockClock
) -> None:
    owner = hospital.owner
    scopes = trio.CancelScope(), trio.CancelScope()

    async def first() -> None:
        with scopes[0]:
            async with owner.associated(proposal(CT)) as device:
                await trio.sleep(1)
                await owner.release(device)
                for scope in scopes:
                    scope.cancel()

    async def second() -> None:
        with scopes[1]:
            await owner.places.take(owner.claim(proposal(CT)), 5, trio.sleep_forever)

    hospital.nursery.start_soon(first)
    await trio.sleep(0.5)
    hospital.nursery.start_soon(second)
    await trio.sleep(2)
    assert all(scope.cancelled_caught for scope in scopes)
    assert (len(owner.places), owner.places.waiting, len(owner.lingering)) == (0, 0, 0)
    assert releases(hospital.heard[0]) == 1
    assert not any(isinstance(atom, AAbort) for atom in hospital.heard[0])


# --- what else ends it ----------------------------------------------------------------------------


@asynccontextmanager
async def one_lingers(owner: Owner) -> AsyncIterator[tuple[TCPAssociation, trio.CancelScope]]:
    """The device's end of an association that lingers, and the scope of the call before."""
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def first() -> None:
            with scope:
                await owner.call(proposal(CT))

        nursery.start_soon(first)
        while not owner.devices:
            await trio.sleep(0.01)
        device = owner.devices[0]
        await device.receive()
        await device.send(acceptance(proposal(CT)))
        while not len(owner.lingering):
            await trio.sleep(0.01)
        yield device, scope


async def test_the_device_releases_it(autojump_clock: MockClock) -> None:
    owner = Owner()
    async with one_lingers(owner) as (device, _):
        await device.send(AReleaseRQ())
        assert await device.receive() == AReleaseRP()
        await device.aclose()
    assert (len(owner.lingering), len(owner.places)) == (0, 0)


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_the_device_aborts_or_closes_it(how: str, autojump_clock: MockClock) -> None:
    owner = Owner()
    async with one_lingers(owner) as (device, _):
        if how == "abort":
            await device.abort(0, 0)
        else:
            await device._stream.aclose()
        start = trio.current_time()
    assert trio.current_time() - start < ABORT_LIMIT + 0.5
    assert (len(owner.lingering), len(owner.places)) == (0, 0)
    await device.aclose()


async def test_what_the_device_reports_is_not_taken_and_it_is_released(
    autojump_clock: MockClock,
) -> None:
    """An N-EVENT-REPORT for which nobody listens: refused, so that the device tries elsewhere."""
    owner = Owner()
    async with one_lingers(owner) as (device, _):
        event = _n(CommandField.N_EVENT_REPORT_RQ)
        await device.send(command(1, event))
        answer = await device.receive()
        assert read(answer).status == Status.PROCESSING_FAILURE
        assert await device.receive() == AReleaseRQ()
        await device.send(AReleaseRP())
    assert len(owner.places) == 0
    await device.aclose()


async def test_what_the_device_says_while_it_is_released_is_not_answered(
    autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """Its N-EVENT-REPORT crosses our A-RELEASE-RQ (PS3.8 §7.2.2.1)."""
    owner = Owner()
    async with one_lingers(owner) as (device, _):
        await trio.sleep(LINGER)
        await device.send(command(1, _n(CommandField.N_EVENT_REPORT_RQ)))
        assert await device.receive() == AReleaseRQ()
        await device.send(AReleaseRP())
        await device.aclose()
    assert [line["event"] for line in logs] == ["lingering association ends"]
    assert len(owner.places) == 0


async def test_a_device_that_speaks_nonsense_is_aborted(autojump_clock: MockClock) -> None:
    owner = Owner()
    async with one_lingers(owner) as (device, _):
        await device.send(data(1))
        assert isinstance(await device.receive(), AAbort)
    assert len(owner.places) == 0
    await device.aclose()


async def test_who_takes_it_over_as_the_device_speaks_has_a_new_one(
    hospital: Hospital, autojump_clock: MockClock
) -> None:
    owner = hospital.owner
    hospital.start(proposal(CT), name="first")
    await trio.sleep(1)
    device = owner.devices[0]
    await device.abort(0, 0)
    hospital.start(proposal(CT), echo_rq(), name="second")
    await trio.sleep(1)
    assert len(owner.devices) == 2
    assert len(owner.lingering) == 1


@pytest.mark.parametrize("answers", [True, False])
async def test_cancelled_it_is_released_within_two_seconds(
    answers: bool, autojump_clock: MockClock
) -> None:
    """A grant is taken back, or the Router has stopped: a release all the same."""
    owner = Owner()
    async with one_lingers(owner) as (device, scope):
        start = trio.current_time()
        scope.cancel()
        assert await device.receive() == AReleaseRQ()
        if answers:
            await device.send(AReleaseRP())
        else:
            assert isinstance(await device.receive(), AAbort)
        assert trio.current_time() - start <= ABORT_LIMIT + 0.1
        await device.aclose()
    assert len(owner.places) == 0


@pytest.mark.parametrize("step", range(1, 12))
async def test_cancelled_at_any_step_nothing_is_left(step: int, autojump_clock: MockClock) -> None:
    """From the release to the end of the linger."""
    owner = Owner()
    async with trio.open_nursery() as nursery:
        device: TCPAssociation | None = None

        async def call() -> None:
            with trio.CancelScope() as scope:
                async with owner.associated(proposal(CT)) as lasting:
                    trio.lowlevel.add_instrument(instrument := _CancelAtStep(scope, step))
                    try:
                        await owner.release(lasting)
                    except BaseException:
                        trio.lowlevel.remove_instrument(instrument)
                        raise
                    instruments.append(instrument)

        instruments: list[_CancelAtStep] = []
        nursery.start_soon(call)
        while not owner.devices:
            await trio.sleep(0.01)
        heard: list[Atom] = []
        device = owner.devices[0]
        await yes(device, heard)
        await device.aclose()
    for instrument in instruments:
        trio.lowlevel.remove_instrument(instrument)
    assert (len(owner.lingering), len(owner.places), owner.places.waiting) == (0, 0, 0)


class _CancelAtStep(trio.abc.Instrument):
    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope, self.step = scope, step
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.step -= 1
            if self.step == 0:
                self.scope.cancel()


async def test_the_router_stops(hospital: Hospital, autojump_clock: MockClock) -> None:
    owner = hospital.owner
    hospital.start(proposal(CT), name="first")
    await trio.sleep(1)
    owner.lingering.end_all()
    await trio.sleep(1)
    assert owner.over == ["first"]
    assert releases(hospital.heard[0]) == 1
    hospital.start(proposal(CT), name="second")
    await trio.sleep(1)
    assert owner.over == ["first", "second"]


# --- two hospitals --------------------------------------------------------------------------------


@asynccontextmanager
async def lingering_pacs(
    tmp_path: Path, heard: list[list[Atom]], *, maximum: int = 1
) -> AsyncIterator[TwoHospitals]:
    """A PACS whose associations linger; what each of them has heard."""

    async def scp(association: TCPAssociation) -> None:
        heard.append([])
        await yes(association, heard[-1])

    async with two_hospitals(tmp_path, scp, "store", "echo") as both:
        await both.b.put_device(attrs.evolve(both.pacs, maximum_associations=maximum, linger=30.0))
        yield both


async def one_image(both: TwoHospitals, request: AAssociateRQ) -> None:
    device, answer = await both.call(request)
    assert isinstance(answer, AAssociateAC)
    await device.send(command(1, store_rq()))
    await device.send(data(1))
    assert read(await device.receive()).status == 0
    await scu.release(device)
    await device.aclose()


async def until_lingering(both: TwoHospitals, count: int = 1) -> None:
    with trio.fail_after(5):
        while len(both.b.lingering) != count:
            await trio.sleep(0.001)


async def test_images_one_by_one_are_one_association_for_the_device(tmp_path: Path) -> None:
    heard: list[list[Atom]] = []
    async with lingering_pacs(tmp_path, heard) as both:
        for _ in range(5):
            await one_image(both, proposal(CT))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one_image, both, proposal(CT))
        assert len(heard) == 1
        await until_lingering(both)
        assert len(both.b.live) == 1
        await one_image(both, proposal(MR))  # waits for the one place, which is given up
        assert len(heard) == 2
        assert releases(heard[0]) == 1


@pytest.mark.parametrize("what", ["grant", "device", "stop"])
async def test_what_ends_associations_ends_lingering_ones_by_a_release(
    what: str, tmp_path: Path
) -> None:
    heard: list[list[Atom]] = []
    async with lingering_pacs(tmp_path, heard) as both:
        await one_image(both, proposal(CT))
        await until_lingering(both)
        if what == "grant":
            await both.b.remove_grant(next(iter(both.b.grants)).id)
        elif what == "device":
            await both.b.remove_device("PACS")
        else:
            both.b.lingering.end_all()
        with trio.fail_after(5):
            await both.b.live.wait_empty()
        assert [type(atom) for atom in heard[0]][-1] is AReleaseRQ
        assert len(both.b.places) == 0


async def test_nothing_lingers_once_the_router_stops(tmp_path: Path) -> None:
    heard: list[list[Atom]] = []
    async with lingering_pacs(tmp_path, heard, maximum=5) as both:
        await one_image(both, proposal(CT))
        await until_lingering(both)
        both.b.lingering.end_all()
        await both.b.live.wait_empty()
        await one_image(both, proposal(CT))
        assert len(heard) == 2
        await until_lingering(both, 0)
