"""The DIMSE guard: which commands may cross one association, in each direction.

It reads command sets and no data set. Outward, from the association's requestor to its acceptor,
each request needs a granted service; inward come only the requests that the requestor's own ones
imply: C-STORE while a C-GET is outstanding, over a context in whose provider role the requestor
offered itself; N-EVENT-REPORT, that of a storage commitment only once one was asked for (DESIGN
§3). A refused request is answered here with its own response, 0124H (PS3.7 §C.5.11), once its data
set has been drained.

A command goes on as it was read, in one fragment and with a group length of our own: who judges it
and who obeys it must not read two different commands.
"""

from collections.abc import Callable, Collection

import attrs

from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField
from relay.dicom.pdu import (
    PDV,
    AAssociateAC,
    AAssociateRQ,
    PresentationContextResult,
    is_uid,
)
from relay.errors import RemoteProtocolError
from relay.router import services
from relay.router.contexts import provider_roles, user_roles
from relay.router.services import Service

# Requests of one direction that wait for their final response. Message IDs have 16 bits; the
# asynchronous window of real devices is in the tens (PS3.7 §D.3.3.3).
MAXIMUM_OUTSTANDING = 1024


@attrs.frozen(slots=True)
class Verdict:
    """What becomes of a PDV: what goes on, and what goes back to its sender.

    `ends` says that a message ends with `forward`; `compressible` that it is of an uncompressed
    data set of a C-STORE.
    """

    forward: PDV | None = None
    ends: bool = False
    compressible: bool = False
    reply: PDV | None = None


_NOTHING = Verdict()


@attrs.frozen(slots=True)
class _Refusal:
    """A message that does not pass; `reply` is None where the standard has no answer."""

    reply: PDV | None = None


class Guard:
    """Both directions of one association.

    `granted` are the services that the requestor may use; None is all of them: it is a device of
    ours, and the owner of what it calls decides. `may_move_to` says whether an AE title can be a
    Move Destination.
    """

    def __init__(
        self,
        request: AAssociateRQ,
        granted: Collection[str] | None,
        may_move_to: Callable[[str], bool],
    ) -> None:
        self._request = request
        self._granted = granted
        self._may_move_to = may_move_to
        self._users = user_roles(request)
        self._providers = provider_roles(request)
        self._abstract_syntaxes = {c.id: c.abstract_syntax for c in request.contexts}
        self._commitment_asked = False
        self._outward = _Direction(self._judge_outward)
        self._inward = _Direction(self._judge_inward)

    def negotiated(self, answer: AAssociateAC) -> None:
        """The acceptor has answered: from now on only its accepted contexts carry anything.

        Raises RemoteProtocolError for roles that cannot be read.
        """
        self._providers = provider_roles(self._request, answer)
        accepted = {
            result.id: result
            for result in answer.contexts
            if result.accepted and result.id in self._abstract_syntaxes
        }
        self._outward.accepted = accepted
        self._inward.accepted = accepted

    def outward(self, pdv: PDV) -> Verdict:
        """A PDV from the requestor. Raises RemoteProtocolError if it cannot be."""
        return self._outward.take(pdv)

    def inward(self, pdv: PDV) -> Verdict:
        """A PDV from the acceptor. Raises RemoteProtocolError if it cannot be."""
        return self._inward.take(pdv)

    # --- what passes ------------------------------------------------------------------------

    def _judge_outward(self, context_id: int, command: dimse.CommandSet) -> _Refusal | None:
        field = command.command_field
        if command.is_response:
            return self._inward.outstanding.answer(command)
        sop_class = self._abstract_syntaxes[context_id]
        service = services.service_of(sop_class)
        allowed = (
            (self._granted is None or service in self._granted)
            and (
                (sop_class in self._users and services.user_may_ask(service, field))
                or (sop_class in self._providers and services.provider_may_ask(service, field))
            )
            and _is_of(service, sop_class, command)
        )
        if field == CommandField.C_CANCEL_RQ:
            return None if allowed else _Refusal()
        if not allowed:
            return _refuse(context_id, command, dimse.Status.NOT_AUTHORIZED)
        if field == CommandField.C_MOVE_RQ and not self._may_move_to(
            command.move_destination or ""
        ):
            return _refuse(context_id, command, dimse.Status.MOVE_DESTINATION_UNKNOWN)
        self._outward.outstanding.add(command)
        if service == Service.COMMIT and field == CommandField.N_ACTION_RQ:
            self._commitment_asked = True
        return None

    def _judge_inward(self, context_id: int, command: dimse.CommandSet) -> _Refusal | None:
        field = command.command_field
        if command.is_response:
            return self._outward.outstanding.answer(command)
        sop_class = self._abstract_syntaxes[context_id]
        service = services.service_of(sop_class)
        if service == Service.STORE:
            allowed = (
                field == CommandField.C_STORE_RQ
                and sop_class in self._providers
                and self._outward.outstanding.has(CommandField.C_GET_RQ)
            )
        else:
            allowed = services.provider_may_ask(service, field) and (
                service != Service.COMMIT or self._commitment_asked
            )
        if field == CommandField.C_CANCEL_RQ:
            return None if allowed else _Refusal()
        if not allowed or not _is_of(service, sop_class, command):
            return _refuse(context_id, command, dimse.Status.NOT_AUTHORIZED)
        self._inward.outstanding.add(command)
        return None


