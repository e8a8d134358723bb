"""Senders that do not give up, and keep to the last word what they were answered.

An object is sent until it is answered 0000 or a warning: after a rejection, an A-ABORT, a lost
connection or a failure status the rest goes over a new association, as modalities do it. One kind
is made of Relay's own DICOM side, with several operations outstanding where it may; the other is
DCMTK's storescu, whose answers are read off the wire.
"""

import hashlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import attrs
import trio

from relay import association, scu
from relay.association import TCPAssociation
from relay.dicom import dimse, negotiation
from relay.dicom.dimse import CommandField, CommandReader
from relay.dicom.pdu import PDV
from relay.dicom.status import is_warning
from relay.dicom.useritems import AsynchronousOperationsWindow
from relay.errors import (
    AssociationAborted,
    AssociationRejected,
    RemoteProtocolError,
)
from tests.faults.links import Link
from tests.faults.specimens import Specimen
from tests.interop import peers
from tests.interop.processes import Address, Target
from tests.tap import messages

# How long a sender waits for an answer. A Router that is killed closes its connections; only a
# silent line is noticed by this.
ANSWER_DEADLINE = 30.0

# Between two associations of a sender whose last one failed, in seconds.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 1.0

# Operations that are proposed to be outstanding (PS3.7 §D.3.3.3).
WINDOW = 8

# What modalities send over one association: an image, or a small series.
LARGEST_GROUP = 20

FRAGMENT = 64 * 1024

SUCCESS = 0x0000


@attrs.define
class Ledger:
    """What all senders were answered, and when (Unix seconds), by SOP Instance UID."""

    sent: dict[str, str] = attrs.field(factory=dict)
    """The SHA-256 of what was sent, which is not what is in the file where a toolkit parses it."""
    answered: dict[str, float] = attrs.field(factory=dict)
    """When an object was first answered 0000 or a warning."""
    unanswered: Counter[str] = attrs.field(factory=Counter)
    """How often it was sent and no answer came: it may have been kept, each time."""
    statuses: Counter[str] = attrs.field(factory=Counter)
    ends: Counter[str] = attrs.field(factory=Counter)
    """How associations ended, and why none came about."""

    def answer(self, uid: str, status: int) -> None:
        self.statuses[f"{status:04X}"] += 1
        if status == SUCCESS or is_warning(status):
            self.answered.setdefault(uid, time.time())

    def words(self) -> str:
        """What was heard, counted."""
        statuses = ", ".join(f"{count} × {name}" for name, count in sorted(self.statuses.items()))
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.ends.items()))
        return f"answers {statuses}; associations {ends}; unanswered {self.unanswered.total()}"


@attrs.define
class Pace:
    """How many objects may have been sent by now, all senders together: it is let out bit by bit,
    so that what is done to the processes is done during all of the send."""

    left: float = 0.0
    _more: trio.Event = attrs.field(factory=trio.Event)
    _turn: trio.StrictFIFOLock = attrs.field(factory=trio.StrictFIFOLock)

    def let(self, count: float) -> None:
        self.left += count
        self._more.set()
        self._more = trio.Event()

    async def take(self, count: int) -> None:
        async with self._turn:
            while self.left < count:
                await self._more.wait()
            self.left -= count


# Sends a group over one association, and notes the answers; raises RelayError for its end.
Way = Callable[[Sequence[Specimen], Ledger], Awaitable[None]]


async def send_all(
    way: Way, specimens: Sequence[Specimen], ledger: Ledger, pace: Pace, seed: int
) -> None:
    """Send until all is answered, in groups of a seeded size."""
    source = random.Random(seed)
    waiting = list(specimens)
    while waiting:
        size = source.randint(1, LARGEST_GROUP)
        group, waiting = waiting[:size], waiting[size:]
        await pace.take(len(group))
        while group := [s for s in group if s.uid not in ledger.answered]:
            try:
                await way(group, ledger)
            except* AssociationRejected:
                ledger.ends["rejected"] += 1
            except* (AssociationAborted, RemoteProtocolError):
                ledger.ends["lost"] += 1
            else:
                ledger.ends["released"] += 1
            if any(s.uid not in ledger.answered for s in group):
                await trio.sleep(source.uniform(SHORTEST_PAUSE, LONGEST_PAUSE))


# --- over Relay's own DICOM side ------------------------------------------------------------------


def own_way(target: Target, calling: str, *, window: int = WINDOW) -> Way:
    """With up to `window` operations outstanding."""

    async def send(specimens: Sequence[Specimen], ledger: Ledger) -> None:
        near = await association.connect(target.host, target.port)
        try:
            await _Association(near, ledger, specimens).run(target.ae_title, calling, window)
        finally:
            await near.aclose()

    return send


