"""What three hospitals' archives hold, made for a test, and what a plain program finds in it.

NORTH and EAST have the same Issuer of Patient ID, SOUTH another one: its P1 is somebody else. Each
archive writes in a character set of its own. Of ten studies, one is in two archives whole, and one
is split: a series in each. `Holdings.find` computes what a query of all of them has to answer from
the data sets alone, with no code of relay's: it is what the federation is compared with.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import attrs
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from tests.interop.part10 import data_set_of

ROOT = "1.2.826.0.1.3680043.10.1520"

UNIQUE_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


@attrs.frozen(slots=True)
class Archive:
    """`codec` is Python's name of `character_set`; `counts`: it tells Modalities in Study."""

    title: str
    hospital: str
    issuer: str
    character_set: str
    codec: str
    counts: bool


# In the order of the federation of hospital A: its own first, then by title.
NORTH = Archive("NORTH", "A", "NORTHERN_TRUST", "ISO_IR 100", "latin-1", counts=False)
EAST = Archive("EAST", "C", "NORTHERN_TRUST", "\\ISO 2022 IR 87", "iso2022_jp", counts=True)
SOUTH = Archive("SOUTH", "B", "SOUTHERN_TRUST", "ISO_IR 192", "utf-8", counts=True)
ARCHIVES = (NORTH, EAST, SOUTH)

_NAMES = {
    "NORTH": "MÜLLER{}^ÄNNE",
    "EAST": "YAMADA{}^TAROU=山田{}^太郎",
    "SOUTH": "ŁUKASZ{}^ĆWIEK",
}

# Who holds studies 0 to 7 of ten; 8 is in both archives of a pair, 9 is split between them.
_HOLDERS = (NORTH, SOUTH, EAST, NORTH, SOUTH, EAST, NORTH, SOUTH)
_PAIRS = ((NORTH, SOUTH), (SOUTH, EAST), (NORTH, EAST))

# dcmqrscp removes the oldest of more than 500 studies (its MAX_MAX_STUDIES): studies beyond these
# are in the other two. NORTH holds 434 of 3,000 then.
_WITH_NORTH = 1000


@attrs.define(slots=True)
class Holdings:
    """The data sets of each archive, by its title."""

    of: dict[str, list[Dataset]] = attrs.field(
        factory=lambda: {archive.title: [] for archive in ARCHIVES}
    )
    shared: list[str] = attrs.field(factory=list)
    """UIDs of studies that two archives have whole."""
    split: list[str] = attrs.field(factory=list)
    """UIDs of studies of which two archives have a series each."""

    def write(self, directory: Path) -> None:
        """A folder of Part 10 files for each archive."""
        for title, held in self.of.items():
            folder = directory / title
            folder.mkdir(parents=True)
            for data_set in held:
                data_set.save_as(
                    folder / f"{data_set.SOPInstanceUID}.dcm", enforce_file_format=True
                )

    def instances(self, **keys: str) -> dict[str, Dataset]:
        """All that match, by SOP Instance UID, whoever has them."""
        return {
            str(data_set.SOPInstanceUID): data_set
            for held in self.of.values()
            for data_set in held
            if _all_match(data_set, keys)
        }

    def studies_of(self, *titles: str) -> set[str]:
        """UIDs of the studies of which these archives have anything."""
        return {str(data_set.StudyInstanceUID) for title in titles for data_set in self.of[title]}

    def find(
        self,
        level: str,
        keys: Mapping[str, str],
        returned: Sequence[str],
        archives: Iterable[Archive] = ARCHIVES,
    ) -> dict[tuple[str, str], dict[str, str]]:
        """What the answer has to be: a row of `returned` for each entity.

        Its key is the issuer at PATIENT level, since there that is a part of who it is, and its
        UID or ID. Where several archives have it the first one's attributes stand.
        """
        rows: dict[tuple[str, str], dict[str, str]] = {}
        modalities: dict[tuple[str, str], set[str]] = {}
        for archive in archives:
            if not self.can_be_asked(archive, keys):
                continue
            for data_set in self.of[archive.title]:
                if not _all_match(data_set, keys):
                    continue
                issuer = archive.issuer if level == "PATIENT" else ""
                key = (issuer, str(data_set.get(UNIQUE_KEYS[level])))
                row = {name: str(data_set.get(name, "")) for name in returned}
                if "IssuerOfPatientID" in returned:
                    row["IssuerOfPatientID"] = archive.issuer
                if archive.counts:
                    modalities.setdefault(key, set()).add(str(data_set.Modality))
                rows.setdefault(key, row)
        if "ModalitiesInStudy" in returned:
            for key, row in rows.items():
                row["ModalitiesInStudy"] = "\\".join(sorted(modalities.get(key, ())))
        return rows

    @staticmethod
    def can_be_asked(archive: Archive, keys: Mapping[str, str]) -> bool:
        """Whether its character set has all that is asked for."""
        try:
            "".join(keys.values()).encode(archive.codec)
        except UnicodeEncodeError:
            return False
        return True


