"""The services that a hospital can grant, and which DICOM commands each one stands for.

A grant names services; the wire knows SOP classes, roles and commands. This is the only place that
translates: by the SOP class of the presentation context, by the role in which the sender speaks
(PS3.7 §D.3.3.4) and by the Command Field of the message (PS3.7 §E.1).

    service         SOP classes                      its user asks       its provider asks
    echo            Verification                     C-ECHO
    store           all of Storage                   C-STORE
    query           Query/Retrieve FIND              C-FIND
    retrieve        Query/Retrieve MOVE and GET      C-MOVE, C-GET       C-STORE, under a C-GET
    worklist        Modality Worklist                C-FIND
    mpps            Modality Performed Procedure     N-CREATE, N-SET,    N-EVENT-REPORT
                    Step and its two companions      N-GET
    commit          Storage Commitment Push Model    N-ACTION            N-EVENT-REPORT
    private:<UID>   that one, if it is none of these anything            anything

What a C-GET or C-MOVE brings back may be of a private class too.
"""

import re
from collections.abc import Iterable
from enum import StrEnum

from relay.dicom import uids
from relay.dicom.dimse import CommandField
from relay.dicom.pdu import UID_LENGTH
from relay.errors import Refused


class Service(StrEnum):
    """The services with a name of their own (DESIGN §4)."""

    ECHO = "echo"
    STORE = "store"
    QUERY = "query"
    RETRIEVE = "retrieve"
    WORKLIST = "worklist"
    MPPS = "mpps"
    COMMIT = "commit"


PRIVATE = "private:"

# A grant or a publication names the eight kinds of service and whatever private classes one vendor
# brings; a publication has to fit a signed statement of 4096 bytes with UIDs of 64 characters.
MAXIMUM_SERVICES = 40

_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")


_BY_SOP_CLASS: dict[str, Service] = {
    uids.VERIFICATION: Service.ECHO,
    **dict.fromkeys(uids.QUERY_RETRIEVE_FIND, Service.QUERY),
    **dict.fromkeys(uids.QUERY_RETRIEVE_MOVE, Service.RETRIEVE),
    **dict.fromkeys(uids.QUERY_RETRIEVE_GET, Service.RETRIEVE),
    uids.MODALITY_WORKLIST_FIND: Service.WORKLIST,
    **dict.fromkeys(uids.MODALITY_PERFORMED_PROCEDURE_STEP, Service.MPPS),
    uids.STORAGE_COMMITMENT_PUSH_MODEL: Service.COMMIT,
}

_USER_ASKS: dict[Service, frozenset[CommandField]] = {
    Service.ECHO: frozenset({CommandField.C_ECHO_RQ}),
    Service.STORE: frozenset({CommandField.C_STORE_RQ}),
    Service.QUERY: frozenset({CommandField.C_FIND_RQ, CommandField.C_CANCEL_RQ}),
    Service.RETRIEVE: frozenset(
        {CommandField.C_MOVE_RQ, CommandField.C_GET_RQ, CommandField.C_CANCEL_RQ}
    ),
    Service.WORKLIST: frozenset({CommandField.C_FIND_RQ, CommandField.C_CANCEL_RQ}),
    Service.MPPS: frozenset(
        {CommandField.N_CREATE_RQ, CommandField.N_SET_RQ, CommandField.N_GET_RQ}
    ),
    Service.COMMIT: frozenset({CommandField.N_ACTION_RQ}),
}

# The C-STORE under a C-GET is not here: it comes over a context of Storage, and only the guard
# knows whether a C-GET is outstanding.
_PROVIDER_ASKS: dict[Service, frozenset[CommandField]] = {
    Service.MPPS: frozenset({CommandField.N_EVENT_REPORT_RQ}),
    Service.COMMIT: frozenset({CommandField.N_EVENT_REPORT_RQ}),
}


def service_of(sop_class: str) -> str:
    """The service that `sop_class` belongs to: a Service, or `private:` and the UID itself."""
    if (service := _BY_SOP_CLASS.get(sop_class)) is not None:
        return service
    return Service.STORE if uids.is_storage(sop_class) else PRIVATE + sop_class


# SOP classes that commands name over a context of another one: the members of a Meta SOP Class
# (PS3.4 §H.3.2), and UPS Push over all contexts of UPS (PS3.4 Annex CC).
_PRINT = "1.2.840.10008.5.1.1."
_UPS = "1.2.840.10008.5.1.4.34.6."
_NAMED_OVER: dict[str, frozenset[str]] = {
    f"{_PRINT}9": frozenset(f"{_PRINT}{n}" for n in ("1", "2", "4", "16")),
    f"{_PRINT}18": frozenset(f"{_PRINT}{n}" for n in ("1", "2", "4.1", "16")),
    **{f"{_UPS}{n}": frozenset({f"{_UPS}1"}) for n in (2, 3, 4, 5)},
}


def named_over(sop_class: str) -> frozenset[str]:
    """The other SOP classes that commands over a context of `sop_class` may name."""
    return _NAMED_OVER.get(sop_class, frozenset())


def is_private(service: str) -> bool:
    """Whether `service` is a `private:<UID>`."""
    return service.startswith(PRIVATE)


def may_be_stored(service: str) -> bool:
    """Whether instances of its SOP classes may be sent by C-STORE.

    Of a private class nothing else is known; vendors store theirs beside the images of a study, and
    a study that is retrieved brings them.
    """
    return service == Service.STORE or is_private(service)


def user_may_ask(service: str, command: int) -> bool:
    """Whether `service` lets its user (SCU) send the request `command`."""
    return is_private(service) or command in _USER_ASKS[Service(service)]


def provider_may_ask(service: str, command: int) -> bool:
    """Whether `service` lets its provider (SCP) send the request `command`, unprompted."""
    return is_private(service) or command in _PROVIDER_ASKS.get(Service(service), frozenset())


def parse(words: Iterable[str]) -> frozenset[str]:
    """The services that a person or a peer named, checked.

    Raises Refused (400) naming the word that is no service.
    """
    services = frozenset(words)
    if len(services) > MAXIMUM_SERVICES:
        raise Refused(400, f"{len(services)} services; at most {MAXIMUM_SERVICES} fit one entry")
    for word in services:
        if word in Service.__members__.values():
            continue
        uid = word.removeprefix(PRIVATE)
        if uid == word or len(uid) > UID_LENGTH or not _UID.fullmatch(uid):
            names = ", ".join(Service)
            raise Refused(400, f"no such service: {word[:80]!r}; there are {names}, private:<UID>")
        if (known := service_of(uid)) != word:
            raise Refused(400, f"{word} is not private: that SOP class is part of '{known}'")
    return services


def ordered(services: Iterable[str]) -> tuple[str, ...]:
    """`services` in the order of the table above, private ones last: for people and signatures."""
    rank = {service: position for position, service in enumerate(Service)}
    return tuple(sorted(services, key=lambda word: (rank.get(word, len(rank)), word)))  # type: ignore[call-overload]
