"""What this Router has done since it started, in plain numbers that a scrape reads.

Counting is an addition where something happens, and nothing waits for it: 3 us of processor time
for a C-STORE and its response, which take a thousand times that. What is known by the fingerprint
of a peer or a local AE title is bounded by what this Router knows of: its peers, its devices. A
title that somebody only claims to have is never kept.
"""

import time
from collections import Counter, defaultdict

import attrs

from relay.dicom.atoms import AAssociateRJ
from relay.dicom.dimse import CommandField, CommandSet, Tag
from relay.dicom.rejection import word_of
from relay.metrics.histogram import Histogram
from relay.router.live import LiveAssociation, LiveRegister, Side, Work
from relay.router.passthrough import How

# Where a call is turned down before it is known whose it is.
UNKNOWN = "unknown"


@attrs.frozen(slots=True)
class Line:
    """Between whom: which end is ours, what for, the peer's fingerprint, our device's title."""

    side: Side
    work: Work
    peer: str
    device: str

    @classmethod
    def of(cls, entry: LiveAssociation) -> "Line":
        return cls(entry.side, entry.work, entry.peer, entry.device)


class Messages:
    """Counts the commands of one association, and how long each C-STORE took to be answered."""

    __slots__ = ("_asked", "_own", "_stores", "_total")

    def __init__(self, own: Counter[int], total: Counter[int], stores: Histogram) -> None:
        self._own = own
        self._total = total
        self._stores = stores
        self._asked: dict[int | None, float] = {}  # by Message ID, of which there are 65,536

    def __call__(self, command: CommandSet) -> None:
        """A command is whole, in either direction."""
        field = command.command_field
        self._own[field] += 1
        self._total[field] += 1
        if field == CommandField.C_STORE_RQ:
            self._asked[command.number(Tag.MESSAGE_ID)] = time.perf_counter()
        elif field == CommandField.C_STORE_RSP:
            asked = self._asked.pop(command.number(Tag.MESSAGE_ID_BEING_RESPONDED_TO), None)
            if asked is not None:
                self._stores.observe(time.perf_counter() - asked)


class Counts:
    """The counts of one Router; it hears of each association that leaves the register."""

    def __init__(self, live: LiveRegister) -> None:
        self.ended = Counter[tuple[Line, str, str]]()  # with the outcome, and its reason
        self.commands = Counter[int]()
        # How long a C-STORE took: as our device saw it that sent, or until our device answered.
        self.stores = {side: Histogram() for side in Side}
        self.queries = Counter[str]()
        self.query_seconds = Histogram()
        self.source_failures = Counter[tuple[str, str]]()
        self.sign_ins = Counter[str]()  # to the pages, by their outcome
        self.requests = Counter[tuple[str, str, str]]()
        self.request_seconds: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._carried: dict[Line, tuple[int, int]] = {}
        self._live = live
        live.on_ended = self._on_ended

    def messages(self, entry: LiveAssociation) -> Messages:
        """What hears the commands of `entry`."""
        return Messages(entry.messages, self.commands, self.stores[entry.side])

    def rejected(self, line: Line, reason: str) -> None:
        """A call that did not come as far as the register was turned down."""
        self.ended[line, How.REJECTED.value, reason] += 1

    def turned_away(self, rejection: AAssociateRJ) -> None:
        """The listener itself said no, before anybody looked at who calls whom."""
        self.rejected(Line(Side.CALLER, Work.RELAYED, "", UNKNOWN), word_of(rejection))

    def queried(self, outcome: str, seconds: float | None = None) -> None:
        """The federation was asked something; `seconds`: for how long, if anybody was."""
        self.queries[outcome] += 1
        if seconds is not None:
            self.query_seconds.observe(seconds)

    def requested(self, resource: str, method: str, status: int, seconds: float) -> None:
        """A DICOMweb request was answered; status 0: whoever asked has left before."""
        self.requests[resource, method, str(status)] += 1
        self.request_seconds[resource].observe(seconds)

    def carried(self) -> dict[Line, tuple[int, int]]:
        """Bytes of PDVs out of this hospital and into it, of what is over and of what runs."""
        total = dict(self._carried)
        for entry in self._live:
            _add(total, entry)
        return total

    def _on_ended(self, entry: LiveAssociation) -> None:
        self.ended[Line.of(entry), *_outcome(entry)] += 1
        _add(self._carried, entry)


def _add(total: dict[Line, tuple[int, int]], entry: LiveAssociation) -> None:
    out, into = entry.traffic.outward, entry.traffic.inward
    if entry.side is Side.CALLEE:
        out, into = into, out
    line = Line.of(entry)
    before = total.get(line, (0, 0))
    total[line] = before[0] + out, before[1] + into


def _outcome(entry: LiveAssociation) -> tuple[str, str]:
    """How it ended, and why if that was not as its requestor wanted."""
    ending = entry.ending
    if ending is not None and ending.how is How.REJECTED:
        numbers = len(ending.numbers) == len(attrs.fields(AAssociateRJ))
        return ending.how.value, word_of(AAssociateRJ(*ending.numbers)) if numbers else "silence"
    if ending is not None:
        return ending.how.value, ending.by if ending.how is How.ABORTED else ""
    if entry.revoked:
        return How.ABORTED.value, "revoked"
    if entry.scope.cancelled_caught:
        return How.ABORTED.value, "stopping"
    return How.RELEASED.value, ""
