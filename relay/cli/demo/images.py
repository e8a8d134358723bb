"""Real images for the demonstration, and how two of them are compared."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file

from relay.cli import part10
from relay.cli.demo.processes import DemoError
from relay.cli.part10 import Part10File
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from relay.errors import RelayError

# Smaller files among pydicom's are made to test parsers, and hold no image.
SMALLEST_OBJECT = 1000

# A canary of fewer letters could stand in ciphertext by chance.
SHORTEST_CANARY = 6


def images() -> list[Part10File]:
    """The real images that pydicom comes with, uncompressed, each SOP instance once."""
    known = get_testdata_file("CT_small.dcm", download=False)
    if not isinstance(known, str):
        raise DemoError("pydicom's test files are not installed")
    files: dict[str, Part10File] = {}
    for path in part10.walk([Path(known).parent]):
        try:
            file = part10.read(path)
            if _is_whole(file):
                files.setdefault(file.sop_instance, file)
        except (RelayError, ValueError):
            continue  # made to be unreadable: it tests parsers
    return list(files.values())


def _is_whole(file: Part10File) -> bool:
    """Whether an archive will take the object, and find it by its study."""
    attributes = _attributes(file)
    return (
        file.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
        and file.size >= SMALLEST_OBJECT
        and attributes.get("SOPClassUID") == file.sop_class
        and attributes.get("SOPInstanceUID") == file.sop_instance
        and bool(attributes.get("StudyInstanceUID"))
    )


def _attributes(file: Part10File) -> pydicom.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(file.path, stop_before_pixels=True)


def study_of(file: Part10File) -> str:
    """The Study Instance UID; empty if there is none."""
    return str(_attributes(file).get("StudyInstanceUID", ""))


def canaries_in(files: Sequence[Part10File]) -> set[bytes]:
    """What nobody between the hospitals may see: names, IDs and UIDs of patients' studies."""
    found: set[bytes] = set()
    for file in files:
        attributes = _attributes(file)
        found.add(file.sop_instance.encode())
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber"):
            found.add(str(attributes.get(keyword, "")).encode())
    return {word for word in found if len(word) >= SHORTEST_CANARY}


def digest(file: Part10File) -> str:
    """SHA-256 of the data set as it stands in the file."""
    with file.path.open("rb") as opened:
        opened.seek(file.offset)
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """SOP Instance UID to `digest` for every DICOM file under `folder`."""
    found = {}
    for path in part10.walk([folder]):
        try:
            file = part10.read(path)
        except RelayError:
            continue  # a device's own index
        found[file.sop_instance] = digest(file)
    return found
