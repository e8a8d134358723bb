"""Worklist, MPPS, commitment, print and their like, with others' software at both ends.

Every message of both devices is compared at both of their sockets, byte for byte. What only one
association carries is here; what comes back on another one is with the C-MOVE.
"""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pydicom
import pytest
from pydicom.uid import UID, generate_uid

from relay.dicom.dimse import CommandField, CommandSet, Tag
from tests.hospitals import ct_image
from tests.interop import peers
from tests.interop.both_sockets import Granted, Hospitals, assert_carried, hospitals
from tests.interop.kept import kept
from tests.interop.worklists import write_worklist
from tests.tap import Message, messages

PRIVATE_STORAGE = "private:1.3.6.1.4.1.99999.1.1"
PRIVATE_OPERATIONS = "private:1.3.6.1.4.1.99999.1.2"
PRINT = "private:1.2.840.10008.5.1.1.9"  # Basic Grayscale Print Management Meta
AVAILABILITY = "private:1.2.840.10008.5.1.4.33"  # Instance Availability Notification

SERVICES = ["echo", "worklist", "mpps", "commit"]
SERVICES += [PRINT, AVAILABILITY, PRIVATE_STORAGE, PRIVATE_OPERATIONS]

ORTHANC_WORKLISTS = "/usr/share/orthanc/plugins/libModalityWorklists.so"

ANSWER = ("PatientName", "SpecificCharacterSet", "ScheduledProcedureStepSequence[0].Modality")

# What makes DCMTK's storescu propose a class that it does not know.
DCMTK_PROFILE = """
[[TransferSyntaxes]]
[Plain]
TransferSyntax1 = LittleEndianExplicit
[[PresentationContexts]]
[Contexts]
PresentationContext1 = {sop_class}\\Plain
[[Profiles]]
[PRIVATE]
PresentationContexts = Contexts
"""


@attrs.frozen(slots=True)
class Devices:
    """The two hospitals, and those devices that a test looks into."""

    at: Hospitals
    printer: peers.Peer
    orthanc: peers.OrthancPeer  # of hospital A


@asynccontextmanager
async def devices(directory: Path) -> AsyncIterator[Devices]:
    worklist = directory / "worklist"
    worklist.mkdir()
    write_worklist(worklist)
    settings = {
        "Plugins": [ORTHANC_WORKLISTS],
        "Worklists": {"Enable": True, "Database": str(worklist)},
        "DicomAlwaysAllowFindWorklist": True,
    }
    callers = ["FINDSCU", "STORESCU", "PYSCU", "DCMPRSCU", "ORTHANC_A"]
    async with (
        peers.wlmscpfs(directory / "wlmscpfs") as wlmscpfs,
        peers.pynetdicom_services(directory / "services") as services,
        peers.dcmprscp(directory / "printer") as printer,
        peers.storescp(directory / "storescp") as storescp,
        peers.orthanc(
            directory / "orthanc_b",
            ae_title="ORTHANC_B",
            settings=settings,
            modalities=[peers.Address(104, "PYSCU")],
        ) as orthanc_b,
    ):
        shutil.copytree(worklist, wlmscpfs.directory, dirs_exist_ok=True)
        called: dict[str, tuple[peers.Target, list[str]]] = {
            "WORKLIST": (wlmscpfs, ["worklist"]),
            "SERVICES": (services, SERVICES),
            "DCMPRSCP": (printer, [PRINT]),
            "STORESCP": (storescp, [PRIVATE_STORAGE]),
            "ORTHANC_B": (orthanc_b, ["worklist", "commit", PRIVATE_STORAGE]),
        }
        grants = [Granted(title, words) for title, (_, words) in called.items()]
        async with (
            hospitals(directory, called, callers, grants) as at,
            peers.orthanc(
                directory / "orthanc_a",
                ae_title="ORTHANC_A",
                modalities=[at.net.address("A", title) for title in called],
            ) as orthanc_a,
        ):
            yield Devices(at, printer, orthanc_a)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    with kept(lambda: devices(tmp_path_factory.mktemp("services"))) as there:
        yield there


def fields(sent: list[Message]) -> list[CommandField]:
    return [CommandField(CommandSet.decode(message.command).command_field) for message in sent]


# --- Modality Worklist --------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["WORKLIST", "ORTHANC_B"])
async def test_worklist_of_dcmtk_and_orthanc(there: Devices, provider: str) -> None:
    """No, one and all answers to DCMTK, pynetdicom and Orthanc, as the provider encoded them."""
    for patient, count in (("NOBODY", 0), ("P1", 1), ("", 3)):
        keys = (*ANSWER, f"PatientID={patient}")
        async with there.at.watch(provider) as seen:
            (await peers.findscu(seen.address, *keys, options=["-W"])).check()
            assert_carried(seen)
            assert len(seen.near_tap.data_sets_answered()) == count
        async with there.at.watch(provider) as seen:
            options = [part for key in keys for part in ("-k", key)]
            (
                await peers.pynetdicom("findscu", seen.address, "-W", *options, calling="PYSCU")
            ).check()
            assert_carried(seen)
            assert len(seen.near_tap.data_sets_answered()) == count
        before = len(there.at.taps[provider].associations)
        query = {"PatientName": "", "PatientID": patient, "SpecificCharacterSet": ""}
        found = await there.orthanc.call(provider, "find-worklist", query)
        assert len(found) == count
        assert len(there.at.taps[provider].associations) == before + 1


