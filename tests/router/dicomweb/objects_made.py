"""Objects for an archive in memory: data sets as they are stored, small ones and real ones."""

from typing import Any

import pydicom
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.router.federation.archives import CT, IMPLICIT, Stored

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.50"
SR = "1.2.840.10008.5.1.4.1.1.88.11"
STREAMS = [b"\xff\xd8" + bytes([number]) * 100 + b"\xff\xd9" for number in (1, 2, 3)]


def encode(data_set: pydicom.Dataset, transfer_syntax: str = EXPLICIT) -> bytes:
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, transfer_syntax == IMPLICIT
    write_dataset(file, data_set)
    return file.getvalue()


def data_set(study: str, series: str, uid: str, **values: Any) -> pydicom.Dataset:
    """An image of two by three bytes, or of what `values` say."""
    made = pydicom.Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.SOPClassUID, made.SOPInstanceUID = CT, uid
    made.PatientName, made.PatientID = "Buc^Jérôme", "7"
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = 2, 3
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = made.PixelRepresentation = 0
    for name, value in values.items():
        setattr(made, name, value)
    return made


def plain(study: str, series: str, uid: str, frames: int = 3, syntax: str = EXPLICIT) -> Stored:
    """Uncompressed frames of six bytes each, from 0."""
    made = data_set(study, series, uid, NumberOfFrames=frames)
    made.PixelData = bytes(n % 256 for n in range(6 * frames))
    made["PixelData"].VR = "OB" if syntax == EXPLICIT else "OW"
    return Stored(study, series, uid, CT, syntax, encode(made, syntax))


def jpeg(study: str, series: str, uid: str) -> Stored:
    """The frames STREAMS, compressed as it were."""
    made = data_set(study, series, uid, NumberOfFrames=len(STREAMS))
    made.PixelData = encapsulate(STREAMS)
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return Stored(study, series, uid, CT, JPEG, encode(made))


def report(study: str, series: str, uid: str) -> Stored:
    """No image."""
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = SR, uid
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    item = pydicom.Dataset()
    item.TextValue = "nothing to be seen"
    made.ContentSequence = [item]
    return Stored(study, series, uid, SR, EXPLICIT, encode(made))