def _is_of(service: str, sop_class: str, command: dimse.CommandSet) -> bool:
    """Whether the SOP class in the command belongs to the context's.

    They differ for Meta SOP Classes, where the context names the group (PS3.4 §H.3.2.2.1); a
    private context must not be the way round another service's grant, though. Nor must a value
    that is no UID: many a device reads one only up to its first NUL or backslash.
    """
    for tag in (dimse.Tag.AFFECTED_SOP_CLASS_UID, dimse.Tag.REQUESTED_SOP_CLASS_UID):
        named = command.text(tag)
        if named is None or named == sop_class:
            continue
        if not is_uid(named):
            return False
        of = services.service_of(named)
        if of != service and not (services.is_private(of) and services.is_private(service)):
            return False
    return True


def _refuse(context_id: int, command: dimse.CommandSet, status: int) -> _Refusal:
    response = dimse.response_to(command, status)
    return _Refusal(PDV(context_id, True, True, response.encode()))


class _Outstanding:
    """The requests of one direction that have no final response yet."""

    def __init__(self) -> None:
        # Message ID and Command Field. Both may occur twice: some devices count nothing.
        self._requests: list[tuple[int, int]] = []

    def add(self, command: dimse.CommandSet) -> None:
        if len(self._requests) >= MAXIMUM_OUTSTANDING:
            raise RemoteProtocolError(f"more than {MAXIMUM_OUTSTANDING} requests unanswered")
        self._requests.append((command.message_id, command.command_field))

    def has(self, field: int) -> bool:
        return any(field == asked for _, asked in self._requests)

    def answer(self, response: dimse.CommandSet) -> _Refusal | None:
        """Let `response` pass if there is a request that it can be for.

        Some devices answer with a Message ID that is not the request's: one of the same kind will
        do, so that they work through Relay as they do without it.
        """
        field = response.command_field & ~dimse.RESPONSE_BIT
        request = (response.message_id_responded_to, field)
        if request not in self._requests:
            same_kind = [asked for asked in self._requests if asked[1] == field]
            if not same_kind:
                return _Refusal()
            request = same_kind[0]
        if not dimse.is_pending(response.status):
            self._requests.remove(request)
        return None


class _Direction:
    """One direction's messages: a command goes on once it is whole, a data set as it comes."""

    def __init__(self, judge: Callable[[int, dimse.CommandSet], _Refusal | None]) -> None:
        self.accepted: dict[int, PresentationContextResult] = {}
        self.outstanding = _Outstanding()
        self._judge = judge
        self._reader = dimse.CommandReader()
        self._refusal: _Refusal | None = None
        self._compressible = False

    def take(self, pdv: PDV) -> Verdict:
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
        refusal = self._judge(pdv.context_id, command)
        if refusal is None:
            self._compressible = (
                command.command_field == CommandField.C_STORE_RQ
                and context.transfer_syntax in uids.UNCOMPRESSED_TRANSFER_SYNTAXES
            )
            whole = PDV(pdv.context_id, True, True, command.encode())
            return Verdict(whole, ends=not command.has_data_set)
        if command.has_data_set:
            self._refusal = refusal
            return _NOTHING
        return Verdict(reply=refusal.reply)

    def _take_data(self, pdv: PDV) -> Verdict:
        if self._refusal is None:
            return Verdict(pdv, ends=pdv.is_last, compressible=self._compressible)
        if not pdv.is_last:
            return _NOTHING
        reply, self._refusal = self._refusal.reply, None
        return Verdict(reply=reply)
