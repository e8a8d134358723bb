"""The far end of a delivery over two Routers: how it begins, and how both associations end."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from relay.association import TCPAssociation
from relay.database import open_database
from relay.dicom import dimse, pdu, uids
from relay.dicom.negotiation import AsynchronousOperationsWindow, find
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    UserItem,
)
from relay.router.opening import serve_opening
from relay.router.queue.operations import MAXIMUM_WINDOW
from relay.signalling import messages
from relay.spool import receipts
from relay.spool.receipts import ReceiptTable, Recorder
from relay.spool.schema import MIGRATIONS
from relay.tunnel import notes
from relay.tunnel.allowance import Allowance
from relay.tunnel.handshake import Purpose
from relay.tunnel.notes import Answer, Answers, Asked, Ended, EndedBy, Forget, Outcome, Question
from relay.tunnel.records import Note, Record
from relay.tunnel.session import TunnelAssociation, open_tunnel
from tests.router.fakes import (
    CT,
    MR,
    TwoHospitals,
    acceptance,
    command,
    proposal,
    two_hospitals,
)
from tests.router.openings import opening
from tests.router.queue.consignments import consigned, data_set, item, object_id
from tests.waiting import until

LARGE = bytes(range(256)) * 12_000  # more than a chunk


@attrs.define(eq=False)
class PACS:
    """A device that notes what it hears. `heard` has a list for each of its associations."""

    heard: list[list[Atom]] = attrs.Factory(list)
    window: AsynchronousOperationsWindow | UserItem | None = None
    releases: bool = True
    rejects: AAssociateRJ | None = None
    instead: Callable[[TCPAssociation], Awaitable[object]] | None = None  # of an answer
    aborts_after: int | None = None  # objects

    async def serve(self, association: TCPAssociation) -> None:
        heard: list[Atom] = []
        self.heard.append(heard)
        reader, asked, objects = dimse.CommandReader(), None, 0
        while True:
            atom = await association.receive()
            heard.append(atom)
            match atom:
                case AAssociateRQ():
                    if self.instead is not None:
                        await self.instead(association)
                        return
                    await association.send(self.rejects or self._accept(atom))
                    if self.rejects:
                        return
                case PDV():
                    asked = reader.feed(atom) or asked
                    if asked is None or reader.message_open:
                        continue
                    objects += 1
                    if self.aborts_after is not None and objects > self.aborts_after:
                        await association.abort(0, 0)
                        return
                    await association.send(command(1, dimse.response_to(asked, 0)))
                case AReleaseRQ():
                    if self.releases:
                        await association.send(AReleaseRP())
                    return
                case _:
                    return

    def _accept(self, request: AAssociateRQ) -> AAssociateAC:
        answer = acceptance(request)
        if self.window is None:
            return answer
        item = self.window if isinstance(self.window, UserItem) else self.window.encode()
        return attrs.evolve(answer, user_items=(*answer.user_items, item))

    def objects(self, association: int = 0) -> list[bytes]:
        contents, whole = [bytearray()], []
        for atom in self.heard[association]:
            if isinstance(atom, PDV) and not atom.is_command:
                contents[-1] += atom.fragment
                if atom.is_last:
                    whole.append(bytes(contents[-1]))
                    contents.append(bytearray())
        return whole

    @property
    def last(self) -> Atom:
        return self.heard[-1][-1]


@attrs.define(eq=False)
class Delivery:
    both: TwoHospitals
    pacs: PACS
    recorder: Recorder
    over: list[str] = attrs.Factory(list)

    @asynccontextmanager
    async def near(self, request: AAssociateRQ | None = None) -> AsyncIterator[TunnelAssociation]:
        """The near Router's end of a new session."""
        a = self.both.a.joined()
        pending = opening(self.both, pdu.encode(request or proposal(CT)), purpose=Purpose.DELIVERY)
        async with open_tunnel(
            a.client,  # type: ignore[arg-type]
            a.objects,  # type: ignore[arg-type]
            pending,
            allowance=Allowance(),
        ) as near:
            yield near


