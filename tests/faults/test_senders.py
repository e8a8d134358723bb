"""Senders and devices against each other, with nothing between: what one says the other tallies."""

from pathlib import Path

import pydicom
import pytest

from tests.faults.devices import TallyingDevice, tallying_device
from tests.faults.links import link
from tests.faults.senders import Ledger, Pace, Way, dcmtk_way, own_way, send_all
from tests.faults.specimens import Specimen, specimens
from tests.interop.peers import Address

pytestmark = pytest.mark.interop


def test_specimens_are_the_same_each_time_and_all_different(tmp_path: Path) -> None:
    made = specimens(1, 50)
    assert [s.sha256() for s in specimens(1, 50)] == [s.sha256() for s in made]
    assert len({s.uid for s in made}) == 50
    assert len({s.transfer_syntax for s in made}) > 4
    for specimen in made:
        specimen.write(tmp_path / "specimen.dcm")
        read = pydicom.dcmread(tmp_path / "specimen.dcm")
        assert read.SOPInstanceUID == read.file_meta.MediaStorageSOPInstanceUID == specimen.uid
        assert read.SOPClassUID == specimen.sop_class


async def sent(way: Way, made: list[Specimen]) -> Ledger:
    ledger, pace = Ledger(), Pace()
    pace.let(len(made))
    await send_all(way, made, ledger, pace, seed=1)
    return ledger


def assert_all_there(device: TallyingDevice, made: list[Specimen], ledger: Ledger) -> None:
    arrivals = device.arrivals()
    assert ledger.answered.keys() == {s.uid for s in made} == arrivals.keys()
    for specimen in made:
        kept = [arrival for arrival in arrivals[specimen.uid] if arrival.kept]
        assert {arrival.sha256 for arrival in kept} == {ledger.sent[specimen.uid]}


async def test_a_good_device(tmp_path: Path) -> None:
    made = specimens(2, 40)
    async with tallying_device(tmp_path, "DEVICE") as device:
        ledger = await sent(own_way(device.peer, "SENDER"), made)
        assert_all_there(device, made, ledger)
    assert ledger.statuses == {"0000": 40}
    assert not ledger.unanswered


async def test_a_bad_device(tmp_path: Path) -> None:
    made = specimens(3, 40)
    options = (
        *("--answer", "A700:0.2:2", "--answer", "B007:0.2:1", "--abort", "0.2:2"),
        *("--reject", "0.2", "--slow", "0.01", "--seed", "4"),
    )
    async with tallying_device(tmp_path, "DEVICE", *options) as device:
        ledger = await sent(own_way(device.peer, "SENDER"), made)
        assert_all_there(device, made, ledger)
        arrivals = [arrival for of in device.arrivals().values() for arrival in of]
    assert {"0000", "A700", "B007"} <= ledger.statuses.keys()
    assert ledger.ends["lost"] > 0
    assert ledger.ends["rejected"] > 0
    aborted = [arrival for arrival in arrivals if arrival.status is None]
    assert len(aborted) == ledger.unanswered.total()
    assert {arrival.kept for arrival in aborted} == {True, False}


async def test_storescu_behind_a_link(tmp_path: Path) -> None:
    made = specimens(5, 30, uncompressed=True)
    options = ("--answer", "A700:0.2:1", "--abort", "0.1:1")
    async with tallying_device(tmp_path, "DEVICE", *options) as device:
        target = Address(device.port, device.ae_title)
        async with link(target, record=True) as recorded:
            way = dcmtk_way(recorded, "DEVICE", "STORESCU", tmp_path / "files")
            ledger = await sent(way, made)
        assert_all_there(device, made, ledger)
    assert {"0000", "A700"} == ledger.statuses.keys()
    assert ledger.unanswered.total() >= 1
