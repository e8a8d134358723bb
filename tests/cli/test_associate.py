import time

import pytest

from relay import scu
from relay.cli.associate import associate, status_in_words
from relay.cli.context import Invocation
from relay.cli.control import NotRunning
from relay.dicom.pdu import AAssociateRJ
from relay.errors import AssociationRejected
from tests.cli.conftest import Behind, FakeProcess
from tests.cli.scp import Device, listening

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
    router.will("GET", "/v1/refusals", [refusal | {"called": "OTHER", "why": "no"}, refusal])
    with behind(Device(rejects=AAssociateRJ(1, 1, 3))):
        result = router.relay("echo", "SOUTH_PACS")
    assert (result.exit_code, result.stderr) == (1, f"relay: {why}\n")
