import json
import time
from pathlib import Path

import pytest

from relay import scu
from relay.cli.associate import associate, status_in_words
from relay.cli.context import Invocation
from relay.cli.control import NotRunning
from relay.dicom.pdu import AAssociateRJ
from relay.errors import AssociationRejected
from tests.cli.conftest import Behind, FakeProcess
from tests.cli.scp import Device, listening
from tests.cli.test_send import write

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
VERIFICATION = "1.2.840.10008.1.1"


async def test_the_router_itself_calls_one_syntax_to_a_context(stopped: FakeProcess) -> None:
    pairs = [(CT, EXPLICIT), (CT, JPEG), (MR, EXPLICIT)]
    async with (
        listening(Device(refused_classes=frozenset({MR})), stopped.folder / "data") as device,
        associate(Invocation(None, stopped.configuration), "SOUTH_PACS", pairs) as associated,
    ):
        assert set(associated.contexts) == {(CT, EXPLICIT), (CT, JPEG)}
    (rq,) = device.requests
    assert (rq.calling, rq.called) == ("NORTH", "SOUTH_PACS")
    assert [context.id for context in rq.contexts] == [1, 3, 5]


async def test_a_rejection_is_an_error_in_words(stopped: FakeProcess) -> None:
    async with listening(Device(rejects=AAssociateRJ(1, 1, 7)), stopped.folder / "data"):
        with pytest.raises(AssociationRejected, match="called AE title not recognized"):
            async with associate(Invocation(None, stopped.configuration), "X", [(CT, EXPLICIT)]):
                pass


async def test_an_error_in_the_block_aborts(stopped: FakeProcess) -> None:
    async with listening(Device(), stopped.folder / "data"):
        with pytest.raises(ZeroDivisionError):
            await _echo_and_fail(stopped)


async def _echo_and_fail(router: FakeProcess) -> None:
    pair = (VERIFICATION, EXPLICIT)
    async with associate(Invocation(None, router.configuration), "X", [pair]) as associated:
        assert await scu.echo(associated.association, associated.contexts[pair]) == 0
        raise ZeroDivisionError


async def test_a_router_that_is_down_says_how_to_start_it(stopped: FakeProcess) -> None:
    with pytest.raises(NotRunning, match="relay --mode router"):
        async with associate(Invocation(None, stopped.configuration), "X", [(CT, EXPLICIT)]):
            pass


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0x0000, "0000H, success"),
        (0xB007, "B007H, stored, with a warning"),
        (0xA702, "A702H, refused"),
        (0xC123, "C123H, cannot understand"),
        (0x0124, "0124H, not authorised"),
        (0x0199, "0199H, failure"),
    ],
)
def test_a_status_has_its_number_and_words(status: int, words: str) -> None:
    assert status_in_words(status) == words


def test_a_rejection_says_what_the_router_knows(router: FakeProcess, behind: Behind) -> None:
    why = "South has granted this Router nothing of SOUTH_PACS"
    late = time.time() + 60
    refusal = {"time": late, "calling": "NORTH", "called": "SOUTH_PACS", "why": why}
    others = [refusal | {"called": "OTHER", "why": "no"}, refusal | {"calling": "WS", "why": "no"}]
    router.will("GET", "/v1/refusals", [*others, refusal])
    with behind(Device(rejects=AAssociateRJ(1, 1, 3))):
        result = router.relay("echo", "SOUTH_PACS")
    assert (result.exit_code, result.stderr) == (1, f"relay: {why}\n")


@pytest.mark.parametrize("known", [True, False])
def test_what_is_aborted_has_the_same_words(
    router: FakeProcess, behind: Behind, tmp_path: Path, known: bool
) -> None:
    why = "the association was aborted: PUT answered 403"
    late = time.time() + 60
    refusal = {"time": late, "calling": "NORTH", "called": "SOUTH_PACS", "why": why}
    router.will("GET", "/v1/refusals", [refusal] if known else [])
    way = {"queued": False, "calling": "NORTH", "last": 0}
    router.will("GET", "/v1/queue/mode?called=SOUTH_PACS", way)
    file = write(tmp_path, "1.dcm")
    with behind(Device(aborts_at="1.2.1")):
        result = router.relay("send", "SOUTH_PACS", str(file), "--json")
    (failure,) = json.loads(result.stdout)["failures"]
    assert failure["why"] == why if known else failure["why"].endswith("`relay doctor` says more")


def test_a_rejection_that_nobody_knows_more_of(router: FakeProcess, behind: Behind) -> None:
    router.will("GET", "/v1/refusals", [])
    with behind(Device(rejects=AAssociateRJ(1, 1, 1))):
        result = router.relay("find", "SOUTH_PACS", "PatientID=1")
    words = "rejected permanently: no reason given; `relay doctor` says more"
    assert result.stderr == f"relay: {words}\n"
