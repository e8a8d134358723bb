from pathlib import Path

import pytest

from relay.cli.demo import devices
from relay.cli.demo.devices import DCMTK, PynetdicomApplications, installed, studies_in
from relay.cli.demo.processes import DemoError


@pytest.mark.parametrize(
    "output",
    [
        "I: (0020,000d) UI [1.2.3.4]   #  8, 1 StudyInstanceUID\nI: (0020,000d) UI (no value)\n",
        "I: (0020,000D) Study Instance UID                  UI: 1.2.3.4\n",
    ],
)
def test_studies_are_read_from_both_makers_output(output: str) -> None:
    assert studies_in(output) == {"1.2.3.4"}


def test_dcmtk_is_preferred_and_either_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.shutil, "which", lambda program, path: f"/usr/bin/{program}")
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name)
    assert isinstance(installed(), DCMTK)
    assert isinstance(installed("pynetdicom"), PynetdicomApplications)
    monkeypatch.setattr(devices.shutil, "which", lambda program, path: None)
    assert isinstance(installed(), PynetdicomApplications)
    with pytest.raises(DemoError, match="no devices to show this with"):
        installed("DCMTK")


def test_programs_of_dcmtk_are_not_those_that_pynetdicom_installs_by_the_same_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("own", "debian"):
        (tmp_path / folder).mkdir()
        for program in DCMTK.PROGRAMS:
            (tmp_path / folder / program).touch(mode=0o755)
    monkeypatch.setattr(devices.sysconfig, "get_path", lambda name: str(tmp_path / "own"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'own'}:{tmp_path / 'debian'}")
    commands = [
        DCMTK().archive(tmp_path / "a", "A", 1, ("R", 2)),
        DCMTK().workstation(tmp_path / "w", "W", 1),
        DCMTK().echo("A", "B", 1),
        DCMTK().find_studies("A", "B", 1),
        DCMTK().get_study("A", "B", 1, "1.2", tmp_path),
    ]
    assert {Path(command[0]).parent for command in commands} == {tmp_path / "debian"}
