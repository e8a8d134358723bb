"""The DIMSE guard: which commands may cross one association, in each direction.

It reads command sets and, where something hangs on them, single values of data sets. Outward, from
the association's requestor to its acceptor, each request needs a granted service; inward come only
the requests that the requestor's own ones imply: C-STORE while a C-GET is outstanding, over a
context in whose provider role the requestor offered itself; N-EVENT-REPORT, that of a storage
commitment only if it was asked for (DESIGN §3). A refused request is answered here with its own
response, 0124H (PS3.7 §C.5.11), once its data set has been drained.

What passes takes the names of the other side on its way (relay.router.border). A command goes on as
it was read, in one fragment and with a group length of our own: who judges it and who obeys it must
not read two different commands.
"""

from collections.abc import Callable, Collection

from relay.dicom import dimse, elements
from relay.dicom.dimse import CommandField, CommandSet
from relay.dicom.elements import RETRIEVE_AE_TITLE, TRANSACTION_UID, Element, Encoding, Missing
from relay.dicom.pdu import (
    PDV,
    AAssociateAC,
    AAssociateRQ,
    PresentationContextResult,
    is_uid,
)
from relay.router import services
from relay.router.border import Border, Crossing, Later
from relay.router.contexts import provider_roles, user_roles
from relay.router.direction import (
    Denial,
    Direction,
    Judgement,
    Look,
    Passage,
    PassOn,
    Seen,
    Speech,
    Verdict,
    command_pdv,
)
from relay.router.services import Service

# How much of a data set is looked through for a value of group 0008, which is its first but for the
# rarely used group 0004; what stands before it is some hundred bytes.
MAXIMUM_PREFIX = 64 * 1024

# The data set of a final C-MOVE-RSP names the failed instances: this is 16,000 of them.
MAXIMUM_IDENTIFIER = 1024 * 1024


def _unheard(command: CommandSet) -> None:
    """Nobody counts."""


