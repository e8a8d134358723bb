"""The near end of a delivery, whose far end does what a far Router may do, or should not."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from relay.dicom import negotiation, pdu
from relay.dicom.pdu import PDV, AAbort, AAssociateRQ, AReleaseRP, AReleaseRQ, Atom
from relay.errors import DatabaseError
from relay.router.node import unix_time
from relay.router.queue import delivery, ledger
from relay.signalling import messages
from relay.spool.items import Item, Selection, State
from relay.tunnel import notes
from relay.tunnel.allowance import Allowance
from relay.tunnel.handshake import accept_opening
from relay.tunnel.notes import (
    Answer,
    Answers,
    Ended,
    EndedBy,
    Forget,
    Outcome,
    Question,
    Result,
)
from relay.tunnel.records import Note, Record
from relay.tunnel.session import TunnelAssociation, accept_tunnel
from tests.router.fakes import NETWORK, acceptance
from tests.router.queue.sending import Sending, objects, sending
from tests.router.queue.test_delivery import LARGE
from tests.waiting import until


class GoneError(Exception):
    """The near Router has left before the script was over."""


@attrs.define
class Far:
    """The far end of one session, once its A-ASSOCIATE-AC is said."""

    near: TunnelAssociation
    heard: list[object] = attrs.Factory(list)

    async def say(self, *said: notes.Message | Atom) -> None:
        for one in said:
            record: Record = one if isinstance(one, Atom) else notes.encode(one)
            await self.near.send(record)

    async def next(self, kind: type) -> object:
        """What comes next of this kind; what comes before it is noted."""
        while True:
            record = await self.near.receive_record()
            message = notes.decode(record) if isinstance(record, Note) else record
            self.heard.append(message)
            if isinstance(message, kind):
                return message
            if isinstance(message, Question):
                await self.say(Answers(()))
            if isinstance(message, AAbort):
                raise GoneError

    async def item(self) -> bytes:
        """The id of the next item, once that is whole."""
        item = await self.next(notes.Item)
        assert isinstance(item, notes.Item)
        while True:
            pdv = await self.next(PDV)
            assert isinstance(pdv, PDV)
            if pdv.is_last and not pdv.is_command:
                return item.id

    async def release(self) -> None:
        await self.next(AReleaseRQ)
        await self.say(AReleaseRP())


Script = Callable[[Far], Awaitable[object]]


@asynccontextmanager
async def scripted(tmp_path: Path, *scripts: Script) -> AsyncIterator[Sending]:
    """The far Router does this in its first session, and so on; in later ones the last again."""
    async with sending(tmp_path) as it:
        left = list(scripts)

        async def serve(message: messages.Open) -> None:
            received = accept_opening(
                it.both.b.identity,
                it.both.b.keyring.pairs,
                NETWORK,
                it.both.a.identity.public,
                message.opening,
                message.request,
                unix_time(),
            )
            request = pdu.decode(received.request)
            assert isinstance(request, AAssociateRQ)
            script = left.pop(0) if len(left) > 1 else left[0]
            async with accept_tunnel(
                it.both.bridge.callee,  # type: ignore[arg-type]
                it.both.store,  # type: ignore[arg-type]
                received,
                allowance=Allowance(),
            ) as near:
                await near.send(acceptance(request))
                with suppress(GoneError):
                    await script(Far(near))

        def on_open(message: messages.Open) -> None:
            it.deliveries.append(message)
            it.both.nursery.start_soon(serve, message)

        it.both.bridge.on_open = on_open
        yield it


def done(id_: bytes, status: int = 0, outcome: Outcome = Outcome.ANSWERED) -> Result:
    return Result(id_, outcome, status, "")


async def takes_all(far: Far) -> None:
    """A far Router as it should be."""
    while True:
        message = notes_of(await far.near.receive_record())
        far.heard.append(message)
        if isinstance(message, notes.Item):
            pdv: object = None
            while not (isinstance(pdv, PDV) and pdv.is_last and not pdv.is_command):
                pdv = await far.near.receive_record()
                if isinstance(pdv, AAbort):
                    return
            await far.say(done(message.id))
        elif isinstance(message, Question):
            await far.say(Answers(()))
        elif isinstance(message, AReleaseRQ):
            await far.say(AReleaseRP())
            return
        elif isinstance(message, AAbort):
            return


def notes_of(record: Record) -> object:
    return notes.decode(record) if isinstance(record, Note) else record


async def ended(it: Sending, sessions: int = 1) -> list[Item]:
    """The items, when so many sessions have ended."""
    await until(lambda: len(it.deliveries) >= sessions)
    await until(lambda: it.queue.couriers.sessions("PACS") == 0)
    return await it.items()


# --- as it may be ---------------------------------------------------------------------------------


async def test_results_in_any_order(tmp_path: Path) -> None:
    async def script(far: Far) -> None:
        ids = [await far.item() for _ in range(4)]
        await far.say(*map(done, reversed(ids)))
        await far.release()

    async with scripted(tmp_path, script) as it:
        await it.left(*objects(4))
        await it.becomes(delivered=4)


async def test_forget_comes_when_it_is_durable_and_before_the_release(tmp_path: Path) -> None:
    forgotten: list[bytes] = []

    async def script(far: Far) -> None:
        ids = [await far.item() for _ in range(3)]
        await far.say(*map(done, ids))
        while len(forgotten) < 3:
            note = await far.next(Forget)
            assert isinstance(note, Forget)
            forgotten.extend(note.ids)
            counts = await it.counts()
            assert counts[State.DELIVERED] >= len(forgotten)
        assert sorted(forgotten) == sorted(ids)
        await far.release()

    async with scripted(tmp_path, script) as it:
        await it.left(*objects(3))
        await it.becomes(delivered=3)
        await ended(it)
    assert len(forgotten) == 3


async def test_a_long_session_notes_what_it_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "TOLD", 2)
    monkeypatch.setattr(ledger, "GATHERING", 0.0)  # each result is noted as it comes
    monkeypatch.setattr(delivery, "FORGET_AT_LEAST", 1)

    async def script(far: Far) -> None:
        for _ in range(20):
            await far.say(done(await far.item()))
        await far.say(Ended(EndedBy.ROUTER, 2, 0, "no room for receipts"), AReleaseRP())

    async with scripted(tmp_path, script) as it:
        await it.left(*objects(20))
        await it.becomes(delivered=20)
        await ended(it)
        left = await it.queue.spool.items.unforgotten(it.both.b.identity.public, 100)
        assert len(left) < 20


@pytest.mark.parametrize(
    ("result", "state", "words"),
    [
        ((0, Outcome.CONFLICT), State.FAILED, "another object"),
        ((0x0122, Outcome.REFUSED), State.FAILED, "0122"),
        ((0xA700, Outcome.REFUSED), State.WAITING, "A700"),
    ],
)
async def test_outcomes(
    tmp_path: Path, result: tuple[int, Outcome], state: State, words: str
) -> None:
    async def script(far: Far) -> None:
        await far.say(done(await far.item(), *result))
        await far.release()

    async with scripted(tmp_path, script) as it:
        await it.left(*objects(1))
        (item,) = await ended(it)
        assert (item.state, item.attempts) == (state, 1)
        assert words in item.reason


async def test_an_object_that_is_changed_on_the_way(tmp_path: Path) -> None:
    async def script(far: Far) -> None:
        await far.say(done(await far.item(), 0, Outcome.CHANGED))
        await far.say(Ended(EndedBy.ROUTER, 2, 0, "it is not what its item says"), AReleaseRP())

    async with scripted(tmp_path, script, takes_all) as it:
        await it.left(*objects(2))
        changed, other = await ended(it)
        assert changed.alone
        assert not other.alone
        await it.becomes(delivered=2, hurry=True)


async def test_the_far_routers_own_trouble_makes_no_dead_letter(tmp_path: Path) -> None:
    async def script(far: Far) -> None:
        await far.next(PDV)
        await far.say(Ended(EndedBy.ROUTER, 2, 0, "receipts cannot be written"), AReleaseRP())

    async with scripted(tmp_path, *[script] * 12, takes_all) as it:
        await it.left(*objects(1))
        (item,) = await ended(it)
        assert item.alone
        assert item.doubtful
        await it.becomes(delivered=1, hurry=True)
    assert len(it.deliveries) == 13


async def test_what_was_said_last_is_heard_though_nothing_can_be_sent(tmp_path: Path) -> None:
    async def script(far: Far) -> None:
        ids = [await far.item() for _ in range(100)]
        await far.next(PDV)  # of the large one
        for id_ in ids:  # all in the chunk that is the last
            await far.near.send(notes.encode(done(id_)), end_of_message=False)
        ended = notes.encode(Ended(EndedBy.DEVICE, 2, 0, "it aborted"))
        await far.near.send(ended, end_of_message=False)
        await far.say(AReleaseRP())

    async with scripted(tmp_path, script, takes_all) as it:
        await it.left(*objects(100), LARGE * 20, b"behind")
        *first, large, behind = await ended(it)
        assert {item.state for item in first} == {State.DELIVERED}
        assert large.alone
        assert not behind.alone
        assert not behind.attempted
        assert it.queue.couriers.trouble("PACS") == "it aborted"


async def test_a_device_that_ends_an_idle_association(tmp_path: Path) -> None:
    async def script(far: Far) -> None:
        await far.say(done(await far.item()))
        await far.next(Forget)
        await far.say(Ended(EndedBy.DEVICE, 0, 0, "idle"), AReleaseRP())

    async def idle(far: Far) -> None:
        await far.say(done(await far.item()))
        await trio.sleep(0.05)
        await far.say(Ended(EndedBy.DEVICE, 0, 0, "idle"), AReleaseRP())

    async with scripted(tmp_path, idle, takes_all) as it:
        batch = it.batch()
        await it.bring(batch, b"first")
        await ended(it)
        assert it.queue.couriers.trouble("PACS") == ""
        await it.bring(batch, b"second")
        await it.becomes(delivered=2)
    assert len(it.deliveries) == 2


async def test_what_is_in_doubt_is_asked_for_and_not_sent_again(tmp_path: Path) -> None:
    heard: list[object] = []

    async def breaks(far: Far) -> None:
        await far.item()
        await far.item()
        await far.say(AAbort(2, 0))

    async def knows(far: Far) -> None:
        question = await far.next(Question)
        assert isinstance(question, Question)
        one, two = question.rows
        rows = (
            Answer(one.id, Outcome.ANSWERED, 0, ""),
            Answer(two.id, Outcome.CONFLICT, 0, ""),
        )
        await far.say(Answers(rows))
        await far.release()
        heard.extend(far.heard)

    async with scripted(tmp_path, breaks, knows) as it:
        await it.left(*objects(2))
        rows = await ended(it)
        assert all(row.doubtful and row.attempts == 0 for row in rows)
        await it.becomes(delivered=1, failed=1, hurry=True)
        await ended(it, 2)
        assert it.queue.statistics.duplicates_avoided == 1
    assert heard
    assert not any(isinstance(message, notes.Item) for message in heard)


# --- as it should not be --------------------------------------------------------------------------


async def unknown_result(far: Far) -> None:
    await far.item()
    await far.say(done(bytes(16)))


async def second_result(far: Far) -> None:
    id_ = await far.item()
    await far.say(done(id_), done(id_))


async def answers_unasked(far: Far) -> None:
    await far.item()
    await far.say(Answers(()))


async def a_message(far: Far) -> None:
    await far.item()
    await far.say(PDV(1, True, True, b"command"))


async def an_item(far: Far) -> None:
    await far.item()
    await far.say(notes.Item(bytes(16), bytes(32), 1))


async def no_note(far: Far) -> None:
    await far.item()
    await far.near.send(Note(b"\x00"))


async def early_release(far: Far) -> None:
    await far.item()
    await far.say(AReleaseRP())


@pytest.mark.parametrize(
    "script",
    [
        unknown_result,
        second_result,
        answers_unasked,
        a_message,
        an_item,
        no_note,
        early_release,
    ],
)
async def test_out_of_turn(tmp_path: Path, script: Script) -> None:
    async def faulty(far: Far) -> None:
        await script(far)
        while not isinstance(await far.near.receive_record(), AAbort | AReleaseRQ):
            pass

    async with scripted(tmp_path, faulty, takes_all) as it:
        await it.left(*objects(2))
        await ended(it)
        assert it.queue.couriers.trouble("PACS") != ""
        assert await it.queue.spool.items.count(Selection(state=State.FAILED)) == {}
        await it.becomes(delivered=2, hurry=True)


@pytest.mark.parametrize("rows", ["unknown", "twice", "changed"])
async def test_answers_that_are_none(tmp_path: Path, rows: str) -> None:
    async def breaks(far: Far) -> None:
        await far.item()
        await far.say(AAbort(2, 0))

    async def answers(far: Far) -> None:
        question = await far.next(Question)
        assert isinstance(question, Question)
        id_ = question.rows[0].id
        row = Answer(id_, Outcome.ANSWERED, 0, "")
        said = {
            "unknown": (row._replace(id=bytes(16)),),
            "twice": (row, row),
            "changed": (row._replace(outcome=Outcome.CHANGED),),
        }
        await far.say(Answers(said[rows]))
        while not isinstance(await far.near.receive_record(), AAbort):
            pass

    async with scripted(tmp_path, breaks, answers, takes_all) as it:
        await it.left(*objects(1))
        await ended(it)
        it.hurry()
        await ended(it, 2)
        assert await it.counts() == {State.WAITING: 1}
        await it.becomes(delivered=1, hurry=True)


async def silent(far: Far) -> None:
    while not isinstance(await far.near.receive_record(), AAbort):
        pass


async def test_a_far_router_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "RESULT_WAIT", 0.1)
    async with scripted(tmp_path, silent, silent, takes_all) as it:
        await it.left(*objects(2))
        rows = await ended(it)
        assert all(row.doubtful for row in rows)
        it.hurry()
        await ended(it, 2)  # nor to a Question
        await it.becomes(delivered=2, hurry=True)


async def test_a_far_router_that_never_releases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "RESULT_WAIT", 0.1)
    monkeypatch.setattr(delivery, "RELEASE_WAIT", 0.1)

    async def script(far: Far) -> None:
        await far.say(done(await far.item()))
        await silent(far)

    async with scripted(tmp_path, script) as it:
        await it.left(*objects(1))
        await it.becomes(delivered=1)
        await ended(it)


async def test_a_wait_for_more_of_a_batch_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "RESULT_WAIT", 0.05)
    async with scripted(tmp_path, takes_all) as it:
        batch = it.batch()
        await it.bring(batch, b"first")
        await it.becomes(delivered=1)
        await trio.sleep(0.3)
        await it.bring(batch, b"second")
        await it.becomes(delivered=2)
    assert len(it.deliveries) == 1


async def test_a_large_object_on_a_slow_line_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "RESULT_WAIT", 1.0)
    async with scripted(tmp_path, takes_all) as it:
        it.both.store.delay = 0.6
        await it.left(LARGE * 8)
        begun = trio.current_time()
        await it.becomes(delivered=1)
        assert trio.current_time() - begun > delivery.RESULT_WAIT  # or it would show nothing
    assert len(it.deliveries) == 1


# --- this side's own trouble ----------------------------------------------------------------------


async def test_results_that_cannot_be_noted_are_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [True]
    async with sending(tmp_path) as it:
        items = it.queue.spool.items
        real = items.settle

        async def settle(changes: object) -> object:
            if failing[0]:
                raise DatabaseError("disk I/O error")
            return await real(changes)  # type: ignore[arg-type]

        monkeypatch.setattr(items, "settle", settle)
        await it.left(*objects(3))
        await until(lambda: it.queue.couriers.trouble("PACS") != "")
        await trio.sleep(0.2)
        assert await it.counts() == {State.WAITING: 3}
        assert len(it.deliveries) <= 2  # it pauses
        failing[0] = False
        await it.becomes(delivered=3, hurry=True)
    assert sorted(it.archive.seen) == sorted(objects(3))  # the far Router had the receipts


async def test_no_more_under_way_than_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAXIMUM_OUTSTANDING", 4)
    most = []

    async def script(far: Far) -> None:
        ids = [await far.item() for _ in range(4)]
        with trio.move_on_after(0.1):
            most.append(await far.item())
        await far.say(*map(done, ids))
        await takes_all(far)

    async with scripted(tmp_path, script) as it:
        await it.left(*objects(9))
        await it.becomes(delivered=9)
    assert most == []


async def test_retries_of_more_kinds_than_one_association_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negotiation, "MAXIMUM_CONTEXTS", 2)
    async with scripted(tmp_path, takes_all) as it:
        batch = it.batch()
        for number in range(5):
            await it.bring(batch, b"%d " % number, pair=(f"1.2.3.{number}", "1.2.840.10008.1.2"))
        await it.close(batch)
        await it.becomes(delivered=5)
        assert {item.state for item in await it.items()} == {State.DELIVERED}
