"""The far hospital's archive: DCMTK's dcmqrscp, with a study of CT and one of small objects."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import attrs
import pydicom
from pydicom.uid import UID

from scripts.benchmark.links import Place
from scripts.benchmark.objects import Series
from scripts.benchmark.sending import storescu
from tests.hospital_networks.world import running
from tests.interop.peers import Address
from tests.ports import LOOPBACK

ARCHIVE = "ARCHIVE"

# As many objects as one C-FIND has answers for. (It takes no more than 500 studies.)
MANY = 1000

SMALL_STUDY = "2.25.1000"

QUERY_RETRIEVE_LEVEL = 0x00080052
SOP_INSTANCE, STUDY_INSTANCE, SERIES_INSTANCE = 0x00080018, 0x0020000D, 0x0020000E

CONFIGURATION = """\
MaxPDUSize = 131072
MaxAssociations = 64
HostTable BEGIN
{hosts}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ae_title} {storage} RW (10000, 65536mb) ANY
AETable END
"""


@attrs.frozen(slots=True)
class Archive:
    """It runs; `study` is the UID of the study of CT."""

    place: Place
    directory: Path
    port: int
    pid: int
    study: str

    def one_answer(self) -> bytes:
        """An identifier that one study answers to."""
        return _identifier((QUERY_RETRIEVE_LEVEL, "STUDY"), (STUDY_INSTANCE, self.study))

    async def add_many(self) -> None:
        """Give it MANY small objects. It looks through all that it has for each: that takes a
        while."""
        here = Address(self.port, ARCHIVE, LOOPBACK)
        await storescu(self.place, here, _small(self.directory / "small"))

    def many_answers(self) -> bytes:
        """An identifier that MANY objects answer to."""
        return _identifier(
            (SOP_INSTANCE, ""),
            (QUERY_RETRIEVE_LEVEL, "IMAGE"),
            (STUDY_INSTANCE, SMALL_STUDY),
            (SERIES_INSTANCE, f"{SMALL_STUDY}.1"),
        )

    def keys(self) -> list[str]:
        """The large study, in the words of DCMTK's requestors."""
        return ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={self.study}"]


@asynccontextmanager
async def archive(
    place: Place,
    directory: Path,
    port: int,
    series: Series,
    move_destinations: Mapping[str, Address],
) -> AsyncIterator[Archive]:
    """Run it at `place` and fill it; `move_destinations`: whom a C-MOVE may send to."""
    storage = directory / "storage"
    storage.mkdir(parents=True)
    hosts = [
        f"{title} = ({title}, {address.host}, {address.port})"
        for title, address in move_destinations.items()
    ]
    configuration = directory / "dcmqrscp.cfg"
    configuration.write_text(
        CONFIGURATION.format(hosts="\n".join(hosts), ae_title=ARCHIVE, storage=storage)
    )
    words = (*place.inside, "dcmqrscp", "-dhl", "+B", "-c", str(configuration), str(port))
    async with running(directory / "dcmqrscp.log", None, *words) as service:
        await service.listens(port)
        here = Address(port, ARCHIVE, LOOPBACK)
        await storescu(place, here, series.files)
        study = str(pydicom.dcmread(series.files[0], stop_before_pixels=True).StudyInstanceUID)
        yield Archive(place, directory, port, service.process.pid, study)


def _identifier(*elements: tuple[int, str]) -> bytes:
    """Implicit VR Little Endian (PS3.5 §7.1.3), in the order of the tags (PS3.5 §7.1)."""
    parts = []
    for tag, text in sorted(elements):
        value = text.encode()
        value += (b"\0" if text[:1].isdigit() else b" ") * (len(value) % 2)
        group, element = divmod(tag, 0x10000)
        parts += [group.to_bytes(2, "little"), element.to_bytes(2, "little")]
        parts += [len(value).to_bytes(4, "little"), value]
    return b"".join(parts)


def _small(directory: Path) -> Sequence[Path]:
    """MANY objects without an image, of one series."""
    directory.mkdir()
    source = pydicom.dcmread(str(resources.files("pydicom") / "data/test_files/CT_small.dcm"))
    del source.PixelData
    source.StudyInstanceUID, source.SeriesInstanceUID = SMALL_STUDY, f"{SMALL_STUDY}.1"
    files = []
    for number in range(1, MANY + 1):
        instance = UID(f"{SMALL_STUDY}.1.{number}")
        source.InstanceNumber = number
        source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = instance
        files.append(directory / f"{number:05}.dcm")
        source.save_as(files[-1])
    return files