class Guard:
    """Both directions of one association.

    `granted` are the services that the requestor may use; None is all of them: it is a device of
    ours, and the owner of what it calls decides. `implied` are those that it may use only in answer
    to what the acceptor has asked its own hospital for: the C-STORE of a C-MOVE, and the report of
    a storage commitment.
    """

    def __init__(
        self,
        request: AAssociateRQ,
        granted: Collection[str] | None,
        border: Border,
        *,
        implied: Collection[str] = (),
        heard: Callable[[CommandSet], None] = _unheard,
    ) -> None:
        """`heard` is told each command that is whole, whatever becomes of it."""
        self._request = request
        self._heard = heard
        self._granted = granted
        self._implied = implied
        self._border = border
        self._users = user_roles(request)
        self._providers = provider_roles(request)
        self._abstract_syntaxes = {c.id: c.abstract_syntax for c in request.contexts}
        self._accepted: dict[int, PresentationContextResult] = {}
        self._outward = Direction(self._judge_outward)
        self._inward = Direction(self._judge_inward)

    def negotiated(self, answer: AAssociateAC) -> None:
        """The acceptor has answered: from now on only its accepted contexts carry anything.

        Raises RemoteProtocolError for roles that cannot be read.
        """
        self._providers = provider_roles(self._request, answer)
        self._accepted = {
            result.id: result
            for result in answer.contexts
            if result.accepted and result.id in self._abstract_syntaxes
        }
        self._outward.accepted = self._accepted
        self._inward.accepted = self._accepted

    def outward(self, pdv: PDV) -> Verdict:
        """A PDV from the requestor. Raises RemoteProtocolError if it cannot be."""
        return self._outward.take(pdv)

    def inward(self, pdv: PDV) -> Verdict:
        """A PDV from the acceptor. Raises RemoteProtocolError if it cannot be."""
        return self._inward.take(pdv)

    # --- what passes ------------------------------------------------------------------------

    def _judge_outward(self, context_id: int, command: CommandSet) -> Judgement:
        self._heard(command)
        field = command.command_field
        if command.is_response:
            denial = self._inward.outstanding.answer(command)
            return denial or Passage(command)
        sop_class = self._abstract_syntaxes[context_id]
        service = services.service_of(sop_class)
        allowed = self._may_ask(service, sop_class, field) and _is_of(
            service, sop_class, command, self._granted
        )
        if field == CommandField.C_CANCEL_RQ:
            if allowed and service == Service.RETRIEVE:
                command = self._border.move_cancelled(command)
            return Passage(command) if allowed else Denial()
        if not allowed:
            return _refuse(context_id, command, dimse.Status.NOT_AUTHORIZED)
        match field:
            case CommandField.C_MOVE_RQ:
                judgement = _crossed(context_id, command, self._border.move_asked(command))
            case CommandField.C_STORE_RQ:
                crossing = self._border.stores(command, implied=not self._is_granted(service))
                judgement = _crossed(context_id, command, crossing)
            case CommandField.N_ACTION_RQ if service == Service.COMMIT:
                judgement = self._transaction(context_id, command, self._border.commitment_asked)
            case CommandField.N_EVENT_REPORT_RQ if service == Service.COMMIT:
                judgement = self._transaction(context_id, command, self._border.report_sent)
            case _:
                judgement = Passage(command)
        if isinstance(judgement, Passage):
            self._outward.outstanding.add(command)
        return judgement

    def _may_ask(self, service: str, sop_class: str, field: int) -> bool:
        """Whether the requestor may send the request `field` on a context of this SOP class."""
        as_user = sop_class in self._users and services.user_may_ask(service, field)
        as_provider = sop_class in self._providers and services.provider_may_ask(service, field)
        if self._is_granted(service):
            return as_user or as_provider
        if field == CommandField.C_STORE_RQ and Service.STORE in self._implied:
            return as_user and services.may_be_stored(service)
        return field == CommandField.N_EVENT_REPORT_RQ and service in self._implied and as_provider

    def _is_granted(self, service: str) -> bool:
        return self._granted is None or service in self._granted

    def _judge_inward(self, context_id: int, command: CommandSet) -> Judgement:
        self._heard(command)
        field = command.command_field
        if command.is_response:
            return self._answered(context_id, command)
        sop_class = self._abstract_syntaxes[context_id]
        service = services.service_of(sop_class)
        if service == Service.STORE:
            allowed = (
                field == CommandField.C_STORE_RQ
                and sop_class in self._providers
                and self._outward.outstanding.has(CommandField.C_GET_RQ)
            )
        else:
            allowed = services.provider_may_ask(service, field)
        if field == CommandField.C_CANCEL_RQ:
            return Passage(command) if allowed else Denial()
        if not allowed or not _is_of(service, sop_class, command, self._granted):
            return _refuse(context_id, command, dimse.Status.NOT_AUTHORIZED)
        judgement: Judgement = Passage(command)
        if service == Service.COMMIT:
            judgement = self._transaction(context_id, command, self._border.report_received)
        if isinstance(judgement, Passage):
            self._inward.outstanding.add(command)
        return judgement

    def _answered(self, context_id: int, response: CommandSet) -> Judgement:
        """A response of the acceptor's: for the request as its requestor knows it."""
        crossing = Crossing()
        if response.command_field == CommandField.C_MOVE_RSP:
            final = not dimse.is_pending(response.status)
            crossing = self._border.move_answered(response, final=final)
            response = crossing.command or response
        denial = self._outward.outstanding.answer(response)
        if denial is not None:
            return denial
        if crossing.later is not None:
            return self._in_time(context_id, response, crossing, crossing.later)
        look = None
        if response.command_field == CommandField.C_FIND_RSP and response.has_data_set:
            look = self._retrieve_titles(self._accepted[context_id].transfer_syntax)
        return Passage(response, crossing.before, look)

    def _in_time(
        self, context_id: int, response: CommandSet, crossing: Crossing, later: Later
    ) -> Judgement:
        """A response in whose place `later` speaks, once its data set is whole."""
        encoding = elements.encoding_of(self._accepted[context_id].transfer_syntax)

        def speech(data_set: bytes) -> Speech:
            async def say(pass_on: PassOn) -> None:
                async def send(command: CommandSet, data: bytes) -> None:
                    await pass_on(command_pdv(context_id, command), not data)
                    if data:
                        await pass_on(PDV(context_id, False, True, data), True)

                await later(data_set, encoding, send)

            return say

        def look(prefix: bytes, whole: bool) -> Seen | None:
            if len(prefix) > MAXIMUM_IDENTIFIER:
                return Seen(prefix, before=crossing.before)
            return Seen(speech=speech(prefix)) if whole else None

        if response.has_data_set:
            return Passage(response, look=look)
        return Passage(response, speech=speech(b""))

    # --- values of data sets ------------------------------------------------------------------

    def _transaction(
        self,
        context_id: int,
        command: CommandSet,
        decide: Callable[[str | None], Crossing],
    ) -> Judgement:
        """Have `decide` say by its Transaction UID whether the message passes (PS3.4 §J.3)."""
        encoding = elements.encoding_of(self._accepted[context_id].transfer_syntax)

        def look(prefix: bytes, whole: bool) -> Seen | None:
            found = _find(prefix, TRANSACTION_UID, encoding, whole)
            if found is Missing.NEED_MORE:
                return None
            transaction = found.text(prefix) if isinstance(found, Element) else ""
            crossing = decide(transaction if is_uid(transaction) else None)
            if crossing.status is not None:
                return Seen(denial=_refuse(context_id, command, crossing.status, crossing.comment))
            return Seen(prefix, before=crossing.before)

        if command.has_data_set:
            return Passage(command, look=look)
        return _crossed(context_id, command, decide(None))

    def _retrieve_titles(self, transfer_syntax: str) -> Look | None:
        """Gives the Retrieve AE Titles of a C-FIND's answer the names of the other side."""
        rename = self._border.retrieve_title()
        encoding = elements.encoding_of(transfer_syntax)
        if rename is None or encoding is None:
            return None

        def look(prefix: bytes, whole: bool) -> Seen | None:
            found = _find(prefix, RETRIEVE_AE_TITLE, encoding, whole)
            if found is Missing.NEED_MORE:
                return None
            if not isinstance(found, Element):
                return Seen(prefix)
            before = found.text(prefix)
            after = "\\".join(rename(title.strip(" ")) for title in before.split("\\"))
            fits = after.isascii() and len(after) <= elements.LONGEST_VALUE
            same = after == before or not fits
            return Seen(prefix if same else elements.replace(prefix, found, after, encoding))

        return look


