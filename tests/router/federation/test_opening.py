"""An association with a source: whoever it is, by which names, and what it means where it fails."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from relay import scu
from relay.association import TCPAssociation
from relay.dicom import uids
from relay.dicom.negotiation import RoleSelection, find
from relay.dicom.pdu import PDV, AAbort, AAssociateRJ, AAssociateRQ, AReleaseRQ, Atom
from relay.dicom.upperlayer import Role
from relay.errors import (
    AbortReason,
    AbortSource,
    AssociationAborted,
    Outcome,
    RemoteProtocolError,
    SourceFailed,
)
from relay.router.devices import Device
from relay.router.federation import opening
from relay.router.federation.federation import Federation
from relay.router.federation.opening import Opened, open_source
from relay.router.federation.settings import FederationSettings
from relay.router.federation.sources import Source
from tests.router.fakes import (
    CT,
    IMPLICIT,
    TwoHospitals,
    acceptance,
    hospital,
    listing,
    proposal,
    publication,
    two_hospitals,
    yes_to_all,
)

FIND = [(uids.STUDY_ROOT_FIND, [IMPLICIT])]
SERVICES = ("query", "retrieve")

Scp = Callable[[TCPAssociation], Awaitable[None]]


@attrs.define
class Asking:
    """A federation in A, and its source: A's own device, or B's."""

    both: TwoHospitals
    federation: Federation
    source: Source
    caller: Device

    @asynccontextmanager
    async def opened(
        self, proposed: Sequence[tuple[str, Sequence[str]]] = FIND, roles: Sequence[str] = ()
    ) -> AsyncIterator[Opened]:
        async with open_source(
            self.federation, self.caller, self.source, proposed, provider_roles=roles
        ) as opened:
            yield opened

    async def asks(
        self, first: Callable[[], Awaitable[None]] | None = None, *, deadline: float = 60
    ) -> None:
        """A query that is never answered."""
        async with self.opened() as opened:
            if first is not None:
                await first()
            context = opened.context(uids.STUDY_ROOT_FIND)
            async for _ in scu.find(opened.association, context, b"", deadline=deadline):
                raise AssertionError("there is no answer")

    async def fails(self) -> SourceFailed:
        with pytest.raises(SourceFailed) as caught:
            async with self.opened():
                raise AssertionError("it came about")
        return caught.value


@asynccontextmanager
async def asking(
    tmp_path: Path,
    scp: Scp,
    where: str,
    *,
    settings: FederationSettings | None = None,
    services: Sequence[str] = SERVICES,
    **fields: object,
) -> AsyncIterator[Asking]:
    """`scp` is PACS, of A ("ours") or of B ("theirs"), with these `fields`."""
    async with two_hospitals(tmp_path, scp, *services, published=SERVICES) as both:
        caller = both.a.devices.get("WS")
        assert caller is not None
        device = attrs.evolve(both.pacs, **fields)  # type: ignore[arg-type]
        if where == "ours":
            device = attrs.evolve(device, ae_title="PACS_A", published="PACS_A", federation=True)
            await both.a.put_device(device)
            source = Source("PACS_A", "PACS_A", "A", device, True)
        else:
            await both.b.put_device(device)
            source = Source("PACS", "PACS", "B", None, True)
        federation = Federation(both.a, settings or FederationSettings(site_wait=5))
        yield Asking(both, federation, source, caller)


@attrs.define
class Pacs:
    """A device that takes everything, and what it heard."""

    requests: list[AAssociateRQ] = attrs.Factory(list)
    heard: list[Atom] = attrs.Factory(list)
    answer: Atom | None = None  # to the request; None: yes to all
    silent: bool = False  # does not answer the request
    frozen: bool = False  # does not answer the release

    async def __call__(self, association: TCPAssociation) -> None:
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        self.requests.append(request)
        if self.silent:
            self.heard.append(await association.receive())
            return
        await association.send(self.answer or acceptance(request))
        if isinstance(self.answer, AAssociateRJ):
            return
        while not isinstance(atom := await association.receive(), AAbort | AReleaseRQ):
            self.heard.append(atom)
        self.heard.append(atom)
        if isinstance(atom, AReleaseRQ) and self.frozen:
            self.heard.append(await association.receive())


@pytest.mark.parametrize("where", ["ours", "theirs"])
async def test_it_is_asked_in_the_callers_name_and_released(tmp_path: Path, where: str) -> None:
    seen: list[AAssociateRQ] = []

    async def scp(association: TCPAssociation) -> None:
        seen.append(await association.wait_indication())  # type: ignore[arg-type]
        await yes_to_all(association)

    async with asking(tmp_path, scp, where) as it:
        roles = [(CT, [IMPLICIT])]
        async with it.opened([*FIND, *roles], roles=[CT]) as opened:
            assert len(it.both.a.live) == 1
            context = opened.context(uids.PATIENT_ROOT_FIND, uids.STUDY_ROOT_FIND)
            assert (context.id, context.transfer_syntax) == (1, IMPLICIT)
            with pytest.raises(SourceFailed, match="does not take") as caught:
                opened.context(uids.STUDY_ROOT_GET)
            assert caught.value.outcome is Outcome.REFUSED
            answers = [
                answer async for answer in scu.find(opened.association, context, b"", message_id=77)
            ]
            assert [answer.status for answer in answers] == [0]
        assert opened.association.cause == "released"
        assert not len(it.both.a.live)
        assert not it.federation.lines._busy
        [request] = seen
        assert request.calling == "WS"
        assert request.called == it.source.title
        [role] = find(request.user_items, RoleSelection)
        assert (role.sop_class, role.scu, role.scp) == (CT, False, True)
        said = it.federation.states.to_json(it.source.published)
        assert said["last_seen"]
        assert said["last_error"] is None


@pytest.mark.parametrize("where", ["ours", "theirs"])
async def test_the_router_itself_asks_by_its_own_title(tmp_path: Path, where: str) -> None:
    pacs = Pacs()
    async with asking(tmp_path, pacs, where) as it:
        async with open_source(it.federation, None, it.source, FIND):
            pass
        assert [request.calling for request in pacs.requests] == ["RELAY_A"]


@pytest.mark.parametrize("where", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("pacs", "outcome", "words"),
    [
        (Pacs(answer=AAssociateRJ(1, 1, 3)), Outcome.REFUSED, "calling AE title"),
        (Pacs(answer=AAssociateRJ(1, 1, 1)), Outcome.REFUSED, "no reason given"),
        (Pacs(answer=AAssociateRJ(2, 3, 1)), Outcome.UNREACHABLE, "temporary congestion"),
        (Pacs(answer=AAbort(2, 0)), Outcome.UNREACHABLE, "abort"),
        (Pacs(silent=True), Outcome.SLOW, "no association with it within 0.5 s"),
    ],
)
async def test_a_device_that_does_not_take_it(
    tmp_path: Path, where: str, pacs: Pacs, outcome: Outcome, words: str
) -> None:
    pacs = attrs.evolve(pacs, requests=[], heard=[])
    settings = FederationSettings(site_wait=0.5)
    async with asking(tmp_path, pacs, where, settings=settings) as it:
        error = await it.fails()
        assert (error.outcome, words in str(error)) == (outcome, True), str(error)
        assert it.federation.states.to_json(it.source.published)["last_error"] == str(error)
        await it.both.a.live.wait_empty()
        assert len(pacs.requests) == 1
        assert not list(it.both.a.places._taken)


@pytest.mark.parametrize("where", ["ours", "theirs"])
async def test_a_device_that_is_switched_off_is_unreachable(tmp_path: Path, where: str) -> None:
    async with asking(tmp_path, yes_to_all, where, port=1) as it:
        assert (await it.fails()).outcome is Outcome.UNREACHABLE


@pytest.mark.parametrize("services", [[], ["retrieve"]])
async def test_what_its_hospital_does_not_grant_is_not_its_fault(
    tmp_path: Path, services: Sequence[str]
) -> None:
    async with asking(tmp_path, yes_to_all, "theirs", services=services) as it:
        error = await it.fails()
        assert error.outcome is Outcome.NOT_GRANTED
        assert "`relay grant ask PACS" in str(error)
        assert it.federation.states.to_json("PACS")["last_error"] is None


@pytest.mark.parametrize("what", ["no connection", "away", "not published", "network unknown"])
async def test_what_cannot_be_called_now(tmp_path: Path, what: str) -> None:
    async with asking(tmp_path, yes_to_all, "theirs") as it:
        outcome = Outcome.UNREACHABLE
        match what:
            case "no connection":
                it.both.bridge.cut(it.both.bridge.caller)
            case "away":
                it.federation.settings = FederationSettings(site_wait=0.2)
                it.both.bridge.cut(it.both.bridge.callee)
                outcome = Outcome.SLOW  # the Bridge of these tests does not say so
            case "not published":
                it.source = attrs.evolve(it.source, title="OTHER", published="OTHER")
                outcome = Outcome.REFUSED
            case _:
                it.source = attrs.evolve(it.source, published="")
        error = await it.fails()
        assert error.outcome is outcome, str(error)


async def test_the_callers_own_places_are_not_used_up(tmp_path: Path) -> None:
    async with asking(tmp_path, yes_to_all, "theirs") as it:
        it.caller = attrs.evolve(it.caller, maximum_associations=1, place_wait=0)
        await it.both.a.put_device(it.caller)
        first, _ = await it.both.call(proposal(uids.STUDY_ROOT_FIND))
        async with it.opened():
            assert len(it.both.a.live) == 2
        await first.abort()
        await first.aclose()


async def test_a_device_of_ours_has_its_maximum(tmp_path: Path) -> None:
    settings = FederationSettings(site_wait=0.2)
    async with asking(
        tmp_path, yes_to_all, "ours", settings=settings, maximum_associations=1
    ) as it:
        async with it.opened():
            error = await it.fails()
            assert error.outcome is Outcome.SLOW
            assert "maximum of associations" in str(error)
        async with it.opened():
            pass


async def test_so_many_operations_are_at_one_device_at_once(tmp_path: Path) -> None:
    settings = FederationSettings(site_wait=0.2, queries=1)
    async with asking(tmp_path, yes_to_all, "theirs", settings=settings) as it:
        async with it.opened():
            assert (await it.fails()).outcome is Outcome.SLOW
        async with it.opened():
            pass


async def test_queries_do_not_wait_behind_retrieves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LINE_WAIT", 1.0)
    settings = FederationSettings(site_wait=1.0, queries=1, retrieves=1)
    async with asking(tmp_path, yes_to_all, "theirs", settings=settings) as it:

        def transfer() -> AbstractAsyncContextManager[Opened]:
            return open_source(it.federation, it.caller, it.source, FIND, transfers=True)

        async with transfer():
            async with it.opened():
                pass
            with pytest.raises(SourceFailed, match=r"none was done in 1 s"):
                async with transfer():
                    raise AssertionError("it came about")
        async with transfer():
            pass


# --- while it lasts -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["ours", "theirs"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("of whoever asks"),
        AssociationAborted(0, 0, "of another association"),
        RemoteProtocolError("of another association"),
    ],
)
async def test_an_error_of_the_block_passes_and_aborts(
    tmp_path: Path, where: str, error: Exception
) -> None:
    pacs = Pacs()
    async with asking(tmp_path, pacs, where) as it:
        with pytest.raises(type(error)) as caught:
            async with it.opened():
                raise error
        assert caught.value is error
        while not pacs.heard:
            await trio.sleep(0.001)
        assert isinstance(pacs.heard[0], AAbort)
        assert not len(it.both.a.live)


@pytest.mark.parametrize("where", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        (AbortSource.SERVICE_USER, Outcome.REFUSED),
        (AbortSource.SERVICE_PROVIDER, Outcome.UNREACHABLE),
    ],
)
async def test_a_device_that_aborts(
    tmp_path: Path, where: str, source: AbortSource, outcome: Outcome
) -> None:
    async def scp(association: TCPAssociation) -> None:
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        await association.send(acceptance(request))
        await association.receive()
        await association.abort(source, AbortReason.NOT_SPECIFIED)

    async with asking(tmp_path, scp, where) as it:
        with pytest.raises(SourceFailed) as caught:
            await it.asks()
        assert caught.value.outcome is outcome
        assert it.federation.states.to_json(it.source.published)["last_error"]


@pytest.mark.parametrize("where", ["ours", "theirs"])
async def test_a_device_that_says_nothing_more_is_slow(tmp_path: Path, where: str) -> None:
    pacs = Pacs()
    async with asking(tmp_path, pacs, where) as it:
        with pytest.raises(SourceFailed, match=r"no response within 0\.2 s") as caught:
            await it.asks(deadline=0.2)
        assert caught.value.outcome is Outcome.SLOW
        while not isinstance(pacs.heard[-1], AAbort):
            await trio.sleep(0.001)


TAKEN_AWAY = [
    ("ours", "device"),
    ("ours", "caller"),
    ("theirs", "caller"),
    ("theirs", "grant"),
    ("theirs", "their device"),
    ("theirs", "peer"),
]


@pytest.mark.parametrize(("where", "what"), TAKEN_AWAY)
async def test_what_is_taken_away_ends_it(tmp_path: Path, where: str, what: str) -> None:
    async with (
        hospital(tmp_path / "east") as east,
        asking(tmp_path, Pacs(), where) as it,
    ):

        async def take_away() -> None:
            match what:
                case "device":
                    assert it.source.device is not None
                    await it.both.a.put_device(attrs.evolve(it.source.device, federation=False))
                case "caller":
                    await it.both.a.remove_device("WS")
                case "their device":
                    await it.both.b.remove_device("PACS")
                case "peer":  # another one says that the title is its own
                    claim = listing(east, whole=False, publications=[publication(east, "PACS")])
                    await it.both.a.joined().directory.take(claim)
                    it.both.a.live.recheck()  # as relay.router.network does
                case _:
                    await it.both.b.remove_grant(next(iter(it.both.b.grants)).id)

        with trio.fail_after(5), pytest.raises(SourceFailed) as caught:
            await it.asks(take_away)
        assert caught.value.outcome is Outcome.UNREACHABLE
        for node in (it.both.a, it.both.b):
            await node.live.wait_empty()


@pytest.mark.parametrize("where", ["ours", "theirs"])
async def test_who_cancels_leaves_nothing_behind(tmp_path: Path, where: str) -> None:
    pacs = Pacs()
    async with asking(tmp_path, pacs, where) as it:
        with trio.move_on_after(0.2) as scope:
            async with it.opened() as opened:
                await opened.association.receive()
        assert scope.cancelled_caught
        await it.both.a.live.wait_empty()
        while not pacs.heard:
            await trio.sleep(0.001)
        assert isinstance(pacs.heard[-1], AAbort)
        assert not it.federation.lines._busy
        assert not it.both.a.places._taken


@pytest.mark.parametrize("where", ["ours", "theirs"])
async def test_a_device_that_does_not_release_holds_nobody_up(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LEAVING", 0.2)
    pacs = Pacs(frozen=True)
    async with asking(tmp_path, pacs, where) as it:
        with trio.fail_after(5):
            async with it.opened():
                pass
        while not isinstance(pacs.heard[-1], AAbort):
            await trio.sleep(0.001)
        assert not len(it.both.a.live)


async def test_what_is_over_is_not_released_again(tmp_path: Path) -> None:
    async with asking(tmp_path, yes_to_all, "theirs") as it:
        async with it.opened() as opened:
            await scu.release(opened.association)
        assert not it.federation.lines._busy


async def test_pdvs_go_both_ways(tmp_path: Path) -> None:
    async with asking(tmp_path, yes_to_all, "theirs") as it, it.opened() as opened:
        context = opened.context(uids.STUDY_ROOT_FIND)
        for number in range(1, 20):
            answers = [
                answer.status
                async for answer in scu.find(
                    opened.association, context, bytes(10_000), message_id=number
                )
            ]
            assert answers == [0]
        with trio.move_on_after(0.01) as waiting:
            assert isinstance(await opened.association.receive(), PDV)
        assert waiting.cancelled_caught


async def test_a_device_that_keeps_the_connection_open_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the one of ours that it belongs to, nor its place."""
    monkeypatch.setattr(opening, "LEAVING", 0.2)
    async with asking(tmp_path, yes_to_all, "ours") as it:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        device = attrs.evolve(it.source.device, port=port)  # type: ignore[misc]
        await it.both.a.put_device(device)
        it.source = attrs.evolve(it.source, device=device)

        async def serve() -> None:
            async with listeners[0], await listeners[0].accept() as stream:
                acceptor = TCPAssociation(stream, Role.ACCEPTOR)
                request = await acceptor.receive()
                assert isinstance(request, AAssociateRQ)
                await acceptor.send(acceptance(request))
                await trio.sleep_forever()  # reads nothing more, and does not close

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with trio.fail_after(5), pytest.raises(ValueError, match="mine"):
                async with it.opened():
                    raise ValueError("mine")
            assert not it.both.a.places._taken
            nursery.cancel_scope.cancel()
