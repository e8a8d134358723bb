"""A pynetdicom acceptor for the services that have a state: worklist, MPPS, commitment, print.

    python pynetdicom_services.py --port 11112 --ae-title SERVICES --directory out

It takes every N-service on the classes below as a device of its kind does: what N-CREATE made can
be set, got and deleted; a COMPLETED procedure step, a storage commitment and a printed film are
each followed by an N-EVENT-REPORT on the same association. A C-FIND gets as many answers as its
Accession Number says, or endless ones up to a C-CANCEL where it says CANCEL.

With `--unasked` it is a device that asks for what nobody wanted: after each C-ECHO it sends one
request of each kind on every context that it has accepted.
"""

import argparse
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt, register_uid
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_STORE, N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.events import Event
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.service_class_n import PrintManagementServiceClass
from pynetdicom.sop_class import (
    BasicFilmBox,
    BasicGrayscaleImageBox,
    BasicGrayscalePrintManagementMeta,
    CTImageStorage,
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepNotification,
    ModalityPerformedProcedureStepRetrieve,
    ModalityWorklistInformationFind,
    Printer,
    PrinterInstance,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

# Private SOP classes of a vendor that does not exist: one of instances, one of operations.
PRIVATE_STORAGE = "1.3.6.1.4.1.99999.1.1"
PRIVATE_OPERATIONS = "1.3.6.1.4.1.99999.1.2"

SUCCESS, PENDING, CANCELLED = 0x0000, 0xFF00, 0xFE00
NO_SUCH_INSTANCE = 0x0112

# Who was told to wait for a C-CANCEL goes on without one after so many seconds.
CANCEL_WAIT = 20.0

# The same name in three character sets (PS3.5 Annex H.3): each answer of a C-FIND has the next one.
NAMES = (
    ("ISO_IR 100", "Müller^Jörg"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ("ISO_IR 192", "Ελένη^Παπαδοπούλου"),
)

SOP_CLASSES = (
    Verification,
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    ModalityWorklistInformationFind,
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepRetrieve,
    ModalityPerformedProcedureStepNotification,
    StorageCommitmentPushModel,
    InstanceAvailabilityNotification,
    BasicGrayscalePrintManagementMeta,
    UID(PRIVATE_STORAGE),
    UID(PRIVATE_OPERATIONS),
)

Answer = tuple[int, Dataset | None]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ae-title", default="SERVICES")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument(
        "--user",
        action="append",
        help="NAME:PASSCODE or TOKEN: that this device knows, and answers with `ticket`",
    )
    parser.add_argument("--unasked", action="store_true", help="send what nobody asked for")
    return parser.parse_args()


class Device:
    """The instances that this device has, and what it does on each event."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.instances: dict[str, Dataset] = {PrinterInstance: printer()}
        self.pause = threading.Event()  # never set: waiting on it is a sleep
        # What each association, by its own identity, is sent after its next response.
        self.due: defaultdict[int, deque[tuple[Any, int]]] = defaultdict(deque)

    # --- association ----------------------------------------------------------------------------

    def accepted(self, event: Event) -> None:
        """From now on: what is due goes out as soon as a response has gone.

        Nobody waits for the answers, which pynetdicom ignores: while one is awaited, a request of
        the other side's would be taken for it.
        """
        dimse, due = event.assoc.dimse, self.due[id(event.assoc)]
        send = dimse.send_msg

        def send_and_what_is_due(primitive: Any, context_id: int) -> None:
            send(primitive, context_id)
            while due:
                send(*due.popleft())

        dimse.send_msg = send_and_what_is_due

    def identity(self, event: Event) -> tuple[bool, bytes | None]:
        shown = b":".join((event.primary_field, event.secondary_field or b""))
        return shown.decode() in self.options.user, b"ticket"

    # --- composite services ---------------------------------------------------------------------

    def echo(self, event: Event) -> int:
        if self.options.unasked:
            for context in event.assoc.accepted_contexts:
                for request in unasked(str(context.abstract_syntax)):
                    self.due[id(event.assoc)].append((request, context.context_id))
        return SUCCESS

    def find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = str(event.identifier.get("AccessionNumber", "0"))
        for number in range(3 if wanted == "CANCEL" else int(wanted)):
            yield PENDING, scheduled(number)
        if wanted == "CANCEL":
            for _ in range(int(CANCEL_WAIT / 0.01)):
                if event.is_cancelled:
                    yield CANCELLED, None
                    return
                self.pause.wait(0.01)

    # --- normalized services --------------------------------------------------------------------

    def create(self, event: Event) -> Answer:
        attributes = event.attribute_list
        given = event.request.AffectedSOPInstanceUID
        uid = given or generate_uid()
        self.instances[uid] = Dataset(attributes)
        if event.request.AffectedSOPClassUID == BasicFilmBox:
            image_box = Dataset()
            image_box.ReferencedSOPClassUID = BasicGrayscaleImageBox
            image_box.ReferencedSOPInstanceUID = generate_uid()
            self.instances[image_box.ReferencedSOPInstanceUID] = Dataset()
            attributes.ReferencedImageBoxSequence = [image_box]
        if given is None:
            # pynetdicom moves it into the response's command set.
            attributes.AffectedSOPInstanceUID = uid
        return SUCCESS, attributes

    def set(self, event: Event) -> Answer:
        uid = str(event.request.RequestedSOPInstanceUID)
        if uid not in self.instances:
            return NO_SUCH_INSTANCE, None
        self.instances[uid].update(event.modification_list)
        if event.modification_list.get("PerformedProcedureStepStatus") == "COMPLETED":
            self.report(event, ModalityPerformedProcedureStepNotification, uid, 2)
        return SUCCESS, event.modification_list

    def get(self, event: Event) -> Answer:
        uid = str(event.request.RequestedSOPInstanceUID)
        if uid not in self.instances:
            return NO_SUCH_INSTANCE, None
        found = Dataset()
        for tag in event.attribute_identifiers or list(self.instances[uid].keys()):
            if tag in self.instances[uid]:
                found.add(self.instances[uid][tag])
        return SUCCESS, found

    def action(self, event: Event) -> Answer:
        sop_class = event.request.RequestedSOPClassUID
        if sop_class == StorageCommitmentPushModel:
            self.report(
                event, sop_class, StorageCommitmentPushModelInstance, 1, event.action_information
            )
            return SUCCESS, None
        if sop_class == BasicFilmBox:
            status = Dataset()
            status.PrinterName = "PRINTER"
            meta = BasicGrayscalePrintManagementMeta
            self.report(event, Printer, PrinterInstance, 1, status, meta)
            return SUCCESS, None
        return SUCCESS, event.action_information

    def delete(self, event: Event) -> int:
        uid = str(event.request.RequestedSOPInstanceUID)
        return NO_SUCH_INSTANCE if self.instances.pop(uid, None) is None else SUCCESS

    def report(
        self,
        event: Event,
        sop_class: str,
        instance: str,
        event_type: int,
        information: Dataset | None = None,
        meta: str | None = None,
    ) -> None:
        """An N-EVENT-REPORT after the response, if the association has a context for it."""
        for context in event.assoc.accepted_contexts:
            if context.abstract_syntax == (meta or sop_class):
                request = N_EVENT_REPORT()
                request.MessageID = 1
                request.AffectedSOPClassUID = sop_class
                request.AffectedSOPInstanceUID = instance
                request.EventTypeID = event_type
                if information is not None:
                    syntax = context.transfer_syntax[0]
                    encoded = encode(information, syntax.is_implicit_VR, syntax.is_little_endian)
                    request.EventInformation = BytesIO(encoded)
                self.due[id(event.assoc)].append((request, context.context_id))


def printer() -> Dataset:
    attributes = Dataset()
    attributes.PrinterStatus = "NORMAL"
    attributes.PrinterStatusInfo = "NORMAL"
    attributes.Manufacturer = "Nobody"
    return attributes


def scheduled(number: int) -> Dataset:
    """One entry of a worklist."""
    answer, step = Dataset(), Dataset()
    answer.SpecificCharacterSet, answer.PatientName = NAMES[number % len(NAMES)]
    answer.PatientID = f"ANSWER{number:06}"
    answer.AccessionNumber = f"A{number}"
    step.ScheduledStationAETitle = "MODALITY"
    step.Modality = "CT"
    answer.ScheduledProcedureStepSequence = [step]
    return answer


def unasked(sop_class: str) -> Iterator[Any]:
    """Requests of every kind that only this association's requestor may send."""
    for kind in (C_ECHO, C_FIND, C_STORE, N_EVENT_REPORT, N_ACTION):
        request: Any = kind()
        request.MessageID = 77
        names = "Requested" if kind is N_ACTION else "Affected"
        setattr(request, f"{names}SOPClassUID", sop_class)
        if kind in (C_STORE, N_EVENT_REPORT, N_ACTION):
            setattr(request, f"{names}SOPInstanceUID", "1.2.3.4.5")
        if kind in (C_STORE, C_FIND):
            request.Priority = 0
        if kind is C_STORE:
            request.DataSet = BytesIO(b"\x08\x00\x60\x00\x02\x00\x00\x00CT")
        if kind is C_FIND:
            request.Identifier = BytesIO(b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY ")
        if kind is N_EVENT_REPORT:
            request.EventTypeID = 1
        if kind is N_ACTION:
            request.ActionTypeID = 1
        yield request


def main() -> None:
    options = arguments()
    device = Device(options)
    register_uid(PRIVATE_STORAGE, "PrivateStorage", StorageServiceClass)
    register_uid(PRIVATE_OPERATIONS, "PrivateOperations", PrintManagementServiceClass)
    application_entity = AE(ae_title=options.ae_title)
    application_entity.maximum_associations = 100
    for sop_class in SOP_CLASSES:
        application_entity.add_supported_context(
            sop_class,
            [ExplicitVRLittleEndian, ImplicitVRLittleEndian],
            scu_role=True,
            scp_role=True,
        )
    handlers: list[evt.EventHandlerType] = [
        (evt.EVT_ACCEPTED, device.accepted),
        (evt.EVT_ASYNC_OPS, lambda event: (event.nr_invoked, event.nr_performed)),
        (evt.EVT_SOP_EXTENDED, lambda event: event.app_info),
        (evt.EVT_SOP_COMMON, lambda event: event.items),
        (evt.EVT_C_ECHO, device.echo),
        (evt.EVT_C_FIND, device.find),
        (evt.EVT_C_GET, lambda event: iter([0])),
        (evt.EVT_C_STORE, lambda event: SUCCESS),
        (evt.EVT_N_CREATE, device.create),
        (evt.EVT_N_SET, device.set),
        (evt.EVT_N_GET, device.get),
        (evt.EVT_N_ACTION, device.action),
        (evt.EVT_N_DELETE, device.delete),
    ]
    if options.user:
        handlers.append((evt.EVT_USER_ID, device.identity))
    application_entity.start_server(("127.0.0.1", options.port), block=True, evt_handlers=handlers)


if __name__ == "__main__":
    main()
