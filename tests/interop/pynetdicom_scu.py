"""A pynetdicom requestor as a process of its own: runs one named scenario and prints what came.

    python pynetdicom_scu.py mpps 127.0.0.1 11112 --calling MODALITY --called RIS

It prints one JSON list, a step each: `{"step": "N-CREATE", "status": 0, ...}`. An N-EVENT-REPORT on
the same association is a step too, answered 0000; the scenario waits for those that it is due.
"""

import argparse
import json
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_role, evt, register_uid
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.service_class_n import PrintManagementServiceClass
from pynetdicom.sop_class import (
    BasicFilmBox,
    BasicFilmSession,
    BasicGrayscaleImageBox,
    BasicGrayscalePrintManagementMeta,
    CTImageStorage,
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepNotification,
    ModalityPerformedProcedureStepRetrieve,
    Printer,
    PrinterInstance,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

PRIVATE_STORAGE = "1.3.6.1.4.1.99999.1.1"
PRIVATE_OPERATIONS = "1.3.6.1.4.1.99999.1.2"

# From a response to the N-EVENT-REPORT that follows it.
REPORT_WAIT = 30.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--calling", required=True)
    parser.add_argument("--called", required=True)
    parser.add_argument("--file", type=Path, help="the Part 10 file that is sent")
    parser.add_argument("--user", help="NAME:PASSCODE of the user identity that it shows")
    parser.add_argument(
        "--no-reports", action="store_true", help="wait for no N-EVENT-REPORT: none will come here"
    )
    return parser.parse_args()


class Run:
    """The association of one scenario, and the steps so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.steps: list[dict[str, Any]] = []
        self.reports: queue.Queue[dict[str, Any]] = queue.Queue()
        self.assigned: str | None = None
        self.association: Association

    def step(self, step: str, answer: Any, **more: Any) -> Dataset:
        """Note a response; the data set that came with it."""
        status, attributes = answer if isinstance(answer, tuple) else (answer, None)
        if "Status" not in status:
            raise SystemExit(f"{step}: no response")
        self.steps.append({"step": step, "status": status.Status, **more})
        return attributes if attributes is not None else Dataset()

    def event(self, event: Event) -> tuple[int, None]:
        self.reports.put(
            {
                "step": "N-EVENT-REPORT",
                "type": event.event_type,
                "sop_class": str(event.request.AffectedSOPClassUID),
                "instance": str(event.request.AffectedSOPInstanceUID),
            }
        )
        return 0x0000, None

    def message(self, event: Event) -> None:
        command = event.message.command_set
        if command.CommandField == 0x8140:  # N-CREATE-RSP: pynetdicom keeps its instance to itself
            self.assigned = command.get("AffectedSOPInstanceUID")

    def await_report(self) -> None:
        if self.options.no_reports:
            return
        try:
            self.steps.append(self.reports.get(timeout=REPORT_WAIT))
        except queue.Empty:
            raise SystemExit("no N-EVENT-REPORT came") from None


def data_set(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def mpps(run: Run) -> None:
    """Made by this side's UID and by the other's, set twice, reported, and read back."""
    ask = run.association
    begun = data_set(
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Ελένη^Παπαδοπούλου",
        PatientID="1CT1",
        PerformedProcedureStepID="PPS1",
        PerformedProcedureStepStatus="IN PROGRESS",
        PerformedStationAETitle=run.options.calling,
        PerformedSeriesSequence=[],
        ScheduledStepAttributesSequence=[data_set(StudyInstanceUID="1.2.3.4", AccessionNumber="")],
    )
    for uid in (generate_uid(), None):
        run.step("N-CREATE", ask.send_n_create(begun, ModalityPerformedProcedureStep, uid))
        made = uid or run.assigned
        run.steps[-1]["instance"] = made
        for status in ("IN PROGRESS", "COMPLETED"):
            changes = data_set(
                SpecificCharacterSet="ISO_IR 100",
                PerformedProcedureStepStatus=status,
                CommentsOnThePerformedProcedureStep="Schädel",
            )
            run.step(
                f"N-SET {status}", ask.send_n_set(changes, ModalityPerformedProcedureStep, made)
            )
        run.await_report()
        tags = [0x00100010, 0x00400252, 0x00400253]
        found = run.step(
            "N-GET", ask.send_n_get(tags, ModalityPerformedProcedureStepRetrieve, made)
        )
        run.steps[-1]["found"] = found.get("PerformedProcedureStepStatus")


def commitment(run: Run) -> None:
    """Asked for, and reported on the same association."""
    wanted = data_set(
        TransactionUID=generate_uid(),
        ReferencedSOPSequence=[
            data_set(
                ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=uid
            )
            for uid in ("1.2.3.1", "1.2.3.2")
        ],
    )
    run.step(
        "N-ACTION",
        run.association.send_n_action(
            wanted, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        ),
    )
    run.await_report()


def film(run: Run) -> None:
    """One image on one film: session, box, image, print, its report, the printer, the end."""
    ask, meta = run.association, BasicGrayscalePrintManagementMeta
    session = generate_uid()
    run.step(
        "N-CREATE film session",
        ask.send_n_create(data_set(NumberOfCopies=1), BasicFilmSession, session, meta_uid=meta),
    )
    box = generate_uid()
    of_session = data_set(ReferencedSOPClassUID=BasicFilmSession, ReferencedSOPInstanceUID=session)
    layout = data_set(
        ImageDisplayFormat="STANDARD\\1,1", ReferencedFilmSessionSequence=[of_session]
    )
    made = run.step(
        "N-CREATE film box", ask.send_n_create(layout, BasicFilmBox, box, meta_uid=meta)
    )
    image_box = made.ReferencedImageBoxSequence[0].ReferencedSOPInstanceUID
    image = data_set(
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=64,
        Columns=64,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
    )
    image.add_new("PixelData", "OW", bytes(range(256)) * 16)
    shown = data_set(ImageBoxPosition=1, BasicGrayscaleImageSequence=[image])
    run.step(
        "N-SET image box", ask.send_n_set(shown, BasicGrayscaleImageBox, image_box, meta_uid=meta)
    )
    run.step("N-ACTION", ask.send_n_action(None, 1, BasicFilmBox, box, meta_uid=meta))
    run.await_report()
    tags = [0x21100010, 0x21100020]
    found = run.step("N-GET printer", ask.send_n_get(tags, Printer, PrinterInstance, meta_uid=meta))
    run.steps[-1]["found"] = found.get("PrinterStatus")
    run.step("N-DELETE", ask.send_n_delete(BasicFilmSession, session, meta_uid=meta))
    run.step("N-DELETE again", ask.send_n_delete(BasicFilmSession, session, meta_uid=meta))


def availability(run: Run) -> None:
    """That instances can be fetched: one N-CREATE, and no way to ask for it later."""
    told = data_set(
        StudyInstanceUID="1.2.3.4",
        ReferencedPerformedProcedureStepSequence=[],
        ReferencedSeriesSequence=[
            data_set(
                SeriesInstanceUID="1.2.3.4.1",
                ReferencedSOPSequence=[
                    data_set(
                        ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2",
                        ReferencedSOPInstanceUID="1.2.3.4.1.1",
                        InstanceAvailability="ONLINE",
                        RetrieveAETitle=run.options.calling,
                    )
                ],
            )
        ],
    )
    uid = generate_uid()
    run.step("N-CREATE", run.association.send_n_create(told, InstanceAvailabilityNotification, uid))


def instance(run: Run) -> None:
    """One instance of a private class."""
    run.step("C-STORE", run.association.send_c_store(run.options.file))


def private(run: Run) -> None:
    """Each operation on an instance of a private class."""
    ask = run.association
    uid = generate_uid()
    secret = data_set(PatientComments="made by nobody")
    run.step("N-CREATE", ask.send_n_create(secret, PRIVATE_OPERATIONS, uid))
    run.step("N-SET", ask.send_n_set(secret, PRIVATE_OPERATIONS, uid))
    found = run.step("N-ACTION", ask.send_n_action(secret, 7, PRIVATE_OPERATIONS, uid))
    run.steps[-1]["found"] = found.get("PatientComments")
    run.step("N-GET", ask.send_n_get([0x00104000], PRIVATE_OPERATIONS, uid))
    run.step("N-DELETE", ask.send_n_delete(PRIVATE_OPERATIONS, uid))
    run.step("N-DELETE again", ask.send_n_delete(PRIVATE_OPERATIONS, uid))


def negotiation(run: Run) -> None:
    """Nothing but what was agreed: the other side's answers as this side reads them."""
    agreed = run.association.acceptor
    run.steps.append(
        {
            "step": "A-ASSOCIATE",
            "window": agreed.asynchronous_operations,
            "extended": {uid: list(data) for uid, data in agreed.sop_class_extended.items()},
            "roles": {
                uid: [role.scu_role, role.scp_role] for uid, role in agreed.role_selection.items()
            },
        }
    )


def proposed() -> list[Any]:
    """Items of the user information beside those that each proposal has (PS3.7 §D.3.3)."""
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 8
    window.maximum_number_operations_performed = 4
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid = StudyRootQueryRetrieveInformationModelFind
    extended.service_class_application_information = b"\x01\x01\x00"  # relational, date-time
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid = CTImageStorage
    common.service_class_uid = "1.2.840.10008.4.2"
    common.related_general_sop_class_identification = ["1.2.840.10008.5.1.4.1.1.7"]
    return [window, extended, common, build_role(CTImageStorage, scu_role=True, scp_role=True)]


def identity(options: argparse.Namespace) -> UserIdentityNegotiation:
    """User name and passcode (PS3.7 §D.3.3.7)."""
    shown = UserIdentityNegotiation()
    name, passcode = options.user.split(":")
    shown.user_identity_type = 2
    shown.primary_field, shown.secondary_field = name.encode(), passcode.encode()
    return shown


SCENARIOS: dict[str, tuple[Callable[[Run], None], tuple[str, ...]]] = {
    "mpps": (
        mpps,
        (
            ModalityPerformedProcedureStep,
            ModalityPerformedProcedureStepRetrieve,
            ModalityPerformedProcedureStepNotification,
        ),
    ),
    "commitment": (commitment, (StorageCommitmentPushModel,)),
    "film": (film, (BasicGrayscalePrintManagementMeta,)),
    "availability": (availability, (InstanceAvailabilityNotification,)),
    "instance": (instance, (PRIVATE_STORAGE,)),
    "private": (private, (PRIVATE_OPERATIONS,)),
    "negotiation": (negotiation, (StudyRootQueryRetrieveInformationModelFind, CTImageStorage)),
}


def main() -> None:
    options = arguments()
    register_uid(PRIVATE_STORAGE, "PrivateStorage", StorageServiceClass)
    register_uid(PRIVATE_OPERATIONS, "PrivateOperations", PrintManagementServiceClass)
    scenario, sop_classes = SCENARIOS[options.scenario]
    run = Run(options)
    application_entity = AE(ae_title=options.calling)
    for sop_class in sop_classes:
        application_entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    items = proposed() if options.scenario == "negotiation" else []
    if options.user:
        items.append(identity(options))
    run.association = application_entity.associate(
        options.host,
        options.port,
        ae_title=options.called,
        ext_neg=items,
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, run.event), (evt.EVT_DIMSE_RECV, run.message)],
    )
    if not run.association.is_established:
        raise SystemExit("no association")
    try:
        scenario(run)
        run.association.release()
    finally:
        run.association.abort()  # otherwise its thread would keep the process
    print(json.dumps(run.steps))


if __name__ == "__main__":
    main()
