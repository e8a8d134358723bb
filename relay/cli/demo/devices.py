"""The demonstration's devices: DCMTK's where it is installed, else pynetdicom's applications.

Both are real DICOM implementations that know nothing of Relay, run as processes.
"""

import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from relay.cli.demo.processes import DemoError


class Tools(Protocol):
    """Command lines of one maker's devices. All speak to 127.0.0.1."""

    name: str
    bit_preserving: bool  # whether its workstation keeps data sets as they came

    def archive(
        self, folder: Path, ae_title: str, port: int, destination: tuple[str, int]
    ) -> list[str]:
        """A PACS: C-ECHO, C-STORE, C-FIND, C-GET, C-MOVE. It keeps objects under `folder`.

        `destination` is the one Move Destination that it knows, by AE title and port.
        """

    def workstation(self, folder: Path, ae_title: str, port: int) -> list[str]:
        """C-ECHO and C-STORE; it keeps objects in `folder`."""

    def echo(self, calling: str, called: str, port: int) -> list[str]:
        """C-ECHO."""

    def find_studies(self, calling: str, called: str, port: int) -> list[str]:
        """C-FIND of all studies."""

    def get_study(self, calling: str, called: str, port: int, study: str, to: Path) -> list[str]:
        """C-GET of one study into the folder `to`."""

    def move_study(self, calling: str, called: str, port: int, study: str) -> list[str]:
        """C-MOVE of one study to `calling` itself."""


class DCMTK:
    """OFFIS DCMTK (Debian package `dcmtk`)."""

    name = "DCMTK"
    bit_preserving = True
    PROGRAMS = ("dcmqrscp", "storescp", "echoscu", "findscu", "getscu", "movescu")

    def archive(
        self, folder: Path, ae_title: str, port: int, destination: tuple[str, int]
    ) -> list[str]:
        objects = folder / "objects"
        objects.mkdir(parents=True)
        configuration = folder / "dcmqrscp.cfg"
        configuration.write_text(
            f"NetworkTCPPort = {port}\n"
            "MaxPDUSize = 131072\n"
            "MaxAssociations = 16\n"
            f"HostTable BEGIN\nrouter = ({destination[0]}, 127.0.0.1, {destination[1]})\n"
            "HostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{ae_title} {objects} RW (500, 1024mb) ANY\nAETable END\n"
        )
        return [_dcmtk("dcmqrscp"), "--config", str(configuration), "--bit-preserving", "--verbose"]

    def workstation(self, folder: Path, ae_title: str, port: int) -> list[str]:
        folder.mkdir(parents=True)
        return [
            *(_dcmtk("storescp"), "--bit-preserving", "--accept-all", "--aetitle", ae_title),
            *("--output-directory", str(folder), str(port)),
        ]

    def echo(self, calling: str, called: str, port: int) -> list[str]:
        return [_dcmtk("echoscu"), *_call(calling, called), "127.0.0.1", str(port)]

    def find_studies(self, calling: str, called: str, port: int) -> list[str]:
        return [
            *(_dcmtk("findscu"), "-S", *_call(calling, called)),
            *("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", "-k", "PatientName"),
            *("127.0.0.1", str(port)),
        ]

    def get_study(self, calling: str, called: str, port: int, study: str, to: Path) -> list[str]:
        to.mkdir(parents=True, exist_ok=True)
        return [
            *(_dcmtk("getscu"), "-S", "--bit-preserving", *_call(calling, called)),
            *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"),
            *("--output-directory", str(to), "127.0.0.1", str(port)),
        ]

    def move_study(self, calling: str, called: str, port: int, study: str) -> list[str]:
        return [
            *(_dcmtk("movescu"), "-S", *_call(calling, called), "-aem", calling),
            *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"),
            *("127.0.0.1", str(port)),
        ]