@asynccontextmanager
async def deliveries(
    tmp_path: Path, pacs: PACS | None = None, *services: str, **device: object
) -> AsyncIterator[Delivery]:
    pacs = pacs or PACS()
    async with (
        open_database(tmp_path / "queue.db", MIGRATIONS) as database,
        two_hospitals(tmp_path, pacs.serve, *(services or ("store",))) as both,
    ):
        recorder = Recorder(await ReceiptTable.load(database))
        delivery = Delivery(both, pacs, recorder)
        queue = SimpleNamespace(spool=SimpleNamespace(recorder=recorder))
        if device:
            await both.b.put_device(attrs.evolve(both.pacs, **device))  # type: ignore[arg-type]

        async def serve(message: messages.Open) -> None:
            opened = attrs.evolve(message, router=both.a.identity.public)
            await serve_opening(both.b, opened, queue)  # type: ignore[arg-type]
            delivery.over.append("over")

        both.bridge.on_open = lambda message: both.nursery.start_soon(serve, message)
        yield delivery


async def accepted(near: TunnelAssociation) -> AAssociateAC:
    answer = await near.receive_record()
    assert isinstance(answer, AAssociateAC)
    return answer


async def send(near: TunnelAssociation, *records: Record) -> None:
    for record in records:
        await near.send(record)


async def heard(near: TunnelAssociation) -> list[Record | notes.Message]:
    """Everything until the end, notes decoded."""
    records: list[Record | notes.Message] = []
    while True:
        record = await near.receive_record()
        records.append(notes.decode(record) if isinstance(record, Note) else record)
        if isinstance(record, AReleaseRP | AAbort | AAssociateRJ):
            return records


def result(number: int, outcome: Outcome = Outcome.ANSWERED, status: int = 0) -> notes.Result:
    return notes.Result(object_id(number), outcome, status, "")


# --- what goes well -------------------------------------------------------------------------------


async def test_a_delivery_from_its_opening_to_its_release(tmp_path: Path) -> None:
    pacs = PACS(window=AsynchronousOperationsWindow(4, 1))
    async with deliveries(tmp_path, pacs) as delivery:
        with capture_logs() as logs:
            async with delivery.near() as near:
                answer = await accepted(near)
                assert find(answer.user_items, AsynchronousOperationsWindow)[0].invoked == 4
                for number in range(5):
                    await send(near, *consigned(number))
                results = [notes.decode(await near.receive_record()) for _ in range(5)]  # type: ignore[arg-type]
                assert results == [result(n) for n in range(5)]
                await send(near, notes.encode(Forget((object_id(0),))), AReleaseRQ())
                assert await heard(near) == [AReleaseRP()]
            await until(lambda: bool(delivery.over))
        (asked, *_), last = pacs.heard[0], pacs.last
        assert isinstance(asked, AAssociateRQ)
        windows = find(asked.user_items, AsynchronousOperationsWindow)
        assert windows == (AsynchronousOperationsWindow(MAXIMUM_WINDOW, 1),)
        assert pacs.objects() == [data_set(n) for n in range(5)]
        assert last == AReleaseRQ()
        assert len(delivery.recorder.table) == 5
        assert len(delivery.both.b.places) == 0
        (ended,) = [line for line in logs if line["event"] == "delivery ended"]
        assert (ended["how"], ended["delivered"], ended["failed"]) == ("released", 5, 0)
        assert not any("1.2.3" in str(line) for line in logs)  # no object by its name


async def test_a_large_object_crosses_in_many_fragments(tmp_path: Path) -> None:
    async with deliveries(tmp_path) as delivery, delivery.near() as near:
        await accepted(near)
        request = consigned(0)[1]
        await send(near, notes.encode(item(0, LARGE)), request)
        for at in range(0, len(LARGE), 100_000):
            piece = LARGE[at : at + 100_000]
            await send(near, PDV(1, False, at + 100_000 >= len(LARGE), piece))
        await send(near, AReleaseRQ())
        assert await heard(near) == [result(0), AReleaseRP()]
        assert delivery.pacs.objects() == [LARGE]


async def test_what_was_delivered_once_is_never_seen_again(tmp_path: Path) -> None:
    async with deliveries(tmp_path) as delivery:
        async with delivery.near() as near:
            await accepted(near)
            await send(near, *consigned(0), AReleaseRQ())
            assert await heard(near) == [result(0), AReleaseRP()]
        async with delivery.near() as near:
            await accepted(near)
            rows = tuple(Asked(object_id(n), item(n).digest) for n in range(2))
            await send(near, notes.encode(Question(rows)), *consigned(0), AReleaseRQ())
            assert await heard(near) == [
                Answers((Answer(object_id(0), Outcome.ANSWERED, 0, ""),)),
                result(0),
                AReleaseRP(),
            ]
        assert delivery.pacs.objects(1) == []
        assert delivery.pacs.last == AReleaseRQ()


