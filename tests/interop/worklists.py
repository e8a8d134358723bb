"""A worklist as files, as DCMTK's wlmscpfs and Orthanc's plugin read it."""

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

# The same worklist in three character sets (PS3.5 Annex H.3).
PATIENTS = (
    ("ISO_IR 100", "Müller^Jörg"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ("ISO_IR 192", "Ελένη^Παπαδοπούλου"),
)


def write_worklist(directory: Path) -> None:
    """One file `*.wl` for each of `PATIENTS`, with all that DCMTK insists on."""
    for number, (character_set, name) in enumerate(PATIENTS):
        entry, step = Dataset(), Dataset()
        entry.SpecificCharacterSet = character_set
        entry.PatientName = name
        entry.PatientID = f"P{number}"
        entry.AccessionNumber = f"A{number}"
        entry.StudyInstanceUID = f"1.2.3.{number}"
        entry.RequestedProcedureID = "R"
        entry.RequestedProcedureDescription = "CT"
        step.ScheduledStationAETitle = "MODALITY"
        step.Modality = "CT"
        step.ScheduledProcedureStepStartDate = "20260101"
        step.ScheduledProcedureStepStartTime = "080000"
        step.ScheduledProcedureStepID = "S"
        step.ScheduledProcedureStepDescription = "CT"
        entry.ScheduledProcedureStepSequence = [step]
        entry.file_meta = FileMetaDataset()
        entry.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        entry.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.31")
        entry.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{number}")
        pydicom.dcmwrite(directory / f"{number}.wl", entry, enforce_file_format=True)
