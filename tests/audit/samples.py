"""Events of each kind, as the tests of the audit use them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from relay.audit import happenings
from relay.audit.audit import Audit, open_audit
from relay.audit.codes import EventType, Outcome
from relay.audit.document import AuditSource
from relay.audit.events import AuditEvent, Instances, Participant, Query
from relay.audit.happenings import Transfer

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY = "1.2.276.0.7230010.3.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"

SOURCE = AuditSource("RELAY_ST_ANNA", "St. Anna")
RELAY = Participant("RELAY_ST_ANNA", ae_title=True)

CT_1 = Participant("CT_1", requestor=True, address="10.0.0.5", ae_title=True)
PACS = Participant("PACS_NORD", name="Klinikum Nord", ae_title=True)
TRANSFER = Transfer(source=CT_1, destination=PACS, association="a1b2c3", final="")

# What somebody may name a device, a hospital or a person.
HOSTILE = '</x><a b="1">&\n\r\x00\x1b[31m\u202eevil\ud800\' =1+1 ü 漢'


def kinds() -> list[AuditEvent]:
    """One event of each kind, and of each outcome."""
    return [
        happenings.application("RELAY_ST_ANNA", started=True, ae_title=True),
        happenings.application("RELAY_ST_ANNA", started=False, ae_title=True),
        TRANSFER.begins(STUDY, Instances(CT, 1)),
        TRANSFER.begins("", Instances(CT, 1, ["1.2.3.4"])),
        TRANSFER.ended(STUDY, [Instances(CT, 120)]),
        TRANSFER.ended("", [Instances(CT, 2, ["1.2.3.4", "1.2.3.5"])], why="A700H"),
        TRANSFER.asked(STUDY_ROOT_FIND, Query(b"\x08\x00\x52\x00", IMPLICIT)),
        TRANSFER.asked(STUDY_ROOT_FIND, Query(b"", IMPLICIT), why="0124H"),
        happenings.web_query(TRANSFER, "/aets/FEDERATION/rs/studies", b"PatientID="),
        alert("CT_2 is no device of this Router"),
        happenings.sign_in("anna", "10.0.0.7", by=RELAY),
        happenings.sign_in("anna", "", refused="wrong password"),
        happenings.sign_in("anna", "fe80::1%eth0", refused="too many attempts", last=True),
        happenings.sign_in("anna", "10.0.0.7", out=True),
    ]


def alert(words: str, outcome: Outcome = Outcome.MINOR_FAILURE) -> AuditEvent:
    return happenings.alert(
        EventType.NODE_AUTHENTICATION,
        RELAY,
        words,
        subject="CT_2",
        performers=[CT_1],
        outcome=outcome,
    )


class FakeSeal:
    """Turns bytes round: enough to see that what is kept is not what was asked."""

    def wrap(self, key: bytes, item: bytes) -> bytes:
        return item + key[::-1]

    def unwrap(self, wrapped: bytes, item: bytes) -> bytes:
        assert wrapped.startswith(item)
        return wrapped[len(item) :][::-1]


@asynccontextmanager
async def running(folder: Path, **settings: object) -> AsyncIterator[Audit]:
    """An audit whose `run` runs."""
    async with (
        open_audit(folder, lambda: SOURCE, **settings) as audit,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(audit.run)
        yield audit
        nursery.cancel_scope.cancel()


async def recorded(audit: Audit, *events: AuditEvent) -> None:
    """Record these, and have them on the disk."""
    for event in events:
        audit.record(event)
    await audit.flush()
