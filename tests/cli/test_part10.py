from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from relay.cli import part10
from relay.cli.part10 import Part10File
from relay.errors import RelayError

META = b"\0" * 128 + b"DICM"


def element(number: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 2, explicit VR little endian."""
    return (
        b"\x02\x00" + number.to_bytes(2, "little") + vr + len(value).to_bytes(2, "little") + value
    )


UIDS = (
    element(0x02, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
    element(0x03, b"UI", b"1.2.3.4\0"),
    element(0x10, b"UI", b"1.2.840.10008.1.2\0"),
)
GROUP_LENGTH = element(0x00, b"UL", len(b"".join(UIDS)).to_bytes(4, "little"))
DATA = b"\x08\x00\x05\x00\x04\x00\x00\x00ISO "


def write(folder: Path, content: bytes, name: str = "file.dcm") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("length", [b"", GROUP_LENGTH])
def test_the_meta_is_read_and_the_data_set_located(tmp_path: Path, length: bytes) -> None:
    meta = META + length + b"".join(UIDS)
    path = write(tmp_path, meta + DATA)
    assert part10.read(path) == Part10File(
        path, "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", "1.2.840.10008.1.2", len(meta), len(DATA)
    )


def test_a_data_set_that_looks_like_meta_is_told_by_the_group_length(tmp_path: Path) -> None:
    deflated = b"\x02\x00\x99\x00UI\x02\x001\0"
    path = write(tmp_path, META + GROUP_LENGTH + b"".join(UIDS) + deflated)
    assert part10.read(path).size == len(deflated)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm"])
async def test_real_files_give_the_bytes_behind_their_meta(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    file = part10.read(Path(path))
    meta = pydicom.dcmread(path).file_meta
    assert file.pair == (meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    assert file.sop_instance == meta.MediaStorageSOPInstanceUID
    expected = Path(path).read_bytes()[144 + meta.FileMetaInformationGroupLength :]
    assert b"".join([block async for block in file.data_set()]) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a DICOM file"),
        (b"\0" * 200, "not a DICOM file"),
        (META, "names no SOP class"),
        (META + UIDS[0] + UIDS[2] + DATA, "names no SOP instance"),
        (META + UIDS[0] + UIDS[1] + DATA, "names no transfer syntax"),
        (META + element(2, b"UI", b"../x") + UIDS[1] + UIDS[2] + DATA, "names no SOP class"),
        (META + b"".join(UIDS), "has 0 bytes"),
        (META + b"".join(UIDS) + DATA + b"x", "has an even length"),
        (
            META + element(2, b"UI", b"1.2.840.10008.1.3.10") + UIDS[1] + UIDS[2] + DATA,
            "DICOMDIR",
        ),
        (META + GROUP_LENGTH + UIDS[0][:-3], "names no"),
    ],
)
def test_what_cannot_be_sent_is_said_in_one_line(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(RelayError, match=words) as caught:
        part10.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(RelayError, match="No such file"):
        part10.read(tmp_path / "none")


async def test_a_deflated_stream_of_odd_length_is_padded() -> None:
    path = get_testdata_file("image_dfl.dcm", download=False)
    assert isinstance(path, str)
    file = part10.read(Path(path))
    assert file.size % 2 == 1
    data = b"".join([block async for block in file.data_set()])
    assert len(data) == file.size + 1
    assert data[-1:] == b"\0"


async def test_a_file_that_shrinks_meanwhile_is_noticed(tmp_path: Path) -> None:
    file = part10.read(write(tmp_path, META + b"".join(UIDS) + DATA))
    file.path.write_bytes(META)
    with pytest.raises(RelayError, match="shorter"):
        [block async for block in file.data_set()]


def test_folders_are_walked_in_order(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a/3", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in part10.walk([tmp_path])]
    assert found == ["c", "a/3", "b/1", "b/2"]
    assert list(part10.walk([tmp_path / "c"])) == [tmp_path / "c"]


def file_of_kind(number: int) -> Part10File:
    return Part10File(Path(), f"1.2.{number}", "1.2.3", "1.2.840.10008.1.2", 0, 2)


def test_one_association_takes_128_kinds_and_any_number_of_files() -> None:
    assert part10.batches([]) == []
    assert len(part10.batches([file_of_kind(n % 128) for n in range(1000)])) == 1
    kinds = [file_of_kind(n) for n in range(300)]
    cut = part10.batches(kinds)
    assert [len(batch) for batch in cut] == [128, 128, 44]
    assert [file for batch in cut for file in batch] == kinds
