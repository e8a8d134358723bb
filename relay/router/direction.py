"""One direction of a guarded association: its messages are judged, and go on in order.

A command goes on once it is whole, a data set as it comes. A message that is refused is drained,
and then answered; one that hangs on a value of its data set waits until that is there.
"""

from collections.abc import Awaitable, Callable

import attrs

from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandSet
from relay.dicom.pdu import PDV, PresentationContextResult
from relay.errors import RemoteProtocolError

# Requests of one direction that wait for their final response. Message IDs have 16 bits; the
# asynchronous window of real devices is in the tens (PS3.7 §D.3.3.3).
MAXIMUM_OUTSTANDING = 1024


# Passes a PDV on; True: a message ends with it.
PassOn = Callable[[PDV, bool], Awaitable[None]]

# Passes on, in its own time, what goes on in place of a message.
Speech = Callable[[PassOn], Awaitable[None]]


@attrs.frozen(slots=True)
class Verdict:
    """What becomes of a PDV: what goes on, and what goes back to its sender.

    `command` is the one that goes on in `forward`, if one does. `before` is to be awaited before
    anything goes on. `ends` says that a message ends with
    `forward`; `compressible` that it is of an uncompressed data set of a C-STORE. `speech` is what
    goes on instead of `forward`.
    """

    forward: tuple[PDV, ...] = ()
    ends: bool = False
    compressible: bool = False
    reply: PDV | None = None
    before: Callable[[], Awaitable[None]] | None = None
    speech: Speech | None = None
    command: CommandSet | None = attrs.field(default=None, eq=False)


_NOTHING = Verdict()


@attrs.frozen(slots=True)
class Denial:
    """A message that does not pass; `reply` is None where the standard has no answer."""

    reply: PDV | None = None


@attrs.frozen(slots=True)
class Seen:
    """What was found in the beginning of a data set: it goes on as `data`, or not at all.

    `speech`, of a data set that is whole, goes on in place of the message.
    """

    data: bytes = b""
    denial: Denial | None = None
    before: Callable[[], Awaitable[None]] | None = None
    speech: Speech | None = None


# Looks into the beginning of a data set, `whole` if that is all; None: more is needed.
Look = Callable[[bytes, bool], Seen | None]


@attrs.frozen(slots=True)
class Passage:
    """A message that passes, as `command`; with `look`, once that is content with its data set."""

    command: CommandSet
    before: Callable[[], Awaitable[None]] | None = None
    look: Look | None = None
    speech: Speech | None = None


Judgement = Denial | Passage


class Outstanding:
    """The requests of one direction that have no final response yet."""

    def __init__(self) -> None:
        # Message ID and Command Field. Both may occur twice: some devices count nothing.
        self._requests: list[tuple[int, int]] = []

    def add(self, command: CommandSet) -> None:
        """A request goes on. Raises RemoteProtocolError if too many wait for their response."""
        if len(self._requests) >= MAXIMUM_OUTSTANDING:
            raise RemoteProtocolError(f"more than {MAXIMUM_OUTSTANDING} requests unanswered")
        self._requests.append((command.message_id, command.command_field))

    def forget(self, command: CommandSet) -> None:
        """The request did not pass after all."""
        request = (command.message_id, command.command_field)
        if request in self._requests:
            self._requests.remove(request)

    def has(self, field: int) -> bool:
        """Whether a request of this Command Field waits for its final response."""
        return any(field == asked for _, asked in self._requests)

    def answer(self, response: CommandSet) -> Denial | None:
        """Let `response` pass if there is a request that it can be for.

        Some devices answer with a Message ID that is not the request's: one of the same kind will
        do, so that they work through Relay as they do without it.
        """
        field = response.command_field & ~dimse.RESPONSE_BIT
        request = (response.message_id_responded_to, field)
        if request not in self._requests:
            same_kind = [asked for asked in self._requests if asked[1] == field]
            if not same_kind:
                return Denial()
            request = same_kind[0]
        if not dimse.is_pending(response.status):
            self._requests.remove(request)
        return None


@attrs.define(slots=True)
class _Held:
    """A message that waits until enough of its data set is there."""

    passage: Passage
    look: Look
    prefix: bytearray = attrs.Factory(bytearray)
    next_look: int = 0  # at how many bytes


class Direction:
    """One direction's messages: a command goes on once it is whole, a data set as it comes."""

    def __init__(self, judge: Callable[[int, CommandSet], Judgement]) -> None:
        self.accepted: dict[int, PresentationContextResult] = {}
        self.outstanding = Outstanding()
        self._judge = judge
        self._reader = dimse.CommandReader()
        self._denial: Denial | None = None
        self._held: _Held | None = None
        self._compressible = False

    def take(self, pdv: PDV) -> Verdict:
        """The next PDV of this direction. Raises RemoteProtocolError if it cannot be."""
        context = self.accepted.get(pdv.context_id)
        if context is None:
            raise RemoteProtocolError(
                f"PDV for presentation context {pdv.context_id}, not accepted"
            )
        command = self._reader.feed(pdv)
        if not pdv.is_command:
            return self._take_data(pdv)
        if command is None:
            return _NOTHING
        judgement = self._judge(pdv.context_id, command)
        if isinstance(judgement, Denial):
            if command.has_data_set:
                self._denial = judgement
                return _NOTHING
            return Verdict(reply=judgement.reply)
        self._compressible = (
            command.command_field == CommandField.C_STORE_RQ
            and context.transfer_syntax in uids.UNCOMPRESSED_TRANSFER_SYNTAXES
        )
        if judgement.look is not None:
            self._held = _Held(judgement, judgement.look)
            return _NOTHING
        if judgement.speech is not None:
            return Verdict(speech=judgement.speech)
        passed = judgement.command
        return Verdict(
            (command_pdv(pdv.context_id, passed),),
            ends=not command.has_data_set,
            before=judgement.before,
            command=passed,
        )

    def _take_data(self, pdv: PDV) -> Verdict:
        if self._held is not None:
            return self._take_held(self._held, pdv)
        if self._denial is None:
            return Verdict((pdv,), ends=pdv.is_last, compressible=self._compressible)
        if not pdv.is_last:
            return _NOTHING
        reply, self._denial = self._denial.reply, None
        return Verdict(reply=reply)

    def _take_held(self, held: _Held, pdv: PDV) -> Verdict:
        held.prefix += pdv.fragment
        if len(held.prefix) < held.next_look and not pdv.is_last:
            return _NOTHING
        seen = held.look(bytes(held.prefix), pdv.is_last)
        if seen is None:
            # Each one begins at the beginning: one a byte would cost the square of their number.
            held.next_look = 2 * len(held.prefix)
            return _NOTHING
        self._held = None
        if seen.denial is not None:
            self.outstanding.forget(held.passage.command)
            if pdv.is_last:
                return Verdict(reply=seen.denial.reply)
            self._denial = seen.denial
            return _NOTHING
        if seen.speech is not None:
            return Verdict(speech=seen.speech)
        passed = held.passage.command
        forward = (
            command_pdv(pdv.context_id, passed),
            PDV(pdv.context_id, False, pdv.is_last, seen.data),
        )
        before = seen.before or held.passage.before
        return Verdict(forward, ends=pdv.is_last, before=before, command=passed)


def command_pdv(context_id: int, command: CommandSet) -> PDV:
    """`command` in one fragment, its last."""
    return PDV(context_id, True, True, command.encode())
