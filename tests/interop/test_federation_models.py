"""Archives that take one information model only, and a query that comes round (PS3.4 §C.6).

STUDIES takes Study Root, PATIENTS takes Patient Root; both refuse what is not of it. They hold what
NORTH and EAST do elsewhere.
"""

import json
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.interop import archives, peers
from tests.interop.archives import EAST, NORTH, UNIQUE_KEYS, Archive, Holdings
from tests.interop.federated import FEDERATION, SITE_WAIT, VIEWER, Asked, find_by_pynetdicom
from tests.network import LOOPBACK, Network, network

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

STUDIES, PATIENTS = "STUDIES", "PATIENTS"

RETURNED = {
    "PATIENT": ["PatientID", "PatientName"],
    "STUDY": ["StudyInstanceUID", "PatientID", "StudyDate"],
    "SERIES": ["SeriesInstanceUID", "Modality"],
}


async def test_each_archive_is_asked_by_the_model_that_it_takes(tmp_path: Path) -> None:
    holdings = archives.make(60)
    holdings.write(tmp_path / "made")
    with trio.fail_after(300):
        async with (
            peers.pynetdicom_archive(
                tmp_path / STUDIES,
                *("--serve", str(tmp_path / "made" / NORTH.title), "--model", "study"),
                ae_title=STUDIES,
            ) as studies,
            peers.pynetdicom_archive(
                tmp_path / PATIENTS,
                *("--serve", str(tmp_path / "made" / EAST.title), "--model", "patient"),
                ae_title=PATIENTS,
            ) as patients,
            network(tmp_path / "net", "A", "B", router={"federation.site_wait": SITE_WAIT}) as net,
        ):
            for title, peer, archive in ((STUDIES, studies, NORTH), (PATIENTS, patients, EAST)):
                options = ["--issuer", archive.issuer, "--character-set", archive.character_set]
                await net.publish("A", title, peer.port, "query", "--federation", *options)
            await net.device("A", VIEWER)
            await both_answer(net, holdings)
            await one_cannot_be_asked(net, holdings)
            await a_query_that_comes_round_ends(net, holdings)


async def find(net: Network, level: str, keys: dict[str, str]) -> Asked:
    """By Patient Root at the PATIENT level, by Study Root below."""
    target = net.address("A", FEDERATION)
    ask = partial(find_by_pynetdicom, target, level, keys, RETURNED[level], VIEWER)
    return await trio.to_thread.run_sync(ask)


def assert_answers(
    asked: Asked, holdings: Holdings, level: str, keys: dict[str, str], *there: Archive
) -> None:
    """Those of these archives, each once."""
    rows = asked.rows(UNIQUE_KEYS[level], RETURNED[level])
    expected = holdings.find(level, keys, RETURNED[level], there)
    assert expected, keys
    assert rows == {("", identity): row for (_, identity), row in expected.items()}, (level, keys)


async def both_answer(net: Network, holdings: Holdings) -> None:
    """Several studies are one patient; and studies of one patient are those of both archives."""
    split = next(uid for uid in holdings.split if uid in holdings.studies_of("NORTH", "EAST"))
    patient = str(next(iter(holdings.instances(StudyInstanceUID=split).values())).PatientID)
    for level, keys in (
        ("PATIENT", {"PatientID": "P*"}),
        ("PATIENT", {"PatientName": "SHARED*"}),
        ("STUDY", {"PatientID": "S1"}),
        ("SERIES", {"PatientID": patient, "StudyInstanceUID": split}),
    ):
        asked = await find(net, level, keys)
        assert (asked.status, asked.comment) == (0, ""), (level, keys)
        assert_answers(asked, holdings, level, keys, NORTH, EAST)


async def one_cannot_be_asked(net: Network, holdings: Holdings) -> None:
    """By Patient Root, for studies of no patient in particular: it is named, and why is told."""
    keys = {"StudyDate": "20000101-"}
    asked = await find(net, "STUDY", keys)
    assert asked.status & 0xF000 == 0xC000
    assert asked.comment == f"incomplete: {PATIENTS} unable"
    assert_answers(asked, holdings, "STUDY", keys, NORTH)
    assert "it takes Patient Root only, which needs one Patient ID" in net.routers["A"].output()


async def a_query_that_comes_round_ends(net: Network, holdings: Holdings) -> None:
    """Hospital B publishes hospital A's federation as a device of its own, and A may ask it.

    Its query comes back, asks B again, and so on, until the line before ROUND is full.
    """
    b = net.routers["B"]
    await b.stop()
    lines = [*b.configuration.read_text().splitlines(), f"federation.ae_title = {json.dumps('B')}"]
    b.configuration.write_text("\n".join(lines) + "\n")
    await b.start()
    port = str(net.routers["A"].port)
    added = ("device", "add", FEDERATION, LOOPBACK, port, "--publish", "query", "--as", "ROUND")
    await b.relay(*added)
    await net.grant(owner="B", grantee="A", ae_title="ROUND", services="query")
    keys = {"PatientID": "S1"}
    with trio.fail_after(60):
        asked = await find(net, "STUDY", keys)
    assert asked.comment == "incomplete: ROUND slow"
    assert_answers(asked, holdings, "STUDY", keys, NORTH, EAST)
