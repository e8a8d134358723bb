"""Sign-ins and sign-outs of people, and passwords they choose, as the pages tell of them."""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from relay.audit import happenings
from relay.audit.codes import EventType, IDType, Outcome
from relay.audit.events import AuditEvent, Participant


class Authentication(Protocol):
    """What is needed of relay.people.people.Authentication."""

    @property
    def act(self) -> Enum: ...

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def refused(self) -> str: ...


def hearing(
    record: Callable[[AuditEvent], None], reporter: Callable[[], Participant]
) -> Callable[[Authentication], None]:
    """What is to be told of each."""

    def hear(told: Authentication) -> None:
        by = reporter()
        if told.act.value == "password":
            record(_chosen(told, by))
            return
        out = told.act.value == "sign-out"
        record(happenings.sign_in(told.name, told.address, by=by, out=out, refused=told.refused))

    return hear


def _chosen(told: Authentication, by: Participant) -> AuditEvent:
    return happenings.alert(
        EventType.USER_SECURITY,
        by,
        f"{told.name} has chosen a password",
        subject="/account",
        subject_type=IDType.URI,
        performers=[Participant(told.name, address=told.address, person=True)],
        outcome=Outcome.SUCCESS,
    )