class _Association:
    """One association, from its request to its release."""

    def __init__(self, near: TCPAssociation, ledger: Ledger, specimens: Sequence[Specimen]) -> None:
        self._near = near
        self._ledger = ledger
        self._specimens = specimens
        self._outstanding: dict[int, Specimen] = {}

    async def run(self, called: str, calling: str, window: int) -> None:
        pairs = sorted({(s.sop_class, s.transfer_syntax) for s in self._specimens})
        contexts = negotiation.propose([(sop_class, [syntax]) for sop_class, syntax in pairs])
        proposed = AsynchronousOperationsWindow(window, 1)
        rq = negotiation.request(called, calling, contexts, proposed)
        ac = await scu.negotiate(self._near, rq)
        accepted = negotiation.accepted_contexts(rq, ac).values()
        ids = {(c.abstract_syntax, c.transfer_syntax): c.id for c in accepted}
        granted = negotiation.find(ac.user_items, AsynchronousOperationsWindow)
        places = trio.Semaphore(granted[0].invoked or window if granted else 1)
        there = [s for s in self._specimens if (s.sop_class, s.transfer_syntax) in ids]
        if missing := len(self._specimens) - len(there):
            self._ledger.statuses["context refused"] += missing
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear, len(there), places)
                for number, specimen in enumerate(there, start=1):
                    await places.acquire()
                    self._outstanding[number] = specimen
                    context = ids[specimen.sop_class, specimen.transfer_syntax]
                    await self._say(context, number, specimen)
        finally:
            self._ledger.unanswered.update(s.uid for s in self._outstanding.values())
        await scu.release(self._near)

    async def _say(self, context: int, number: int, specimen: Specimen) -> None:
        command = dimse.request(CommandField.C_STORE_RQ, number, specimen.sop_class, specimen.uid)
        await self._near.send(PDV(context, True, True, command.encode()))
        data_set = specimen.data_set()
        self._ledger.sent[specimen.uid] = hashlib.sha256(data_set).hexdigest()
        for start in range(0, len(data_set), FRAGMENT):
            fragment = data_set[start : start + FRAGMENT]
            last = start + FRAGMENT >= len(data_set)
            await self._near.send(PDV(context, False, last, fragment))

    async def _hear(self, count: int, places: trio.Semaphore) -> None:
        reader = CommandReader()
        for _ in range(count):
            command = None
            while command is None:
                atom = await scu.receive(self._near, ANSWER_DEADLINE, "C-STORE-RSP")
                if not isinstance(atom, PDV):
                    raise AssociationAborted(0, 0, f"{type(atom).__name__} instead of an answer")
                command = reader.feed(atom)
            specimen = self._outstanding.pop(command.message_id_responded_to, None)
            if specimen is None or command.sop_instance_uid not in (None, specimen.uid):
                raise AssertionError(f"an answer to nothing that was asked: {command}")
            self._ledger.answer(specimen.uid, command.status)
            places.release()


# --- by DCMTK -------------------------------------------------------------------------------------


def dcmtk_way(link: Link, called: str, calling: str, folder: Path) -> Way:
    """storescu over `link`, which records and leads to the Router; uncompressed objects only."""
    folder.mkdir()

    async def send(specimens: Sequence[Specimen], ledger: Ledger) -> None:
        files = [folder / f"{specimen.uid}.dcm" for specimen in specimens]
        for specimen, file in zip(specimens, files, strict=True):
            specimen.write(file)
        before = len(link.carried)
        done = await peers.storescu(
            Address(link.port, called), *files, options=("--no-halt", "--required"), calling=calling
        )
        for file in files:
            file.unlink()
        heard: set[str] = set()
        for carried in link.carried[before:]:
            for message in messages(bytes(carried.requested)):
                if message.data_set is not None:
                    sha256 = hashlib.sha256(message.data_set).hexdigest()
                    ledger.sent[message.text(0x1000) or ""] = sha256
            for message in messages(bytes(carried.answered)):
                uid, status = message.text(0x1000), message.status
                assert uid is not None
                assert status is not None
                heard.add(uid)
                ledger.answer(uid, status)
        del link.carried[before:]
        sent = [s.uid for s in specimens if f"{s.uid}.dcm" in done.output]
        ledger.unanswered.update(uid for uid in sent if uid not in heard)
        if "Association Rejected" in done.output:
            raise AssociationRejected(0, 0, 0, "storescu: rejected")
        if done.status != 0 or not heard:
            raise AssociationAborted(0, 0, f"storescu: {done.output[-200:]}")

    return send
