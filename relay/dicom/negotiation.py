"""What two AEs agree on in A-ASSOCIATE: contexts, roles, and who we are.

The sub-items of the user information are in `relay.dicom.useritems`, and offered from here too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version

import attrs

from relay.dicom.atoms import (
    AAssociateAC,
    AAssociateRQ,
    ContextResult,
    PresentationContext,
    PresentationContextResult,
    UserItem,
)
from relay.dicom.useritems import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    TypedItem,
    UserIdentityAC,
    UserIdentityRQ,
    UserIdentityType,
    find,
    replace,
    without,
)
from relay.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "MAXIMUM_CONTEXTS",
    "RELAY_IMPLEMENTATION_CLASS_UID",
    "RELAY_IMPLEMENTATION_VERSION_NAME",
    "AcceptedContext",
    "AsynchronousOperationsWindow",
    "ImplementationClassUID",
    "ImplementationVersionName",
    "MaximumLength",
    "RoleSelection",
    "SOPClassCommonExtended",
    "SOPClassExtended",
    "TypedItem",
    "UserIdentityAC",
    "UserIdentityRQ",
    "UserIdentityType",
    "accepted_contexts",
    "answer",
    "batches",
    "find",
    "propose",
    "replace",
    "request",
    "without",
]

RELAY_IMPLEMENTATION_CLASS_UID = "2.25.273667130484195634391231100305908510954"
RELAY_IMPLEMENTATION_VERSION_NAME = f"RELAY_{version('dicom-relay')}"[:16]  # PS3.7 §D.3.3.2.3

# IDs are the odd ones of 1 to 255 (PS3.8 §9.3.2.2); who needs more opens another association.
MAXIMUM_CONTEXTS = 128


@attrs.frozen(slots=True)
class AcceptedContext:
    """A presentation context that both sides hold; the roles are the requestor's."""

    id: int
    abstract_syntax: str
    transfer_syntax: str
    scu: bool = True
    scp: bool = False


def propose(pairs: Iterable[tuple[str, Sequence[str]]]) -> tuple[PresentationContext, ...]:
    """Contexts of abstract syntax and transfer syntaxes, numbered 1, 3, 5 …

    Raises `LocalProtocolError` for more than 128: use `batches`.
    """
    contexts = tuple(
        PresentationContext(2 * n + 1, abstract, tuple(transfer))
        for n, (abstract, transfer) in enumerate(pairs)
    )
    if len(contexts) > MAXIMUM_CONTEXTS:
        raise LocalProtocolError(f"{len(contexts)} presentation contexts: at most 128 have an ID")
    return contexts


def batches(
    pairs: Sequence[tuple[str, Sequence[str]]],
) -> Iterator[tuple[PresentationContext, ...]]:
    """The same for any number of pairs: one tuple of contexts for each association."""
    for at in range(0, len(pairs), MAXIMUM_CONTEXTS):
        yield propose(pairs[at : at + MAXIMUM_CONTEXTS])


def request(
    called: str,
    calling: str,
    contexts: tuple[PresentationContext, ...],
    *items: TypedItem,
) -> AAssociateRQ:
    """An A-ASSOCIATE-RQ of Relay's own. (The upper layer adds its Maximum Length.)"""
    return AAssociateRQ(called, calling, contexts, _ours() + tuple(i.encode() for i in items))


def answer(
    rq: AAssociateRQ, accept: Callable[[PresentationContext], str | ContextResult | None]
) -> AAssociateAC:
    """The A-ASSOCIATE-AC of a service class provider of Relay's own.

    `accept` gives the one transfer syntax to use, or why there is none (None: the abstract syntax
    is not supported). Roles, asynchronous operations, extended negotiation and user identity are
    not answered, which is how PS3.7 §D.3.3 says that the defaults hold.
    """
    return AAssociateAC(
        rq.called, rq.calling, tuple(_answer(c, accept(c)) for c in rq.contexts), _ours()
    )


def _answer(
    context: PresentationContext, choice: str | ContextResult | None
) -> PresentationContextResult:
    if choice is None:
        choice = ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    if isinstance(choice, ContextResult):
        # Not significant, but there are requestors that read it: a UID is what they can read.
        return PresentationContextResult(context.id, choice, context.transfer_syntaxes[0])
    if choice not in context.transfer_syntaxes:
        raise LocalProtocolError(f"context {context.id}: transfer syntax was not proposed")
    return PresentationContextResult(context.id, ContextResult.ACCEPTANCE, choice)


def _ours() -> tuple[UserItem, ...]:
    return (
        ImplementationClassUID(RELAY_IMPLEMENTATION_CLASS_UID).encode(),
        ImplementationVersionName(RELAY_IMPLEMENTATION_VERSION_NAME).encode(),
    )


def accepted_contexts(rq: AAssociateRQ, ac: AAssociateAC) -> dict[int, AcceptedContext]:
    """The contexts that were accepted, by ID; those that the answer leaves out are rejected.

    A role holds where it was proposed and accepted; without an answer the requestor is SCU only.
    Raises `RemoteProtocolError` for an answer to what was not proposed.
    """
    proposed = {context.id: context for context in rq.contexts}
    asked = {role.sop_class: role for role in find(rq.user_items, RoleSelection)}
    given = {role.sop_class: role for role in find(ac.user_items, RoleSelection)}
    accepted: dict[int, AcceptedContext] = {}
    for result in ac.contexts:
        if not result.accepted:
            continue
        context = proposed.get(result.id)
        if context is None:
            raise RemoteProtocolError(f"presentation context {result.id}: was not proposed")
        if result.transfer_syntax not in context.transfer_syntaxes:
            raise RemoteProtocolError(
                f"presentation context {result.id}: transfer syntax was not proposed"
            )
        scu, scp = True, False
        wanted, granted = (roles.get(context.abstract_syntax) for roles in (asked, given))
        if wanted is not None and granted is not None:
            scu, scp = wanted.scu and granted.scu, wanted.scp and granted.scp
        accepted[result.id] = AcceptedContext(
            result.id, context.abstract_syntax, result.transfer_syntax, scu, scp
        )
    return accepted
