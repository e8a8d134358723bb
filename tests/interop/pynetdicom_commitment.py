"""Storage commitment by pynetdicom whose report comes by a new association (PS3.4 §J.3.3).

    python pynetdicom_commitment.py archive --port 11112 --ae-title ARCHIVE --report-to 11113
    python pynetdicom_commitment.py asker --port 11114 --ae-title MOD --at PORT --called ARCHIVE

The archive commits to everything, and reports to whoever asked, at the port that it was told; with
`--status` it refuses instead. The asker asks for one instance, waits for the report, and prints
what it says as JSON, with `failed` where that says so.
"""

import argparse
import json
import threading
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

LOOPBACK = "127.0.0.1"
DEADLINE = 30.0
CT = "1.2.840.10008.5.1.4.1.1.2"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", choices=["archive", "asker"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ae-title", required=True)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--report-to", type=int, help="archive: the port at which it reports")
    parser.add_argument(
        "--status", type=lambda text: int(text, 16), default=0, help="archive: of N-ACTION, in hex"
    )
    parser.add_argument("--at", type=int, help="asker: the port at which it asks")
    parser.add_argument("--called", help="asker: whom it asks")
    return parser.parse_args()


def archive(options: argparse.Namespace) -> None:
    entity = AE(ae_title=options.ae_title)
    entity.add_supported_context(Verification)
    entity.add_supported_context(StorageCommitmentPushModel)

    def report(asker: str, wanted: Dataset) -> None:
        answer = Dataset()
        answer.TransactionUID = wanted.TransactionUID
        answer.ReferencedSOPSequence = wanted.ReferencedSOPSequence
        association = entity.associate(
            LOOPBACK,
            options.report_to,
            contexts=[build_context(StorageCommitmentPushModel)],
            ext_neg=[build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)],
            ae_title=asker,
        )
        if not association.is_established:
            return
        association.send_n_event_report(
            answer, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        association.release()

    def asked(event: Event) -> tuple[int, None]:
        if options.status:
            return options.status, None
        asker = str(event.assoc.requestor.ae_title).strip()
        threading.Timer(0.2, report, (asker, event.action_information)).start()
        return 0x0000, None

    entity.start_server(
        (LOOPBACK, options.port), block=True, evt_handlers=[(evt.EVT_N_ACTION, asked)]
    )


def asker(options: argparse.Namespace) -> None:
    entity = AE(ae_title=options.ae_title)
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    told: list[dict[str, str]] = []
    arrived = threading.Event()

    def reported(event: Event) -> tuple[int, None]:
        information = event.event_information
        failed = information.get("FailedSOPSequence")
        (item,) = failed or information.ReferencedSOPSequence
        report = {
            "transaction": str(information.TransactionUID),
            "instance": str(item.ReferencedSOPInstanceUID),
            "calling": str(event.assoc.requestor.ae_title).strip(),
        }
        told.append(report | {"failed": f"{item.FailureReason:04X}"} if failed else report)
        arrived.set()
        return 0x0000, None

    server = entity.start_server(
        (LOOPBACK, options.port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reported)]
    )
    wanted = Dataset()
    wanted.TransactionUID = generate_uid()
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, generate_uid()
    wanted.ReferencedSOPSequence = [reference]
    association = entity.associate(
        LOOPBACK,
        options.at,
        contexts=[build_context(StorageCommitmentPushModel)],
        ae_title=options.called,
    )
    status, _ = association.send_n_action(
        wanted, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    association.release()
    arrived.wait(DEADLINE)
    server.shutdown()
    asked = {"transaction": str(wanted.TransactionUID), "instance": reference[0x00081155].value}
    print(json.dumps({"status": status.Status, "asked": asked, "told": told}))


if __name__ == "__main__":
    given = arguments()
    archive(given) if given.role == "archive" else asker(given)