async def test_worklist_of_pynetdicom(there: Devices) -> None:
    """No, one and a thousand answers to DCMTK, three to pynetdicom: each in its character set."""
    for count in (0, 1, 1000):
        async with there.at.watch("SERVICES") as seen:
            keys = (*ANSWER, f"AccessionNumber={count}")
            (await peers.findscu(seen.address, *keys, options=["-W"])).check()
            assert_carried(seen)
            assert len(seen.near_tap.data_sets_answered()) == count
    async with there.at.watch("SERVICES") as seen:
        options = [part for key in (*ANSWER, "AccessionNumber=3") for part in ("-k", key)]
        (await peers.pynetdicom("findscu", seen.address, "-W", *options, calling="PYSCU")).check()
        assert_carried(seen)
        answers = b"".join(seen.near_tap.data_sets_answered())
    for name in ("Jörg".encode("latin-1"), "Ελένη".encode(), b"\x1b$B;3ED\x1b(B"):
        assert name in answers


async def test_a_worklist_query_is_cancelled(there: Devices) -> None:
    """The C-CANCEL comes on the same association (PS3.7 §9.3.2.3).

    pynetdicom waits for it here; the others may have given all their answers when it comes.
    """
    for provider, before in (("SERVICES", 3), ("WORKLIST", 1), ("ORTHANC_B", 1)):
        async with there.at.watch(provider) as seen:
            keys = (*ANSWER, "AccessionNumber=CANCEL") if provider == "SERVICES" else ANSWER
            options = ["-W", "--cancel", str(before)]
            (await peers.findscu(seen.address, *keys, options=options)).check()
            asked = assert_carried(seen)
            assert fields(asked) == [CommandField.C_FIND_RQ, CommandField.C_CANCEL_RQ]
            *pending, final = [message.status for message in seen.answered()]
            assert set(pending) == {0xFF00}
            assert final == 0xFE00 or (final == 0x0000 and provider != "SERVICES")


# --- Modality Performed Procedure Step ----------------------------------------------------------


async def test_procedure_step_is_made_changed_reported_and_read(there: Devices) -> None:
    """N-CREATE with a UID and without, N-SET twice, N-EVENT-REPORT, N-GET: both directions."""
    async with there.at.watch("SERVICES") as seen:
        steps = await peers.pynetdicom_scu("mpps", seen.address, calling="PYSCU")
        asked = assert_carried(seen)
    once = ["N-CREATE", "N-SET IN PROGRESS", "N-SET COMPLETED", "N-EVENT-REPORT", "N-GET"]
    assert [step["step"] for step in steps] == 2 * once
    assert {step.get("status", 0) for step in steps} == {0}
    for at in (0, 5):
        assert steps[at]["instance"] == steps[at + 3]["instance"]
        assert steps[at + 4]["found"] == "COMPLETED"
    creations = [
        CommandSet.decode(message.command)
        for message in asked
        if fields([message]) == [CommandField.N_CREATE_RQ]
    ]
    given = [command.text(Tag.AFFECTED_SOP_INSTANCE_UID) for command in creations]
    assert given == [steps[0]["instance"], None]  # the second is the other side's to name


# --- Storage Commitment -------------------------------------------------------------------------


async def test_commitment_is_reported_on_the_same_association(there: Devices) -> None:
    async with there.at.watch("SERVICES") as seen:
        steps = await peers.pynetdicom_scu("commitment", seen.address, calling="PYSCU")
        asked = assert_carried(seen)
    assert [step["step"] for step in steps] == ["N-ACTION", "N-EVENT-REPORT"]
    assert fields(asked) == [CommandField.N_ACTION_RQ, CommandField.N_EVENT_REPORT_RSP]


async def test_orthanc_asks_for_commitment(there: Devices) -> None:
    """It leaves after the N-ACTION: only a new association can bring it the report."""
    before = len(there.at.taps["SERVICES"].associations)
    image = ct_image()
    await there.orthanc.upload(image.path)
    instances = [{"SOPClassUID": image.sop_class, "SOPInstanceUID": image.sop_instance}]
    body = {"DicomInstances": instances, "Timeout": 5}
    await there.orthanc.call("SERVICES", "storage-commitment", body)
    (tapped,) = there.at.taps["SERVICES"].associations[before:]
    asked = list(messages(bytes(tapped.requested)))
    assert fields(asked)[0] == CommandField.N_ACTION_RQ
    assert next(messages(bytes(tapped.answered))).status == 0


