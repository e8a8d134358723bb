from relay.router.refusals import (
    DEVICE_BUSY,
    MAXIMUM_DESTINATIONS,
    MAXIMUM_REFUSALS,
    MAXIMUM_TITLE,
    Refusals,
    explained,
    is_not_granted,
)


def test_the_newest_come_first_and_the_oldest_go() -> None:
    refusals = Refusals()
    for number in range(MAXIMUM_REFUSALS + 1):
        refusals.note("WS", "PACS", str(number))
    kept = [refusal.why for refusal in refusals]
    assert kept == [str(number) for number in range(MAXIMUM_REFUSALS, 0, -1)]
    shown = {"time", "calling", "called", "why", "destination"}
    assert next(iter(refusals)).to_json().keys() == shown


def test_what_has_succeeded_since_is_forgotten() -> None:
    refusals = Refusals()
    for called in ("PACS", "OTHER", "PACS"):
        refusals.note("WS", called, "no")
    refusals.forget("CT", "PACS")
    assert len(list(refusals)) == 3
    refusals.forget("WS", "PACS")
    assert [refusal.called for refusal in refusals] == ["OTHER"]


def test_move_destinations_are_kept_apart_and_until_one_passes() -> None:
    refusals = Refusals()
    refusals.note_move("WS", "PACS", "X" * 100, "who?")
    for number in range(MAXIMUM_DESTINATIONS + 1):
        refusals.note_move("WS", "PACS", f"WS{number}", "no")
        refusals.note("CT", "PACS", "no device of this Router")
    kept = [refusal.destination for refusal in refusals if refusal.destination]
    assert kept == [f"WS{number}" for number in range(MAXIMUM_DESTINATIONS, 0, -1)]
    refusals.forget("WS", "PACS")  # a call is no C-MOVE
    refusals.forget_move("WS", "OTHER", "WS1")
    assert [refusal.destination for refusal in refusals if refusal.destination] == kept
    refusals.forget_move("WS", "PACS", "WS1")
    assert [refusal.destination for refusal in refusals if refusal.destination] == kept[:-1]
    refusals.note_move("WS", "PACS", "X" * 100, "who?")
    assert next(iter(refusals)).destination == "X" * MAXIMUM_TITLE


def test_what_the_far_router_says_is_explained_with_what_can_be_done() -> None:
    for said, words in (
        ("not granted", "`relay grant ask PACS --services …`"),
        ("callee offline", "South's Router is not connected to the Bridge"),
        ("busy", f"PACS of South {DEVICE_BUSY}"),
    ):
        assert words in explained(f"the far Router refuses: {said}", "South", "PACS", "CT")
    assert explained("no answer within 60 s", "South", "PACS", "CT") == ""
    assert is_not_granted("the far Router refuses: not granted")
    assert not is_not_granted("the far Router refuses: busy")
    assert not is_not_granted("")
