"""Identifiers as pydicom writes and reads them: another's view of the same bytes."""

import io
import warnings
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

EXPLICIT, IMPLICIT = EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN


def dataset(**values: Any) -> Dataset:
    """Attributes by keyword."""
    made = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wildcards and ranges are no plain values
        for keyword, value in values.items():
            setattr(made, keyword, value)
    return made


def encoded(made: Dataset, transfer_syntax: str = EXPLICIT) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = transfer_syntax == IMPLICIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_dataset(buffer, made)
    return buffer.getvalue()


def decoded(data: bytes, transfer_syntax: str = EXPLICIT) -> Dataset:
    """Read whole, strictly."""
    mode = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        read = read_dataset(io.BytesIO(data), transfer_syntax == IMPLICIT, True)
        read.decode()
        for _ in read.iterall():
            pass
        return read
    finally:
        pydicom.config.settings.reading_validation_mode = mode
