from pathlib import Path
from typing import Any

import pytest
import trio

from relay.dicom import uids
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Tag, request
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import PDV
from relay.errors import Outcome
from relay.router.federation.find import comment_on, serve_find
from relay.router.federation.responding import Responder
from relay.router.federation.settings import Merging, OnIncomplete
from relay.router.federation.site import Said
from relay.router.federation.sources import Source
from tests.router.fakes import FakeAssociation
from tests.router.federation.catalogues import Catalogue, federated, study
from tests.router.federation.datasets import EXPLICIT, IMPLICIT, dataset, decoded, encoded

LIMIT = 20
ONE, TWO = study("1.1", PatientID="7"), study("1.2", PatientID="7")
KEYS = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "PatientID": "7"}


class Asking:
    """A C-FIND-RQ of a device, and what it is answered."""

    def __init__(self, syntax: str = EXPLICIT, **keys: Any) -> None:
        self.near = FakeAssociation()
        context = AcceptedContext(3, uids.STUDY_ROOT_FIND, syntax)
        command = request(CommandField.C_FIND_RQ, 5, uids.STUDY_ROOT_FIND)
        self.responder = Responder(self.near, trio.Lock(), [context], context, command)
        self.identifier = encoded(dataset(**(KEYS | keys)), syntax)
        self.syntax = syntax

    def heard(self) -> tuple[list[str], CommandSet]:
        """The studies, and the final response."""
        reader, studies = CommandReader({3}), []
        for atom in self.near.sent:
            assert isinstance(atom, PDV)
            reader.feed(atom)
            if not atom.is_command:
                studies.append(str(decoded(bytes(atom.fragment), self.syntax).StudyInstanceUID))
            assert reader.command is not None
            assert reader.command.message_id_responded_to == 5
        assert reader.command is not None
        assert not reader.message_open
        return studies, reader.command


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("answers", Merging)
async def test_answers_and_success(tmp_path: Path, syntax: str, answers: Merging) -> None:
    asking = Asking(syntax)
    sites = {"A": Catalogue([ONE]), "B": Catalogue([ONE, TWO])}
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, sites, answers=answers) as (federation, caller):
            await serve_find(federation, caller, asking.responder, asking.identifier)
    studies, final = asking.heard()
    assert sorted(studies) == ["1.1", "1.2"]
    assert final.status == 0
    assert final.text(Tag.ERROR_COMMENT) is None
    assert asking.responder.finished.is_set()


@pytest.mark.parametrize(
    ("on_incomplete", "status"), [(OnIncomplete.FAILURE, 0xC001), (OnIncomplete.SUCCESS, 0)]
)
async def test_incomplete_is_said(tmp_path: Path, on_incomplete: OnIncomplete, status: int) -> None:
    asking = Asking()
    sites = {"A": Catalogue([ONE]), "B": Catalogue([TWO], status=0xA700)}
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, sites, on_incomplete=on_incomplete) as (federation, caller):
            await serve_find(federation, caller, asking.responder, asking.identifier)
    studies, final = asking.heard()
    assert sorted(studies) == ["1.1", "1.2"]
    assert final.status == status
    assert final.text(Tag.ERROR_COMMENT) == ("incomplete: B refused" if status else None)


async def test_our_own_command_line_always_hears_what_is_missing(tmp_path: Path) -> None:
    asking = Asking()
    sites = {"A": Catalogue([ONE]), "B": Catalogue([TWO], status=0xA700)}
    success = OnIncomplete.SUCCESS
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, sites, on_incomplete=success) as (federation, _):
            await serve_find(federation, None, asking.responder, asking.identifier)
    assert asking.heard()[1].status == 0xC001


async def test_nobody_to_ask(tmp_path: Path) -> None:
    asking = Asking()
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {}) as (federation, caller):
            await serve_find(federation, caller, asking.responder, asking.identifier)
    studies, final = asking.heard()
    assert (studies, final.status) == ([], 0xC002)
    assert final.text(Tag.ERROR_COMMENT) == "no device may be asked"


@pytest.mark.parametrize(
    ("keys", "status", "words"),
    [
        ({"QueryRetrieveLevel": ""}, 0xA900, "Level"),
        ({"PatientID": "*"}, 0xC000, "narrows"),
    ],
)
async def test_refused_before_anybody_is_asked(
    tmp_path: Path, keys: dict[str, str], status: int, words: str
) -> None:
    asking, a = Asking(**keys), Catalogue([ONE])
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": a}) as (federation, caller):
            await serve_find(federation, caller, asking.responder, asking.identifier)
    _, final = asking.heard()
    assert final.status == status
    assert words in (final.text(Tag.ERROR_COMMENT) or "")
    assert a.callings == []


async def test_cancelled(tmp_path: Path) -> None:
    asking, a = Asking(), Catalogue([ONE], silent_after=1)
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": a}, answers=Merging.STREAMED) as (federation, caller),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(serve_find, federation, caller, asking.responder, asking.identifier)
            await asking.near.got(2)
            await a.silent.wait()
            asking.responder.cancel()
            await asking.responder.finished.wait()
    studies, final = asking.heard()
    assert studies == ["1.1"]
    assert final.status == 0xFE00
    assert a.cancels == 1


@pytest.mark.parametrize("answers", Merging)
async def test_cancelled_in_one_breath_with_the_request(tmp_path: Path, answers: Merging) -> None:
    asking, a = Asking(), Catalogue([ONE, TWO])
    asking.responder.cancel()
    with trio.fail_after(LIMIT):
        async with federated(tmp_path, {"A": a}, answers=answers) as (federation, caller):
            await serve_find(federation, caller, asking.responder, asking.identifier)
    studies, final = asking.heard()
    assert (studies, final.status) == ([], 0xFE00)


def said(title: str, outcome: Outcome) -> Said:
    return Said(Source(title, title, "here", None, True), outcome, "why")


COMMENTS = [
    ([], ""),
    ([said("PACS_B", Outcome.UNREACHABLE)], "incomplete: PACS_B unreachable"),
    (
        [said("PACS_B", Outcome.UNREACHABLE), said("PACS_C", Outcome.CAPPED)],
        "incomplete: PACS_B unreachable; PACS_C capped",
    ),
    (
        [said(f"ARCHIVE_{n}", Outcome.UNREACHABLE) for n in range(9)],
        "incomplete: ARCHIVE_0 unreachable; ARCHIVE_1 unreachable; 7 more",
    ),
    ([said("PÄCS", Outcome.SLOW)], "incomplete: P?CS slow"),
]


@pytest.mark.parametrize(("incomplete", "comment"), COMMENTS)
def test_the_comment_names_as_many_as_fit(incomplete: list[Said], comment: str) -> None:
    assert comment_on(incomplete) == comment
    assert len(comment) <= 64


@pytest.mark.parametrize("outcome", Outcome)
def test_the_longest_title_fits(outcome: Outcome) -> None:
    words = comment_on([said("X" * 16, outcome)] * 1000)
    assert words.startswith(f"incomplete: {'X' * 16} ")
    assert len(words) <= 64