async def test_sessions_one_after_the_other_are_one_association_where_it_lingers(
    tmp_path: Path,
) -> None:
    async with deliveries(tmp_path, None, linger=30.0) as delivery:
        for number in range(3):
            async with delivery.near() as near:
                await accepted(near)
                await send(near, *consigned(number), AReleaseRQ())
                assert await heard(near) == [result(number), AReleaseRP()]
            await until(lambda: len(delivery.both.b.lingering) == 1)
        async with delivery.near() as near:  # one that only looks in, and leaves without a word
            await accepted(near)
        await until(lambda: len(delivery.both.b.lingering) == 1)
        assert len(delivery.pacs.heard) == 1
        assert delivery.pacs.objects() == [data_set(n) for n in range(3)]


# --- how it begins --------------------------------------------------------------------------------


async def test_only_contexts_for_storage_reach_the_device(tmp_path: Path) -> None:
    async with deliveries(tmp_path, None, "store", "echo") as delivery:
        request = proposal(uids.VERIFICATION, CT, MR)
        async with delivery.near(request) as near:
            answer = await accepted(near)
            assert [context.accepted for context in answer.contexts] == [False, True, True]
        async with delivery.near(proposal(uids.VERIFICATION)) as near:
            assert await heard(near) == [AAssociateRJ(1, 1, 3)]
        assert len(delivery.pacs.heard) == 1


async def test_a_sender_that_never_forgets_is_rejected_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "MAXIMUM_RECEIPTS", 0)
    async with deliveries(tmp_path) as delivery, delivery.near() as near:
        assert await heard(near) == [AAssociateRJ(2, 3, 2)]
        assert delivery.pacs.heard == []


@pytest.mark.parametrize(
    ("pacs", "answer"),
    [
        (PACS(rejects=AAssociateRJ(1, 1, 7)), AAssociateRJ(1, 1, 7)),
        (PACS(instead=TCPAssociation.receive), AAssociateRJ(2, 3, 1)),
    ],
)
async def test_a_device_that_says_no_or_nothing(pacs: PACS, answer: Atom, tmp_path: Path) -> None:
    async with deliveries(tmp_path, pacs, answer_wait=0.2) as delivery:
        async with delivery.near() as near:
            assert await heard(near) == [answer]
        await until(lambda: bool(delivery.over))
        assert len(delivery.both.b.places) == 0


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_a_device_that_aborts_instead_of_an_answer(how: str, tmp_path: Path) -> None:
    async def aborts(association: TCPAssociation) -> None:
        if how == "abort":
            await association.abort(2, 1)
        else:
            await association._stream.aclose()

    pacs = PACS(instead=aborts)
    async with deliveries(tmp_path, pacs) as delivery, delivery.near() as near:
        (answer,) = await heard(near)
        assert isinstance(answer, AAbort | AAssociateRJ)


async def test_an_answer_that_cannot_be_read_ends_it(tmp_path: Path) -> None:
    pacs = PACS(window=UserItem(AsynchronousOperationsWindow.TYPE, b"\0"))
    async with deliveries(tmp_path, pacs) as delivery, delivery.near() as near:
        assert isinstance((await heard(near))[-1], AAbort)
        await until(lambda: isinstance(pacs.last, AAbort))


async def test_who_speaks_before_its_turn_is_not_waited_for(tmp_path: Path) -> None:
    """A note while a place is awaited is no association's, and must not fail the Router."""
    limits = {"maximum_associations": 1, "place_wait": 30.0}
    async with deliveries(tmp_path, None, **limits) as delivery, delivery.near() as first:
        await accepted(first)
        async with delivery.near() as second:
            await until(lambda: delivery.both.b.places.waiting == 1)
            await send(second, notes.encode(Question(())))
            assert isinstance((await heard(second))[-1], AAbort | AAssociateRJ)
        await until(lambda: delivery.both.b.places.waiting == 0)


# --- how it ends ----------------------------------------------------------------------------------


async def test_a_device_that_aborts_ends_it_behind_what_it_has_answered(tmp_path: Path) -> None:
    async with deliveries(tmp_path, PACS(aborts_after=2)) as delivery:
        with capture_logs() as logs:
            async with delivery.near() as near:
                await accepted(near)
                await send(near, *consigned(0), *consigned(1), *consigned(2), *consigned(3))
                *results, ended, last = await heard(near)
            await until(lambda: bool(delivery.over))
        assert results == [result(0), result(1)]
        assert isinstance(ended, Ended)
        assert (ended.by, ended.source, ended.reason) == (EndedBy.DEVICE, 0, 0)
        assert last == AReleaseRP()
        (line,) = [line for line in logs if line["event"] == "delivery ended"]
        assert (line["how"], line["delivered"]) == ("ended by the device", 2)


