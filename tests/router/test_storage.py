"""The table of Storage SOP classes."""

import pytest

from relay.dicom import uids
from relay.router.storage import STORAGE_SOP_CLASSES


@pytest.mark.parametrize("sop_class", STORAGE_SOP_CLASSES)
def test_each_is_one(sop_class: str) -> None:
    assert uids.is_storage(sop_class)


def test_it_knows_the_common_ones() -> None:
    assert STORAGE_SOP_CLASSES["1.2.840.10008.5.1.4.1.1.2"] == "CT"
    assert len(STORAGE_SOP_CLASSES) > 150