async def test_orthanc_takes_a_request_for_commitment(there: Devices) -> None:
    """Its report comes on a new association."""
    async with there.at.watch("ORTHANC_B") as seen:
        steps = await peers.pynetdicom_scu(
            "commitment", seen.address, "--no-reports", calling="PYSCU"
        )
        assert_carried(seen)
    assert steps == [{"step": "N-ACTION", "status": 0}]


# --- Print --------------------------------------------------------------------------------------

FILM = [
    "N-CREATE film session",
    "N-CREATE film box",
    "N-SET image box",
    "N-ACTION",
    "N-GET printer",
    "N-DELETE",
    "N-DELETE again",
]


async def test_film_is_printed_by_pynetdicom(there: Devices) -> None:
    """The whole Basic Grayscale Print Management Meta SOP Class (PS3.4 §H.3.2.2.1)."""
    async with there.at.watch("SERVICES") as seen:
        steps = await peers.pynetdicom_scu("film", seen.address, calling="PYSCU")
        assert_carried(seen)
    assert [step["step"] for step in steps] == [*FILM[:4], "N-EVENT-REPORT", *FILM[4:]]
    assert [step["status"] for step in steps if "status" in step] == [0] * 6 + [0x0112]
    async with there.at.watch("DCMPRSCP") as seen:
        steps = await peers.pynetdicom_scu("film", seen.address, "--no-reports", calling="PYSCU")
        assert_carried(seen)
    assert [step["step"] for step in steps] == FILM
    assert [step["status"] for step in steps] == [0] * 6 + [0x0112]


async def test_film_is_printed_by_dcmtk(there: Devices, tmp_path: Path) -> None:
    printed = len(list(there.printer.directory.glob("HG_*.dcm")))
    for provider in ("DCMPRSCP", "SERVICES"):
        async with there.at.watch(provider) as seen:
            directory = tmp_path / provider
            (await peers.dcmprscu(seen.address, ct_image().path, directory)).check()
            asked = fields(assert_carried(seen))
        if provider == "SERVICES":  # DCMTK answers to what the printer reports
            asked.remove(CommandField.N_EVENT_REPORT_RSP)
        assert asked == [
            CommandField.N_GET_RQ,
            CommandField.N_CREATE_RQ,
            CommandField.N_CREATE_RQ,
            CommandField.N_SET_RQ,
            CommandField.N_ACTION_RQ,
            CommandField.N_DELETE_RQ,
            CommandField.N_DELETE_RQ,
        ]
    assert len(list(there.printer.directory.glob("HG_*.dcm"))) == printed + 1


# --- without a name of their own ----------------------------------------------------------------


async def test_instance_availability_is_told(there: Devices) -> None:
    async with there.at.watch("SERVICES") as seen:
        steps = await peers.pynetdicom_scu("availability", seen.address, calling="PYSCU")
        assert_carried(seen)
    assert steps == [{"step": "N-CREATE", "status": 0}]


async def test_private_operations_of_every_kind(there: Devices) -> None:
    async with there.at.watch("SERVICES") as seen:
        steps = await peers.pynetdicom_scu("private", seen.address, calling="PYSCU")
        asked = assert_carried(seen)
    assert [step["status"] for step in steps] == [0] * 5 + [0x0112]
    assert steps[2]["found"] == "made by nobody"
    assert fields(asked) == [
        CommandField.N_CREATE_RQ,
        CommandField.N_SET_RQ,
        CommandField.N_ACTION_RQ,
        CommandField.N_GET_RQ,
        CommandField.N_DELETE_RQ,
        CommandField.N_DELETE_RQ,
    ]


@pytest.mark.parametrize("provider", ["SERVICES", "STORESCP", "ORTHANC_B"])
async def test_private_instances_are_stored(there: Devices, provider: str, tmp_path: Path) -> None:
    """By pynetdicom, by DCMTK with a profile that names the class, and by Orthanc."""
    image = pydicom.dcmread(ct_image().path)
    image.SOPClassUID = UID(PRIVATE_STORAGE.removeprefix("private:"))
    image.SOPInstanceUID = generate_uid()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    file, profile = tmp_path / "private.dcm", tmp_path / "profile.cfg"
    image.save_as(file)
    profile.write_text(DCMTK_PROFILE.format(sop_class=image.SOPClassUID))
    async with there.at.watch(provider) as seen:
        steps = await peers.pynetdicom_scu(
            "instance", seen.address, "--file", str(file), calling="PYSCU"
        )
        assert steps == [{"step": "C-STORE", "status": 0}]
        options = ["-xf", str(profile), "PRIVATE"]
        (await peers.storescu(seen.address, file, options=options)).check()
        asked = assert_carried(seen)
    assert fields(asked) == [CommandField.C_STORE_RQ] * 2
    stored = await there.orthanc.upload(file)
    before = len(there.at.taps[provider].data_sets_requested())
    sent = await there.orthanc.call(provider, "store", {"Resources": [stored]})
    assert sent["FailedInstancesCount"] == 0
    assert len(there.at.taps[provider].data_sets_requested()) == before + 1
