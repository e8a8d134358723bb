"""Testing a device: does it answer a C-ECHO, and what does it take?

The probe proposes every standard Storage SOP class with every transfer syntax that devices are seen
to use, one transfer syntax to a context, so that each answer says yes or no to one pair; 128
contexts to an association, released at once. Nothing is stored.
"""

from contextlib import suppress
from typing import Any

import attrs
import structlog
import trio

from relay.association import TCPAssociation
from relay.dicom import negotiation, uids
from relay.dicom.dimse import Status
from relay.dicom.negotiation import TypedItem, accepted_contexts, batches
from relay.dicom.pdu import AAssociateAC, AAssociateRQ, PresentationContext
from relay.errors import (
    AssociationAborted,
    AssociationRejected,
    RemoteProtocolError,
)
from relay.patience import NO_ANSWER, Timeouts
from relay.router import device_words
from relay.router.device_tls import DeviceTLS
from relay.router.device_words import SILENT, Own
from relay.router.devices import Device
from relay.router.storage import STORAGE_SOP_CLASSES
from relay.scu import echo, negotiate, release

log = structlog.get_logger()

# All associations of one test together: a person waits for the answer.
TEST_DEADLINE = 50.0

# A device in the same building answers within this, or is not there.
TIMEOUTS = Timeouts(connect=10, association_answer=15, release=10, artim=5, write=15)


@attrs.frozen(slots=True)
class Finding:
    """One thing that was tried, whether it held, and what to do if not."""

    what: str
    ok: bool
    advice: str = ""


@attrs.define(slots=True)
class Report:
    """What a test found. `accepted`: transfer syntaxes by SOP class, as far as it got."""

    findings: list[Finding] = attrs.field(factory=list)
    accepted: dict[str, list[str]] = attrs.field(factory=dict)
    proposed: int = 0

    def to_json(self) -> dict[str, Any]:
        """For people and scripts."""
        return {
            "findings": [attrs.asdict(finding) for finding in self.findings],
            "accepted": self.accepted,
        }


async def test(device: Device, own: Own, device_tls: DeviceTLS) -> Report:
    """C-ECHO `device` as this Router, then probe what it takes. Never raises for the device."""
    report = Report()
    where = f"{device.ae_title} at {device.host}:{device.port}"
    with trio.move_on_after(TEST_DEADLINE) as limit:
        advice = await _echoed(device, own, device_tls)
        report.findings.append(Finding(f"{where} answers C-ECHO", not advice, advice))
        if not advice:
            advice = await _probed(device, own, device_tls, report)
            if advice:
                report.findings.append(Finding(f"{where} says what it takes", False, advice))
    if limit.cancelled_caught:
        report.findings.append(
            Finding(
                f"tested within {TEST_DEADLINE:g} s",
                False,
                "the device answers slowly: what is listed as accepted is not all",
            )
        )
    if report.proposed:
        report.findings.append(_summary(report))
    log.info(
        "device tested",
        ae_title=device.ae_title,
        ok=all(finding.ok for finding in report.findings),
        sop_classes=len(report.accepted),
    )
    return report


async def _echoed(device: Device, own: Own, device_tls: DeviceTLS) -> str:
    """What is wrong with its C-ECHO, and what to do; empty if nothing is."""
    try:
        connection = await device_tls.connect(device, TIMEOUTS)
    except AssociationAborted as error:
        return device_words.no_connection(device, error)
    try:
        return await _echo(device, own.ae_title, connection)
    except AssociationRejected as error:
        return device_words.rejected(device, own, error)
    except (AssociationAborted, RemoteProtocolError) as error:
        return await device_words.no_association(device, own, error)
    finally:
        await connection.aclose()


async def _probed(device: Device, own: Own, device_tls: DeviceTLS, report: Report) -> str:
    """What has kept it from saying what it takes; empty if nothing has. It has answered before."""
    try:
        for contexts in batches(storage_pairs()):
            await _probe(device, own.ae_title, device_tls, contexts, report)
    except AssociationRejected as error:
        return device_words.rejected(device, own, error)
    except (AssociationAborted, RemoteProtocolError) as error:
        if NO_ANSWER in str(error):
            return f"{error}: {SILENT}"
        return f"{error}: it has answered the C-ECHO, and not this: its own log may say why"
    return ""


def _summary(report: Report) -> Finding:
    classes = len(report.accepted)
    syntaxes = {syntax for taken in report.accepted.values() for syntax in taken}
    names = ", ".join(
        uids.TRANSFER_SYNTAXES[syntax] for syntax in uids.TRANSFER_SYNTAXES if syntax in syntaxes
    )
    return Finding(
        f"takes {classes} of {len(STORAGE_SOP_CLASSES)} storage classes; {names or 'nothing'}",
        True,
    )


async def _echo(device: Device, calling: str, connection: TCPAssociation) -> str:
    """What is wrong with its C-ECHO; empty if nothing is."""
    contexts = negotiation.propose(
        [(uids.VERIFICATION, (uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_LITTLE_ENDIAN))]
    )
    request = negotiation.request(device.ae_title, calling, contexts)
    answer = await negotiate(connection, request)
    accepted = accepted_contexts(request, answer)
    if not accepted:
        return "it does not accept Verification: it may still take what it is for"
    status = await echo(connection, accepted[contexts[0].id])
    await release(connection)
    return "" if status == Status.SUCCESS else f"it answered with status {status:04X}H"


async def _probe(
    device: Device,
    calling: str,
    device_tls: DeviceTLS,
    contexts: tuple[PresentationContext, ...],
    report: Report,
) -> None:
    request, answer = await ask(device, calling, device_tls, contexts)
    report.proposed += len(contexts)
    for context in accepted_contexts(request, answer).values():
        report.accepted.setdefault(context.abstract_syntax, []).append(context.transfer_syntax)


async def ask(
    device: Device,
    calling: str,
    device_tls: DeviceTLS,
    contexts: tuple[PresentationContext, ...],
    *items: TypedItem,
) -> tuple[AAssociateRQ, AAssociateAC]:
    """What is proposed to `device` as `calling`, and its answer; the association is released.

    Raises AssociationRejected, AssociationAborted and RemoteProtocolError, for whatever the device
    does instead of an answer.
    """
    connection = await device_tls.connect(device, TIMEOUTS)
    try:
        request = negotiation.request(device.ae_title, calling, contexts, *items)
        answer = await negotiate(connection, request)
        with suppress(AssociationAborted):  # it has said all; some devices just hang up
            await release(connection)
        return request, answer
    finally:
        await connection.aclose()


def storage_pairs() -> list[tuple[str, tuple[str]]]:
    """Every Storage SOP class with every transfer syntax, for one context each."""
    return [
        (sop_class, (transfer_syntax,))
        for sop_class in STORAGE_SOP_CLASSES
        for transfer_syntax in uids.TRANSFER_SYNTAXES
    ]