def _all_match(data_set: Dataset, keys: Mapping[str, str]) -> bool:
    return all(_matches(name, wanted, str(data_set.get(name, ""))) for name, wanted in keys.items())


def _matches(name: str, wanted: str, value: str) -> bool:
    if name.endswith("UID"):
        return value in wanted.split("\\")
    if name.endswith("Date") and "-" in wanted:
        first, _, last = wanted.partition("-")
        return (first or "0") <= value <= (last or "9")
    groups = value.split("=") if name == "PatientName" else [value]
    return any(fnmatchcase(group, wanted) for group in groups)


def make(studies: int) -> Holdings:
    """So many studies, of one to three series with one or two objects each."""
    holdings = Holdings()
    for number in range(studies):
        turn = number % 10
        study = f"{ROOT}.{number}"
        if turn < len(_HOLDERS):
            archive = _HOLDERS[turn]
            if number >= _WITH_NORTH and archive is NORTH:
                archive = EAST
            _add_study(holdings, archive, number)
            continue
        pair = _PAIRS[number // 10 % len(_PAIRS) if number < _WITH_NORTH else 1]
        (holdings.shared if turn == 8 else holdings.split).append(study)
        for part, archive in enumerate(pair):
            for series in (0, 1) if turn == 8 else (part,):
                for instance in range(2):
                    holdings.of[archive.title].append(
                        _instance(number, series, instance, f"X{number}", f"COPIED{number}^BOTH")
                    )
    return holdings


def _add_study(holdings: Holdings, archive: Archive, number: int) -> None:
    """Of a patient who has some studies there, and perhaps some in another archive."""
    person = number // 12  # in NORTH, EAST and SOUTH alike
    name, character_set = _NAMES[archive.title].replace("{}", str(person)), archive.character_set
    patient_id = f"P{person}"
    if archive.issuer == NORTH.issuer:
        if number % 2:  # one person of both archives, so a name that both can write
            name, patient_id = f"SHARED{person}^PAT", f"S{person}"
        else:
            patient_id = f"{patient_id}{'J' if archive is EAST else ''}"
    for series in range(1 + number % 3):
        for instance in range(1 + number % 2):
            holdings.of[archive.title].append(
                _instance(number, series, instance, patient_id, name, character_set)
            )


def _instance(
    number: int,
    series: int,
    instance: int,
    patient_id: str,
    name: str,
    character_set: str = "ISO_IR 100",
) -> Dataset:
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.SpecificCharacterSet = character_set.split("\\")
    found.SOPClassUID = SecondaryCaptureImageStorage
    found.StudyInstanceUID = f"{ROOT}.{number}"
    found.SeriesInstanceUID = f"{ROOT}.{number}.{series + 1}"
    found.SOPInstanceUID = f"{ROOT}.{number}.{series + 1}.{instance + 1}"
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    found.StudyDate = f"20{number % 25:02}{1 + number % 12:02}{1 + number % 28:02}"
    found.StudyTime = f"{number % 24:02}0000"
    found.StudyID = str(number)
    found.AccessionNumber = f"A{number}"
    found.StudyDescription = f"STUDY {number}"
    found.Modality = ("CT", "MR", "US")[series]
    found.SeriesNumber = series + 1
    found.InstanceNumber = instance + 1
    found.PatientName = name
    found.PatientID = patient_id
    found.SamplesPerPixel = 1
    found.PhotometricInterpretation = "MONOCHROME2"
    found.Rows = found.Columns = 4
    found.BitsAllocated = found.BitsStored = 8
    found.HighBit, found.PixelRepresentation = 7, 0
    found.PixelData = bytes((number + 16 * instance + i) % 251 for i in range(16))
    return found


def data_sets(directory: Path) -> dict[str, bytes]:
    """The bytes of the data sets of Part 10 files in a folder, by SOP Instance UID."""
    found = {}
    for path in directory.iterdir():
        content = path.read_bytes()
        if content[128:132] == b"DICM":
            uid = str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
            found[uid] = data_set_of(content)
    return found