class PynetdicomApplications:
    """The applications that come with pynetdicom (`pip install pynetdicom[apps]`)."""

    name = "pynetdicom"
    bit_preserving = False

    def archive(
        self, folder: Path, ae_title: str, port: int, destination: tuple[str, int]
    ) -> list[str]:
        folder.mkdir(parents=True)
        configuration = folder / "qrscp.ini"
        configuration.write_text(
            "[DEFAULT]\n"
            f"ae_title: {ae_title}\nport: {port}\nmax_pdu: 131072\n"
            "acse_timeout: 30\ndimse_timeout: 30\nnetwork_timeout: 60\n"
            f"bind_address: 127.0.0.1\n"
            f"instance_location: {folder / 'objects'}\n"
            f"database_location: {folder / 'objects.sqlite'}\n"
            f"[{destination[0]}]\naddress: 127.0.0.1\nport: {destination[1]}\n"
        )
        return [*_application("qrscp"), "--config", str(configuration), "-v"]

    def workstation(self, folder: Path, ae_title: str, port: int) -> list[str]:
        folder.mkdir(parents=True)
        return [
            *(*_application("storescp"), str(port), "-aet", ae_title, "-ba", "127.0.0.1"),
            *("-od", str(folder)),
        ]

    def echo(self, calling: str, called: str, port: int) -> list[str]:
        return [*_application("echoscu"), "127.0.0.1", str(port), *_call(calling, called)]

    def find_studies(self, calling: str, called: str, port: int) -> list[str]:
        return [
            *(*_application("findscu"), "127.0.0.1", str(port), "-S", *_call(calling, called)),
            *("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=", "-k", "PatientName="),
        ]

    def get_study(self, calling: str, called: str, port: int, study: str, to: Path) -> list[str]:
        to.mkdir(parents=True, exist_ok=True)
        return [
            *(*_application("getscu"), "127.0.0.1", str(port), "-S", *_call(calling, called)),
            *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"),
            *("-od", str(to)),
        ]

    def move_study(self, calling: str, called: str, port: int, study: str) -> list[str]:
        return [
            *(*_application("movescu"), "127.0.0.1", str(port), "-S", *_call(calling, called)),
            *("-aem", calling, "-k", "QueryRetrieveLevel=STUDY"),
            *("-k", f"StudyInstanceUID={study}"),
        ]


def studies_in(output: str) -> set[str]:
    """The Study Instance UIDs (0020,000D) in what `find_studies` printed, of either maker."""
    return set(re.findall(r"\(0020,000[dD]\).*?(\d+(?:\.\d+)+)", output))


def _call(calling: str, called: str) -> Sequence[str]:
    return "-v", "-aet", calling, "-aec", called


def _path() -> str:
    """Where DCMTK may be: the PATH, without the folder of this interpreter's own scripts.

    pynetdicom installs programs by the same names there.
    """
    # Debian keeps no program of DCMTK outside of the PATH, but a service's PATH may be short.
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    own = sysconfig.get_path("scripts")
    return os.pathsep.join(folder for folder in folders if folder != own)


def _dcmtk(program: str) -> str:
    return shutil.which(program, path=_path()) or program


def _application(name: str) -> Sequence[str]:
    return sys.executable, "-m", "pynetdicom", name


def installed(wanted: str | None = None) -> Tools:
    """The devices that this machine has, or those `wanted` by name. Raises DemoError if none."""
    has_dcmtk = all(shutil.which(program, path=_path()) for program in DCMTK.PROGRAMS)
    has_pynetdicom = all(map(importlib.util.find_spec, ("pynetdicom", "sqlalchemy")))
    if has_dcmtk and wanted in (None, DCMTK.name):
        return DCMTK()
    if has_pynetdicom and wanted in (None, PynetdicomApplications.name):
        return PynetdicomApplications()
    raise DemoError(
        f"no devices to show this with ({wanted or 'DCMTK or pynetdicom'}):"
        " apt-get install dcmtk, or pip install 'pynetdicom[apps]'"
    )
