"""A pynetdicom archive as a process of its own: C-FIND that matches, C-MOVE and C-GET.

    python pynetdicom_archive.py --port 11112 --ae-title PACS --serve images --destination WS=11113

It holds what is in `--serve` when it starts. It matches wildcards, lists of UIDs, ranges of dates
and times, and names in any component group (PS3.4 §C.2.2.2), by Patient Root and Study Root, and
keeps the character set of each object in its answers. With `--model` it takes one of both models
only, and no query that is not of it. While the file `--refuse` exists, each association is
rejected.
"""

import argparse
import threading
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    SecondaryCaptureImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

PENDING, CANCELLED, MISMATCH = 0xFF00, 0xFE00, 0xA900

# By Patient Root, below the PATIENT level: keys of a level above are its unique key alone.
OF_PATIENT = {"PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID"}

# What is counted of a study: the number of different values.
COUNTED = {
    "NumberOfStudyRelatedSeries": "SeriesInstanceUID",
    "NumberOfStudyRelatedInstances": "SOPInstanceUID",
}

# What steers a query and matches nothing.
NO_KEYS = {"SpecificCharacterSet", "QueryRetrieveLevel", "RetrieveAETitle"}

UNIQUE_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ae-title", default="ARCHIVE")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--serve", type=Path, help="folder of Part 10 files")
    parser.add_argument(
        "--destination", action="append", default=[], metavar="TITLE=PORT", help="whom it knows"
    )
    parser.add_argument("--model", choices=["patient", "study"], help="takes only its queries")
    parser.add_argument("--refuse", type=Path, help="while this file is there: reject all")
    parser.add_argument("--search", type=float, default=0.0, help="seconds before the first answer")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument(
        "--bulky", default="0x0", metavar="COUNTxSIZE", help="answers of SIZE bytes to each C-FIND"
    )
    return parser.parse_args()


def values(found: Any) -> list[str]:
    if found is None or found == "":
        return []
    return [str(value) for value in (found if isinstance(found, MultiValue) else [found])]


def is_match(key: str, wanted: Any, found: Any) -> bool:
    """Whether one key matches (PS3.4 §C.2.2.2)."""
    asked = values(wanted)
    if not asked or asked == ["*"]:
        return True
    held = values(found)
    if key.endswith("UID"):
        return any(value in asked for value in held)
    if key.endswith(("Date", "Time")) and "-" in asked[0]:
        first, _, last = asked[0].partition("-")
        return any((not first or first <= v) and (not last or v <= last) for v in held)
    if key == "PatientName":
        held = [group for value in held for group in value.split("=")]
    return any(fnmatchcase(value.upper(), asked[0].upper()) for value in held)


