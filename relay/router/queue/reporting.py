"""What became of a request for storage commitment, told to the device of ours that asked.

    the association on which it asked, if that is open -> else one to the device, as its provider

It is the far device's word, handed on, or the queue's own, where the far device was never asked.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs
import structlog
import trio

from relay.dicom import negotiation
from relay.dicom.commandset import CommandSet
from relay.dicom.elements import encoding_of
from relay.dicom.negotiation import RoleSelection, accepted_contexts
from relay.dicom.references import failure_report, read_request
from relay.dicom.rejection import CALLED_AE_TITLE_NOT_RECOGNIZED, rejected
from relay.dicom.status import Status
from relay.dicom.uids import STORAGE_COMMITMENT_PUSH_MODEL
from relay.errors import AssociationAborted, RemoteProtocolError
from relay.identity import fingerprint
from relay.router.devices import Device
from relay.router.live import Side
from relay.router.names import why_ambiguous
from relay.router.node import Node
from relay.router.places import Claim
from relay.router.probe import TIMEOUTS
from relay.router.queue.events import event_report
from relay.scu import negotiate, release, report_event
from relay.spool.transactions import Transaction

log = structlog.get_logger()

# PS3.4 §J.3.5: the well-known instance, and the event of a request of which not all was committed.
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
FAILURES_EXIST = 2

# Reports over the association on which was asked, by device, called title and Transaction UID.
Key = tuple[str, str, str]
Reporter = Callable[[CommandSet, bytes], Awaitable[int]]


@attrs.frozen(slots=True, kw_only=True)
class Told:
    """To whom a report goes: `device`, by its local title, of what it asked `called` of `peer`."""

    device: str
    called: str
    peer: bytes
    uid: str
    transfer_syntax: str

    @classmethod
    def of(cls, transaction: Transaction) -> "Told":
        """Whoever asked for this."""
        return cls(
            device=transaction.device,
            called=transaction.called,
            peer=transaction.peer,
            uid=transaction.uid,
            transfer_syntax=transaction.transfer_syntax,
        )

    @property
    def key(self) -> Key:
        """See `Key`."""
        return self.device, self.called, self.uid


class Reports:
    """The ways to tell. A device that has gone is called."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._open: dict[Key, Reporter] = {}

    def opened(self, key: Key, reporter: Reporter) -> None:
        """The association on which this was asked is open."""
        self._open[key] = reporter

    def closed(self, key: Key, reporter: Reporter) -> None:
        """It is over; harmless where the same was asked again on another one."""
        if self._open.get(key) == reporter:
            del self._open[key]

    async def tell(self, told: Told, event: CommandSet, data_set: bytes) -> int:
        """Report `event`, an N-EVENT-REPORT-RQ; the status that the device answers with.

        Raises RelayErrors, in a group or alone.
        """
        reporter = self._open.get(told.key)
        if reporter is not None:
            try:
                return await reporter(event, data_set)
            except AssociationAborted as error:
                log.info("not told where it was asked", device=told.device, why=str(error))
        return await self._call(told, event, data_set)

    async def _call(self, told: Told, event: CommandSet, data_set: bytes) -> int:
        device = self._node.devices.get(told.device)
        if device is None:
            raise rejected(
                CALLED_AE_TITLE_NOT_RECOGNIZED, f"{told.device} is no device of this Router"
            )
        calling = self._node.names.shown_to(device, told.called)
        if calling is None:
            raise rejected(CALLED_AE_TITLE_NOT_RECOGNIZED, why_ambiguous(told.called))
        claim = Claim(
            side=Side.CALLEE,
            device=device.ae_title,
            peer=fingerprint(told.peer),
            maximum=device.maximum_associations,
        )
        with await self._node.places.take(claim, device.place_wait, trio.sleep_forever):
            return await _report(self._node, device, calling, told, event, data_set)


async def _report(
    node: Node, device: Device, calling: str, told: Told, event: CommandSet, data_set: bytes
) -> int:
    """One association with the device, as the provider of storage commitment (PS3.7 §D.3.3.4)."""
    request = negotiation.request(
        device.ae_title,
        calling,
        negotiation.propose([(STORAGE_COMMITMENT_PUSH_MODEL, [told.transfer_syntax])]),
        RoleSelection(STORAGE_COMMITMENT_PUSH_MODEL, scu=False, scp=True),
    )
    connection = await node.device_tls.connect(device, TIMEOUTS)
    try:
        accepted = list(accepted_contexts(request, await negotiate(connection, request)).values())
        if not accepted:
            await release(connection)
            raise AssociationAborted(0, 0, "the device does not accept reports")
        status = await report_event(connection, accepted[0], event, data_set)
        with suppress(AssociationAborted, RemoteProtocolError):  # it has said all
            await release(connection)
        return status
    finally:
        await connection.aclose()


def failure(transaction: Transaction, data_set: bytes) -> tuple[CommandSet, bytes]:
    """The report that nothing of a request was committed to: command and data set.

    Of what was delivered, too: only the device could have said that it commits itself, and was not
    asked. PS3.4 §J.3.3.1.2 wants all references of the request in its report. Raises
    RemoteProtocolError if the request cannot be read.
    """
    encoding = encoding_of(transaction.transfer_syntax)
    assert encoding is not None, "no other was accepted"
    asked = read_request(data_set, encoding)
    report = failure_report(
        asked.transaction, asked.references, Status.PROCESSING_FAILURE, encoding
    )
    event = event_report(STORAGE_COMMITMENT_PUSH_MODEL, WELL_KNOWN_INSTANCE, FAILURES_EXIST)
    return event, report
