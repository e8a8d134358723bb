"""What people change, by page, command line or REST: every operation but those that only look.

The operations are wrapped one by one, so that it holds for each way that leads to them. Of those
that only look, who was refused them is told.
"""

import json
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from relay.audit import happenings
from relay.audit.codes import EventType, IDType, Outcome
from relay.audit.events import AuditEvent, Participant
from relay.audit.happenings import REQUEST, Transfer
from relay.audit.wording import words_of
from relay.errors import RelayError
from relay.web.operations import Handler, Operation

# Of what a request says, that which tells what it is about. No others: they hold secrets, codes of
# invitations, and passwords.
_TELLING = (
    "ae_title",
    "local",
    "published",
    "called",
    "calling",
    "peer",
    "services",
    "name",
    "role",
    "device",
    "kind",
    "host",
    "port",
)
# ... and of what is asked of the queue, where a name is a patient's.
_TELLING_OF_QUEUE = ("called", "calling", "state", "numbers", "all")

# A body beyond this is a whole document (`relay apply`): its summary says what was done.
MAXIMUM_SAID = 64 * 1024

# By the first part of the path behind /v1: what kind of change it is (PS3.16 CID 403). What is in
# no list is the use of a function that not everybody may use.
_TYPES = {
    EventType.NETWORK_CONFIGURATION: ("devices", "aliases", "destinations", "apply", "providers"),
    EventType.SECURITY_CONFIGURATION: (
        *("enrolment", "peers", "grants", "asks", "tokens"),
        *("invitations", "routers", "settings"),
    ),
    EventType.USER_SECURITY: ("people", "account", "sign-ins", "api-tokens"),
}
_TYPE_OF = {name: type for type, names in _TYPES.items() for name in names}

# What looks, or tries whether something would work, by another method than GET.
_ONLY_LOOK = frozenset(
    {
        "/v1/devices/{ae_title:path}/test",
        "/v1/directory/{ae_title:path}/echo",
        "/v1/providers/try",
        "/v1/providers/{name}/check",
    }
)

# Searches by what names a patient: by which keys is told, and never by what.
_SEARCHES = {"/v1/queue/patients": ("patient_id", "accession")}

# Where an operation tells more of itself than its path and body say (`tell`).
_TOLD = "relay.told"

# Read by nobody else than the process that is asked.
_CONSOLE = "console"


def tell(request: Request, **values: object) -> None:
    """An operation says more of what it does: the hospital of a fingerprint, say. No secrets."""
    request.scope.setdefault(_TOLD, {}).update(values)


def audited(
    operations: Sequence[Operation],
    record: Callable[[AuditEvent], None],
    reporter: Callable[[], Participant],
) -> list[Operation]:
    """These operations, of which those that change something are recorded with who did it."""

    def recorded(operation: Operation) -> Operation:
        def refused(request: Request, words: str) -> None:
            event = _change(operation, request, None, reporter(), words)
            record(attrs.evolve(event, type=EventType.RESTRICTED_FUNCTION))

        told = attrs.evolve(operation, on_refused=refused)
        if operation.method == "GET" or operation.path in _ONLY_LOOK:
            return told
        return attrs.evolve(told, handler=_recorded(operation, record, reporter))

    return [recorded(operation) for operation in operations]


def _recorded(
    operation: Operation,
    record: Callable[[AuditEvent], None],
    reporter: Callable[[], Participant],
) -> Handler:
    handler = operation.handler

    @wraps(handler)  # a route goes by its handler's name
    async def handle(request: Request) -> Response:
        said = _Said(request)

        def tell(refused: str) -> None:
            event = _event(operation, request, said, reporter(), refused)
            if event is not None:
                record(event)

        try:
            response = await handler(request)
        except RelayError as error:
            tell(str(error))
            raise
        except Exception:
            tell("it failed on the way: what was done of it, the log says")
            raise
        failed = response.status_code >= 400
        tell(f"answered {response.status_code}" if failed else "")
        return response

    return handle


