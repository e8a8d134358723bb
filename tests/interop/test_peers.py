"""The peers themselves, among each other: what other tests build on holds without Relay."""

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from tests.interop import peers

CT = Path(str(get_testdata_file("CT_small.dcm", download=False)))
CT_UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"


async def test_storescp_keeps_the_data_set_byte_for_byte(tmp_path: Path) -> None:
    async with peers.storescp(tmp_path / "out") as peer:
        (await peers.echoscu(peer)).check()
        (await peers.storescu(peer, CT, options=["-R"])).check()
        [stored] = peer.stored()
        # storescu leaves out the trailing padding (FFFC,FFFC) that the file has.
        assert peers.data_set_of(stored)[-1000:] in peers.data_set_of(CT)
    assert peer.process.returncode is not None


async def test_dcmqrscp_stores_finds_and_gets(tmp_path: Path) -> None:
    async with peers.dcmqrscp(tmp_path / "archive") as peer:
        (await peers.storescu(peer, CT, options=["-R"])).check()
        found = (
            await peers.findscu(peer, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientID")
        ).check()
        assert "1CT1" in found.output
        study = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
        await peers.getscu(
            peer, tmp_path / "got", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"
        )
        assert len(list((tmp_path / "got").iterdir())) == 1


async def test_orthanc_stores_and_says_so_over_rest(tmp_path: Path) -> None:
    async with peers.orthanc(tmp_path / "orthanc") as peer:
        (await peers.echoscu(peer)).check()
        (await peers.storescu(peer, CT, options=["-R"])).check()
        assert list(await peer.instances()) == [CT_UID]


async def test_pynetdicom_stores_and_finds(tmp_path: Path) -> None:
    async with peers.pynetdicom_scp(tmp_path / "out", "--answers", "3") as peer:
        (await peers.echoscu(peer)).check()
        (await peers.pynetdicom("storescu", peer, str(CT), calling="STORESCU")).check()
        assert (tmp_path / "out" / f"{CT_UID}.dataset").exists()
        found = (await peers.findscu(peer, "QueryRetrieveLevel=STUDY", "PatientID")).check()
        assert "ANSWER000003" in found.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--reject", "2,3,1"), "Temporary Congestion"),
        (("--abort", "accept"), "Abort"),
        (("--only", "1.2.840.10008.5.1.4.1.1.2"), "No Acceptable Presentation Contexts"),
    ],
)
async def test_pynetdicom_misbehaves_as_told(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    async with peers.pynetdicom_scp(tmp_path / "out", *options) as peer:
        result = await peers.echoscu(peer)
        assert result.status != 0
        assert words in result.output


async def test_peer_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(peers.PeerError, match="unrecognized arguments"):
        async with peers.pynetdicom_scp(tmp_path / "out", "--nonsense"):
            pytest.fail("it started")
