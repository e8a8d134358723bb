"""What of an association request a grant covers, and the answer for what it does not.

Contexts without a granted service are left out of the proposal to the device, the others keep
their IDs; in the answer they stand as "user rejection" (DESIGN §4). Everything else in both passes
as it came: role selections and extended negotiation of a context left out too, since they name SOP
classes and say nothing of contexts (PS3.7 §D.3.3).
"""

from collections.abc import Collection

import attrs

from relay.dicom.negotiation import RoleSelection, UserIdentityRQ, find, without
from relay.dicom.pdu import (
    AAssociateAC,
    AAssociateRQ,
    ContextResult,
    PresentationContext,
    PresentationContextResult,
)
from relay.router.services import Service, may_be_stored, service_of


def granted(
    request: AAssociateRQ, services: Collection[str], implied: Collection[str] = ()
) -> AAssociateRQ:
    """`request` with only the contexts for which there is a use under `services`.

    `implied` are those that only answer what the other side has asked for: the C-STORE of a
    C-MOVE, of whatever class, and the report of a storage commitment.
    """
    providers = provider_roles(request)
    kept = tuple(
        context
        for context in request.contexts
        if _has_use(context, services, providers) or _is_answer(context, implied)
    )
    return attrs.evolve(request, contexts=kept)


def without_user_identity(request: AAssociateRQ) -> AAssociateRQ:
    """`request` without its user identity: a passcode is nothing for the other network."""
    return attrs.evolve(request, user_items=without(request.user_items, UserIdentityRQ))


def with_rejections(
    answer: AAssociateAC, original: AAssociateRQ, proposed: AAssociateRQ
) -> AAssociateAC:
    """`answer` to `proposed`, made an answer to `original`: the rest was rejected by us.

    Results for contexts that were never proposed to the device are not its to give, and go.
    """
    passed = {context.id for context in proposed.contexts}
    results = [result for result in answer.contexts if result.id in passed]
    rejected = [
        PresentationContextResult(
            context.id, ContextResult.USER_REJECTION, (*context.transfer_syntaxes, "")[0]
        )
        for context in original.contexts
        if context.id not in passed
    ]
    if rejected:
        # In the order of the proposal, as devices answer: some requestors count instead of reading.
        order = {context.id: position for position, context in enumerate(original.contexts)}
        results = sorted([*results, *rejected], key=lambda result: order[result.id])
    return attrs.evolve(answer, contexts=tuple(results))


def provider_roles(request: AAssociateRQ, answer: AAssociateAC | None = None) -> frozenset[str]:
    """The SOP classes of which the requestor offers to be the provider (PS3.7 §D.3.3.4).

    With `answer` less those for which the acceptor declines. By the standard no word from it is a
    no as well; but there are archives that say nothing and answer a C-GET all the same, which works
    without Relay: what the requestor offered itself for may come.
    """
    offered = {role.sop_class for role in find(request.user_items, RoleSelection) if role.scp}
    if answer is not None:
        roles = find(answer.user_items, RoleSelection)
        offered -= {role.sop_class for role in roles if not role.scp}
    return frozenset(offered)


def user_roles(request: AAssociateRQ) -> frozenset[str]:
    """The SOP classes of which the requestor is the user: all, but where it says otherwise."""
    declined = {role.sop_class for role in find(request.user_items, RoleSelection) if not role.scu}
    return frozenset(context.abstract_syntax for context in request.contexts) - declined


def _has_use(
    context: PresentationContext, services: Collection[str], providers: Collection[str]
) -> bool:
    service = service_of(context.abstract_syntax)
    if service in services:
        return True
    # What a C-GET sends back comes over a context of which the requestor is the provider.
    return (
        may_be_stored(service)
        and Service.RETRIEVE in services
        and context.abstract_syntax in providers
    )


def _is_answer(context: PresentationContext, implied: Collection[str]) -> bool:
    service = service_of(context.abstract_syntax)
    return service in implied or (Service.STORE in implied and may_be_stored(service))
