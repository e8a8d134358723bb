"""The cause of a refusal, by the very words that the Router says."""

import pytest

from relay.errors import Refusal as Word
from relay.router.causes import Cause, cause_of
from relay.router.refusals import ABORTED, NO_CONNECTION, NO_DEVICE, NOT_ENROLLED, explained
from relay.signalling.messages import EndReason
from relay.tunnel.verdict import words


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        (f"'CT' {NO_DEVICE}", Cause.NO_DEVICE),
        ("'CT' calls from 192.0.2.1, which is not its host", Cause.OTHER_ADDRESS),
        (f"{NOT_ENROLLED}: `relay enroll INVITATION` first", Cause.NOT_ENROLLED),
        (f"{NO_CONNECTION}: no route", Cause.NO_CONNECTION),
        ("called AE title 'X' is not published; `relay peer list`", Cause.NOT_PUBLISHED),
        ("'X' belongs to a peer whose contact was never verified", Cause.UNTRUSTED),
        (f"{ABORTED}: by X of South", Cause.ABORTED),
        ("more sessions than one Router may hold", Cause.OTHER),
    ],
)
def test_words_of_this_router(why: str, cause: Cause) -> None:
    assert cause_of(why) is cause


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (words(EndReason.NOT_GRANTED), Cause.NOT_GRANTED),
        (words(EndReason.CALLEE_OFFLINE), Cause.PEER_OFFLINE),
        (words(Word.UNTRUSTED_PEER), Cause.UNTRUSTED),
        (words(Word.BUSY), Cause.DEVICE_BUSY),
    ],
)
def test_words_of_another_hospital(said: str, cause: Cause) -> None:
    assert cause_of(explained(f"ended: {said}", "South", "PACS", "CT")) is cause


def test_a_move_destination_is_a_cause_of_its_own() -> None:
    assert cause_of(f"'CT' {NO_DEVICE}", "WS") is Cause.DESTINATION