class Archive:
    """What it holds, and what it does on each event."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        paths = sorted(options.serve.iterdir()) if options.serve else []
        self.held = [dcmread(path) for path in paths]
        self.known = dict(entry.split("=") for entry in options.destination)
        self.bulk_count, self.bulk_size = map(int, options.bulky.split("x"))
        self.pause = threading.Event()  # never set: waiting on it is a sleep

    def requested(self, event: Event) -> None:
        if self.options.refuse and self.options.refuse.exists():
            # pynetdicom rejects by itself who does not call it by its name.
            event.assoc.ae.require_called_aet = True
            event.assoc.acceptor.ae_title = "NOBODY"

    def matching(self, identifier: Dataset) -> list[Dataset]:
        keys = [e for e in identifier if e.keyword not in NO_KEYS and e.keyword]
        return [
            held
            for held in self.held
            if all(
                is_match(key.keyword, key.value, held[key.keyword].value)
                for key in keys
                if key.keyword in held
            )
        ]

    def find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        identifier = event.identifier
        if not self.is_of_model(identifier):
            yield MISMATCH, None
            return
        answers = self.bulk() if self.bulk_count else self.answers(identifier)
        self.pause.wait(self.options.search)
        for answer in answers:
            self.pause.wait(self.options.slow)
            if event.is_cancelled:
                yield CANCELLED, None
                return
            yield PENDING, answer

    def is_of_model(self, identifier: Dataset) -> bool:
        """Whether a strict archive of `--model` takes it (PS3.4 §C.4.1.2.1)."""
        at_top = identifier.QueryRetrieveLevel == "PATIENT"
        match self.options.model:
            case "study":
                return not at_top
            case "patient" if not at_top:
                patient = values(identifier.get("PatientID"))
                single = len(patient) == 1 and set(patient[0]).isdisjoint("*?")
                return single and all(name not in identifier for name in OF_PATIENT)
        return True

    def answers(self, identifier: Dataset) -> Iterator[Dataset]:
        level = identifier.QueryRetrieveLevel
        entities: dict[str, list[Dataset]] = {}
        for held in self.matching(identifier):
            entities.setdefault(str(held[UNIQUE_KEYS[level]].value), []).append(held)
        for instances in entities.values():
            answer = Dataset()
            for element in identifier:
                if element.keyword and element.keyword not in NO_KEYS:
                    found = instances[0].get(element.keyword, "")
                    setattr(answer, element.keyword, found)
            if "ModalitiesInStudy" in identifier:
                answer.ModalitiesInStudy = sorted({held.Modality for held in instances})
            for name in COUNTED:
                if name in identifier:
                    setattr(answer, name, len({held[COUNTED[name]].value for held in instances}))
            answer.QueryRetrieveLevel = level
            answer.SpecificCharacterSet = instances[0].SpecificCharacterSet
            yield answer

    def bulk(self) -> Iterator[Dataset]:
        words = "x" * self.bulk_size
        for number in range(self.bulk_count):
            answer = Dataset()
            answer.QueryRetrieveLevel = "STUDY"
            answer.StudyInstanceUID = f"1.2.3.{self.options.port}.{number}"
            answer.StudyComments = words
            yield answer

    def get(self, event: Event) -> Iterator[Any]:
        found = self.matching(event.identifier)
        yield len(found)
        yield from self.send(event, found)

    def move(self, event: Event) -> Iterator[Any]:
        port = self.known.get(str(event.move_destination).strip())
        if port is None:
            yield None, None
            return
        yield "127.0.0.1", int(port), {"contexts": [build_context(SecondaryCaptureImageStorage)]}
        ASKING.title = event.assoc.requestor.ae_title
        found = self.matching(event.identifier)
        yield len(found)
        yield from self.send(event, found)

    def send(self, event: Event, found: list[Dataset]) -> Iterator[tuple[int, Dataset]]:
        for held in found:
            self.pause.wait(self.options.slow)
            if event.is_cancelled:
                yield CANCELLED, Dataset()
                return
            yield PENDING, held


# Who asks for the C-MOVE that a thread serves.
ASKING = threading.local()


def name_the_originator() -> None:
    """Have pynetdicom name who asked as Move Originator (PS3.7 §9.1.1.1.7), and not itself."""
    send = Association.send_c_store

    def send_c_store(self: Association, dataset: Any, *arguments: Any, **options: Any) -> Any:
        if options.get("originator_aet"):
            options["originator_aet"] = ASKING.title
        return send(self, dataset, *arguments, **options)

    Association.send_c_store = send_c_store


def main() -> None:
    name_the_originator()
    options = arguments()
    archive = Archive(options)
    entity = AE(ae_title=options.ae_title)
    entity.maximum_associations = 100
    by_patient = (
        PatientRootQueryRetrieveInformationModelFind,
        PatientRootQueryRetrieveInformationModelMove,
        PatientRootQueryRetrieveInformationModelGet,
    )
    by_study = (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
        StudyRootQueryRetrieveInformationModelGet,
    )
    entity.add_supported_context(Verification)
    for model, abstract_syntaxes in (("patient", by_patient), ("study", by_study)):
        if options.model in (None, model):
            for abstract_syntax in abstract_syntaxes:
                entity.add_supported_context(abstract_syntax)
    entity.add_supported_context(SecondaryCaptureImageStorage, scu_role=True, scp_role=True)
    entity.start_server(
        ("127.0.0.1", options.port),
        block=True,
        evt_handlers=[
            (evt.EVT_REQUESTED, archive.requested),
            (evt.EVT_C_FIND, archive.find),
            (evt.EVT_C_GET, archive.get),
            (evt.EVT_C_MOVE, archive.move),
        ],
    )


if __name__ == "__main__":
    main()