def _find(prefix: bytes, tag: int, encoding: Encoding | None, whole: bool) -> Element | Missing:
    if encoding is None:
        return Missing.ABSENT
    return elements.find(prefix, tag, encoding, whole=whole or len(prefix) >= MAXIMUM_PREFIX)


def _crossed(context_id: int, command: CommandSet, crossing: Crossing) -> Judgement:
    if crossing.status is not None:
        return _refuse(context_id, command, crossing.status, crossing.comment)
    return Passage(crossing.command or command, crossing.before)


def _is_of(
    service: str, sop_class: str, command: CommandSet, granted: Collection[str] | None
) -> bool:
    """Whether the SOP class in the command belongs to the context's.

    They differ for Meta SOP Classes, where the context names the group (PS3.4 §H.3.2.2.1); a
    private context must not be the way round another grant, though. Nor must a value that is no
    UID: many a device reads one only up to its first NUL or backslash.
    """
    for tag in (dimse.Tag.AFFECTED_SOP_CLASS_UID, dimse.Tag.REQUESTED_SOP_CLASS_UID):
        named = command.text(tag)
        if named is None or named == sop_class or named in services.named_over(sop_class):
            continue
        if not is_uid(named):
            return False
        of = services.service_of(named)
        if of == service:
            continue
        both = services.is_private(service) and services.is_private(of)
        if not (both and (granted is None or of in granted)):
            return False
    return True


def _refuse(context_id: int, command: CommandSet, status: int, comment: str = "") -> Denial:
    response = dimse.response_to(command, status)
    if comment:
        response = response.evolve({dimse.Tag.ERROR_COMMENT: comment})
    return Denial(PDV(context_id, True, True, response.encode()))