class _Said:
    """Keeps what the body of a request says while somebody else reads it, as far as it is short."""

    def __init__(self, request: Request) -> None:
        self._body = bytearray()
        self._receive = request._receive
        request._receive = self._taken

    async def _taken(self) -> Message:
        message = await self._receive()
        piece = message.get("body", b"")
        if len(self._body) + len(piece) <= MAXIMUM_SAID:
            self._body += piece
        return message

    def names(self, names: Sequence[str]) -> list[str]:
        """Those of these names that it gives something for."""
        body = self._read()
        return [name for name in names if body.get(name)]

    def _read(self) -> dict[str, Any]:
        try:
            body = json.loads(bytes(self._body)) if self._body else {}
        except (ValueError, RecursionError):
            return {}
        return body if isinstance(body, dict) else {}

    def values(self, names: Collection[str]) -> dict[str, Any]:
        """What it says of these."""
        return {name: value for name, value in self._read().items() if name in names}

    def telling(self, names: Sequence[str]) -> list[str]:
        """What it says of these, each as NAME=VALUE."""
        body = self._read()
        return [f"{name}={_short(body[name])}" for name in names if name in body]


def _short(value: object) -> str:
    listed = value if isinstance(value, list) else [value]
    return ",".join(str(each) for each in listed[:32])[:128]


def _event(
    operation: Operation, request: Request, said: _Said, reporter: Participant, refused: str
) -> AuditEvent | None:
    """What is told of a request; None: nothing."""
    if (keys := _SEARCHES.get(operation.path)) is not None:
        names = said.names(keys)
        asker = attrs.evolve(_person(request), requestor=True)
        query = "&".join(f"{name}=" for name in names).encode()
        # Without one of these it is a page that shows what it knows already.
        search = Transfer(source=asker, destination=reporter)
        event = happenings.web_query(search, request.scope["path"], query, refused)
        return event if names else None
    return _change(operation, request, said, reporter, refused)


def _change(
    operation: Operation,
    request: Request,
    said: _Said | None,
    reporter: Participant,
    refused: str,
) -> AuditEvent:
    path = request.scope["path"]  # as it came: a URL would end at a "?" that a name has
    named = _TELLING_OF_QUEUE if _area(operation) == "queue" else _TELLING
    telling = said.telling(named) if said is not None else []
    return happenings.alert(
        _TYPE_OF.get(_area(operation), EventType.RESTRICTED_FUNCTION),
        reporter,
        _words(operation, request, said, done=not refused),
        details=[(REQUEST, " ".join([f"{operation.method} {path}", *telling]))],
        subject=path,
        subject_type=IDType.URI,
        performers=[_person(request)],
        outcome=Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS,
        why=refused,
    )


def _words(operation: Operation, request: Request, said: _Said | None, *, done: bool) -> str:
    """What was done, or tried, in a sentence."""
    name = f"{operation.method} {operation.template}"
    told = request.scope.get(_TOLD, {})
    words = words_of(name, told)
    if words is None:
        # Before what it says was read, nobody but who may not do it is refused.
        not_done = "Not permitted: " if said is None else "Failed: "
        return f"{'' if done else not_done}{operation.summary}"
    # Of what it takes alone: the hospital of a fingerprint is not for who asks to say.
    taken = (operation.body or {}).get("properties", {})
    body = said.values(words.names & taken.keys()) if said is not None else {}
    return words.sentence({**body, **request.path_params, **told}, done=done)


def _area(operation: Operation) -> str:
    """The first part of its path behind /v1."""
    return operation.path.split("/")[2] if operation.path.count("/") >= 2 else ""


def _person(request: Request) -> Participant:
    """Who asks, from where: a page asks for somebody else than its own process."""
    who = request.scope.get("relay.who")
    client = request.client.host if request.client is not None else ""
    return Participant(
        who.name if who is not None else _CONSOLE,
        name="API token" if who is not None and who.is_program else "",
        address=request.scope.get("relay.address", client),
        person=True,
    )
