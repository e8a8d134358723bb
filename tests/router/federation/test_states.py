from relay.router.federation.states import MAXIMUM_STATES, MAXIMUM_WORDS, States


def test_the_last_word_counts_and_when_it_was_seen_stays() -> None:
    states = States()
    assert states.to_json("PACS") == {"last_seen": None, "last_error": None, "last_error_at": None}
    states.failed("PACS", "switched off" + "!" * MAXIMUM_WORDS)
    said = states.to_json("PACS")
    assert said["last_seen"] is None
    assert said["last_error"].startswith("switched off!")
    assert len(said["last_error"]) == MAXIMUM_WORDS
    assert said["last_error_at"] > 0
    states.seen("PACS")
    assert states.to_json("PACS")["last_error"] is None
    seen = states.to_json("PACS")["last_seen"]
    states.failed("PACS", "again")
    assert states.to_json("PACS")["last_seen"] == seen


def test_it_is_bounded() -> None:
    states = States()
    states.failed("FIRST", "no")
    states.failed("SECOND", "no")
    for number in range(MAXIMUM_STATES - 2):
        states.seen(str(number))
    states.seen("FIRST")
    states.seen("LAST")
    assert states.to_json("FIRST")["last_seen"]
    assert states.to_json("SECOND")["last_error"] is None
