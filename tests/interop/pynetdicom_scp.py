"""A pynetdicom acceptor as a process of its own: what a device does, right or wrong, by option.

    python pynetdicom_scp.py --port 11112 --ae-title PACS --directory out

It takes Verification, all storage classes (unknown and private ones too) in all transfer syntaxes,
Query/Retrieve and worklist C-FIND, and C-GET. Received data sets are kept byte for byte as they
came, in `<SOP Instance UID>.dataset`, with their transfer syntax in `<SOP Instance UID>.syntax`.
"""

import argparse
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID as Identifier
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    ModalityWorklistInformationFind,
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

SUCCESS = 0x0000
PENDING = 0xFF00
CANCELLED = 0xFE00

UID = re.compile(r"[0-9.]{1,64}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ae-title", default="PYNETDICOM")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument(
        "--answers", type=int, default=0, help="how many answers each C-FIND gets before 0000"
    )
    parser.add_argument(
        "--serve", type=Path, help="folder of Part 10 files, all of which each C-GET gets"
    )
    parser.add_argument(
        "--status", type=lambda text: int(text, 16), default=SUCCESS, help="of C-STORE, in hex"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="UID", help="take only these SOP classes"
    )
    parser.add_argument(
        "--transfer-syntax", action="append", default=[], metavar="UID", help="take only these"
    )
    parser.add_argument(
        "--reject", help="RESULT,SOURCE,REASON of the A-ASSOCIATE-RJ that each association gets"
    )
    parser.add_argument(
        "--abort",
        choices=["accept", "store", "find"],
        help="A-ABORT after the A-ASSOCIATE-AC, or in place of the first response",
    )
    parser.add_argument(
        "--slow", type=float, default=0.0, help="seconds before each response (C-FIND: answer)"
    )
    parser.add_argument("--maximum-length", type=int, default=16382)
    return parser.parse_args()


class Device:
    """What the device does on each event; the options say how."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.pause = threading.Event()  # never set: waiting on it is a sleep

    def requested(self, event: Event) -> None:
        # pynetdicom has no hook to reject with chosen codes: its own rejection sends them instead.
        triple = tuple(int(part) for part in self.options.reject.split(","))
        send_reject = event.assoc.acse.send_reject
        event.assoc.acse.send_reject = lambda *_: send_reject(*triple)
        event.assoc.ae.require_called_aet = True
        event.assoc.acceptor.ae_title = "NOBODY"

    def accepted(self, event: Event) -> None:
        event.assoc.abort()

    def echo(self, event: Event) -> int:
        self.pause.wait(self.options.slow)
        return SUCCESS

    def store(self, event: Event) -> int:
        if self.options.abort == "store":
            event.assoc.abort()
            return SUCCESS
        uid = str(event.request.AffectedSOPInstanceUID)
        if not UID.fullmatch(uid):
            return 0x0117
        path = self.options.directory / f"{uid}.dataset"
        path.write_bytes(event.request.DataSet.getvalue())
        path.with_suffix(".syntax").write_text(event.context.transfer_syntax)
        self.pause.wait(self.options.slow)
        return int(self.options.status)

    def find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        if self.options.abort == "find":
            event.assoc.abort()
            return
        for number in range(1, self.options.answers + 1):
            self.pause.wait(self.options.slow)
            if event.is_cancelled:
                yield CANCELLED, None
                return
            answer = Dataset()
            answer.QueryRetrieveLevel = "STUDY"
            answer.PatientID = f"ANSWER{number:06}"
            answer.StudyInstanceUID = f"1.2.3.4.{number}"
            yield PENDING, answer

    def get(self, event: Event) -> Iterator[int | tuple[int, Dataset | None]]:
        files = sorted(self.options.serve.iterdir()) if self.options.serve else []
        yield len(files)
        for path in files:
            if event.is_cancelled:
                yield CANCELLED, None
                return
            yield PENDING, dcmread(path)


def main() -> None:
    # pynetdicom copies for each association what it supports: here 8,000 UIDs, which nothing can
    # change. Copied, they take most of the processor time of a test of many associations.
    Identifier.__deepcopy__ = lambda uid, memo: uid  # type: ignore[attr-defined]
    options = arguments()
    device = Device(options)
    _config.UNRESTRICTED_STORAGE_SERVICE = not (options.only or options.transfer_syntax)
    application_entity = AE(ae_title=options.ae_title)
    application_entity.maximum_pdu_size = options.maximum_length
    application_entity.maximum_associations = 100
    syntaxes = options.transfer_syntax or list(ALL_TRANSFER_SYNTAXES)
    abstract_syntaxes = options.only or [
        Verification,
        PatientRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelFind,
        ModalityWorklistInformationFind,
        PatientRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelGet,
        *(context.abstract_syntax for context in AllStoragePresentationContexts),
    ]
    for abstract_syntax in abstract_syntaxes:
        application_entity.add_supported_context(
            abstract_syntax, syntaxes, scu_role=True, scp_role=True
        )
    handlers: list[evt.EventHandlerType] = [
        (evt.EVT_C_ECHO, device.echo),
        (evt.EVT_C_STORE, device.store),
        (evt.EVT_C_FIND, device.find),
        (evt.EVT_C_GET, device.get),
    ]
    if options.reject:
        handlers.append((evt.EVT_REQUESTED, device.requested))
    if options.abort == "accept":
        handlers.append((evt.EVT_ACCEPTED, device.accepted))
    application_entity.start_server(("127.0.0.1", options.port), block=True, evt_handlers=handlers)


if __name__ == "__main__":
    main()