async def test_a_changed_object_ends_it_and_the_device_is_aborted(tmp_path: Path) -> None:
    async with deliveries(tmp_path) as delivery:
        async with delivery.near() as near:
            await accepted(near)
            await send(near, *consigned(0), *consigned(1, b"not what it says"), *consigned(2))
            first, changed, ended, last = await heard(near)
        assert (first, changed) == (result(0), result(1, Outcome.CHANGED))
        assert isinstance(ended, Ended)
        assert ended.by is EndedBy.ROUTER
        assert last == AReleaseRP()
        await until(lambda: isinstance(delivery.pacs.last, AAbort))
        assert delivery.pacs.last == AAbort(2, 0)  # the device has done nothing wrong
        assert delivery.pacs.objects() == [data_set(0)]


async def test_a_device_that_does_not_answer_the_release_changes_nothing(tmp_path: Path) -> None:
    async with deliveries(tmp_path, PACS(releases=False)) as delivery, delivery.near() as near:
        await accepted(near)
        await send(near, *consigned(0), AReleaseRQ())
        assert await heard(near) == [result(0), AReleaseRP()]


async def test_a_near_router_out_of_turn_ends_it_and_hears_so(tmp_path: Path) -> None:
    async with deliveries(tmp_path) as delivery, delivery.near() as near:
        await accepted(near)
        await send(near, *consigned(0), notes.encode(item(1)), notes.encode(item(2)))
        first, ended, last = await heard(near)
        assert first == result(0)
        assert isinstance(ended, Ended)
        assert (ended.by, ended.source, ended.reason) == (EndedBy.ROUTER, 2, 2)
        assert last == AReleaseRP()
        await until(lambda: delivery.pacs.last == AAbort(2, 0))


@pytest.mark.parametrize("quiet", [True, False])
async def test_a_near_router_that_goes_away(quiet: bool, tmp_path: Path) -> None:
    async with deliveries(tmp_path) as delivery:
        async with delivery.near() as near:
            await accepted(near)
            await send(near, *consigned(0))
            assert notes.decode(await near.receive_record()) == result(0)  # type: ignore[arg-type]
            if not quiet:
                before = len(delivery.pacs.heard[0])
                await send(near, *consigned(1)[:-1])
                await until(lambda: len(delivery.pacs.heard[0]) > before)
        await until(lambda: bool(delivery.over))
        await until(lambda: isinstance(delivery.pacs.last, AReleaseRQ | AAbort))
        assert isinstance(delivery.pacs.last, AReleaseRQ if quiet else AAbort)
        assert len(delivery.both.b.places) == 0


@pytest.mark.parametrize("what", ["grant", "device", "stop"])
async def test_taking_back_ends_it_within_five_seconds(what: str, tmp_path: Path) -> None:
    async with deliveries(tmp_path) as delivery, delivery.near() as near:
        b = delivery.both.b
        await accepted(near)
        await send(near, *consigned(0)[:-1])
        await until(lambda: len(delivery.pacs.heard[0]) > 1)
        with trio.fail_after(5):
            if what == "grant":
                await b.remove_grant(next(iter(b.grants)).id)
            elif what == "device":
                await b.remove_device("PACS")
            else:
                b.live.end_all()
            assert isinstance((await heard(near))[-1], AAbort)
            await b.live.wait_empty()
        await until(lambda: isinstance(delivery.pacs.last, AAbort))
        assert delivery.pacs.objects() == []
        await delivery.recorder.wait_free(delivery.both.a.identity.public, [object_id(0)])


async def test_several_sessions_at_once(tmp_path: Path) -> None:
    async with deliveries(tmp_path, None, maximum_associations=8) as delivery:

        async def session(first: int) -> None:
            async with delivery.near() as near:
                await accepted(near)
                for number in range(first, first + 10):
                    await send(near, *consigned(number))
                await send(near, AReleaseRQ())
                assert len(await heard(near)) == 11

        async with trio.open_nursery() as nursery:
            for first in range(0, 40, 10):
                nursery.start_soon(session, first)
        assert len(delivery.recorder.table) == 40
        assert sum(len(delivery.pacs.objects(n)) for n in range(4)) == 40
