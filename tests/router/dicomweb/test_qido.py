"""Searches over a real port, of archives that answer C-FINDs."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.dataset import Dataset
from structlog.testing import capture_logs

from relay.dicom.dimse import Status
from tests.router.dicomweb.served import served
from tests.router.federation.catalogues import Catalogue, federated, study
from tests.router.federation.datasets import dataset


def values(row: dict[str, Any], tag: str) -> Any:
    return row[tag].get("Value")


def first(answer: httpx.Response, tag: str) -> list[Any]:
    assert answer.status_code == 200, answer.text
    return [values(row, tag)[0] for row in answer.json()]


def series(study_uid: str, uid: str, number: int) -> Dataset:
    return dataset(
        QueryRetrieveLevel="SERIES",
        StudyInstanceUID=study_uid,
        SeriesInstanceUID=uid,
        SeriesNumber=number,
        Modality="CT",
    )


def instance(study_uid: str, series_uid: str, uid: str, number: int) -> Dataset:
    return dataset(
        QueryRetrieveLevel="IMAGE",
        StudyInstanceUID=study_uid,
        SeriesInstanceUID=series_uid,
        SOPInstanceUID=uid,
        InstanceNumber=number,
    )


STUDIES = [
    study("1.1", PatientName="Buc^Jérôme", PatientID="7", StudyDate="20200101"),
    study("1.2", PatientName="Doe^Jane", PatientID="7", StudyDate="20220101", StudyTime="10"),
    study("1.3", PatientName="Doe^Jane", PatientID="7", StudyDate="2022.01.01", StudyTime="11:30"),
]


async def test_studies_of_all_devices_are_one_list_the_newest_first(tmp_path: Path) -> None:
    catalogues = {"A": Catalogue(STUDIES[:2]), "B": Catalogue(STUDIES[1:])}
    async with federated(tmp_path, catalogues) as (federation, _), served(federation) as web:
        answer = await web.get("/FEDERATION/rs/studies?PatientID=7", "application/dicom+json")
        assert first(answer, "0020000D") == ["1.3", "1.2", "1.1"]
        assert answer.headers["content-type"] == "application/dicom+json"
        assert "warning" not in answer.headers
        row = answer.json()[2]
        assert values(row, "00100010") == [{"Alphabetic": "Buc^Jérôme"}]
        assert values(row, "00080005") == ["ISO_IR 192"]
        assert values(row, "00080054") == ["FEDERATION"]
        url = f"http://127.0.0.1:{web.port}/aets/FEDERATION/rs/studies/1.1"
        assert values(row, "00081190") == [url]
        assert "00080052" not in row
        assert list(row) == sorted(row)
        heard = catalogues["A"].heard[0]
        assert heard.PatientID == "7"
        assert catalogues["A"].callings == [federation.node.ae_title]


async def test_one_device_alone(tmp_path: Path) -> None:
    catalogues = {"A": Catalogue(STUDIES[:1]), "B": Catalogue(STUDIES[1:])}
    async with federated(tmp_path, catalogues) as (federation, _), served(federation) as web:
        answer = await web.get("/A/rs/studies?PatientID=7")
        assert first(answer, "0020000D") == ["1.1"]
        assert values(answer.json()[0], "00080054") == ["A"]
        assert not catalogues["B"].heard
        unknown = await web.get("/C/rs/studies?PatientID=7")
        assert (unknown.status_code, "no AE title 'C'" in unknown.text) == (404, True)


async def test_pages_follow_on_each_other(tmp_path: Path) -> None:
    async with (
        federated(tmp_path, {"A": Catalogue(STUDIES)}) as (federation, _),
        served(federation) as web,
    ):
        found = []
        for offset in range(3):
            path = f"/FEDERATION/rs/studies?PatientID=7&limit=1&offset={offset}"
            answer = await web.get(path)
            found += first(answer, "0020000D")
            left = 2 - offset
            warned = f"There are {left} additional results" in answer.headers.get("warning", "")
            assert warned == bool(left)
        assert found == ["1.3", "1.2", "1.1"]
        beyond = await web.get("/FEDERATION/rs/studies?PatientID=7&offset=3")
        assert (beyond.status_code, beyond.content) == (204, b"")


async def test_who_has_not_answered_is_named(tmp_path: Path) -> None:
    catalogues = {"A": Catalogue(STUDIES[:1]), "B": Catalogue(status=Status.OUT_OF_RESOURCES)}
    async with federated(tmp_path, catalogues) as (federation, _), served(federation) as web:
        answer = await web.get("/FEDERATION/rs/studies?PatientID=7&fuzzymatching=true")
        assert first(answer, "0020000D") == ["1.1"]
        warning = answer.headers["warning"]
        assert "The results are incomplete: B: " in warning
        assert "The fuzzymatching parameter is not supported." in warning
        assert warning.startswith(f'299 http://127.0.0.1:{web.port}/aets/FEDERATION/rs "')


async def test_nothing_of_nobody_is_no_empty_list(tmp_path: Path) -> None:
    catalogue = Catalogue(accepts=False)
    async with federated(tmp_path, {"A": catalogue}) as (federation, _), served(federation) as web:
        answer = await web.get("/FEDERATION/rs/studies?PatientID=7")
        assert answer.status_code == 502
        assert answer.text.startswith("no device has answered: A: ")


async def test_series_and_instances(tmp_path: Path) -> None:
    answers = [
        series("1.1", "1.1.2", 2),
        series("1.1", "1.1.1", 1),
        instance("1.1", "1.1.1", "1.1.1.1", 1),
    ]
    catalogue = ByLevel(answers)
    async with federated(tmp_path, {"A": catalogue}) as (federation, _), served(federation) as web:
        studies = "/FEDERATION/rs/studies"
        found = await web.get(f"{studies}/1.1/series")
        assert first(found, "0020000E") == ["1.1.1", "1.1.2"]
        url = f"http://127.0.0.1:{web.port}/aets{studies}/1.1/series/1.1.1"
        assert first(found, "00081190")[0] == url
        found = await web.get(f"{studies}/1.1/series/1.1.1/instances")
        assert first(found, "00081190") == [f"{url}/instances/1.1.1.1"]
        # Those of all series have their series' attributes, too.
        found = await web.get(f"{studies}/1.1/instances?InstanceNumber=1")
        assert first(found, "00080060") == ["CT"]
        assert first(found, "00080018") == ["1.1.1.1"]
        for path in ("/FEDERATION/rs/series?", "/FEDERATION/rs/instances?SeriesInstanceUID=1.1.1&"):
            assert (await web.get(path + "StudyInstanceUID=1.1")).status_code == 200
            refused = await web.get(path + "Modality=CT")
            assert (refused.status_code, "needs one StudyInstanceUID" in refused.text) == (
                400,
                True,
            )


class ByLevel(Catalogue):
    """Answers of the level that is asked for only."""

    def _found(self) -> list[bytes]:
        level = self.heard[-1].QueryRetrieveLevel
        everything = self.answers
        self.answers = [row for row in everything if row.QueryRetrieveLevel == level]
        try:
            return super()._found()
        finally:
            self.answers = everything


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("studies", 400, "a key is needed that narrows the query"),
        ("studies?PatientNames=x", 400, "no attribute"),
        ("studies/x/series", 400, "the study in the URL is no UID"),
        ("studies/1.1/series/x/instances", 400, "the series in the URL is no UID"),
        ("nothing", 404, "no such resource"),
    ],
)
async def test_what_is_wrong_is_said(tmp_path: Path, path: str, status: int, words: str) -> None:
    async with (
        federated(tmp_path, {"A": Catalogue(STUDIES)}) as (federation, _),
        served(federation) as web,
    ):
        answer = await web.get(f"/FEDERATION/rs/{path}")
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
        refused = await web.get("/FEDERATION/rs/studies?PatientID=7", "application/dicom+xml")
        assert refused.status_code == 406


async def test_no_log_line_holds_what_was_searched_by_or_found(tmp_path: Path) -> None:
    async with (
        federated(tmp_path, {"A": Catalogue(STUDIES)}) as (federation, _),
        served(federation) as web,
    ):
        with capture_logs() as lines:
            path = "/FEDERATION/rs/studies?PatientID=7&PatientName=Doe*&includefield=PatientAge"
            assert (await web.get(path)).status_code == 200
            assert (await web.get("/FEDERATION/rs/studies?PatientNames=Doe")).status_code == 400
        shown = json.dumps(lines, default=str)
        assert "search studies" in shown
        assert "Doe" not in shown
        assert "PatientName" not in shown


async def test_a_token_of_a_device_calls_as_it(tmp_path: Path) -> None:
    catalogue = Catalogue(STUDIES)
    async with (
        federated(tmp_path, {"A": catalogue}) as (federation, caller),
        served(federation) as web,
    ):
        secret = await web.tokens.add("workstation", caller.ae_title, 0)
        async with await web.client(secret) as http:
            assert (await http.get("/FEDERATION/rs/studies?PatientID=7")).status_code == 200
            assert catalogue.callings == [caller.ae_title]
            await federation.node.remove_device(caller.ae_title)
            refused = await http.get("/FEDERATION/rs/studies?PatientID=7")
            assert (refused.status_code, "no device here any more" in refused.text) == (403, True)
