from relay.errors import RelayError
from relay.router.federation.outcomes import Outcome, SourceFailed, is_incomplete, told_of


def test_what_a_caller_may_not_use_is_no_gap() -> None:
    whole = {outcome for outcome in Outcome if not is_incomplete(outcome)}
    assert whole == {Outcome.COMPLETE, Outcome.NOT_GRANTED}


def test_a_failure_says_how() -> None:
    error = SourceFailed("it is switched off", Outcome.UNREACHABLE)
    assert isinstance(error, RelayError)
    assert (str(error), error.outcome) == ("it is switched off", Outcome.UNREACHABLE)


def test_a_device_is_named_once() -> None:
    """What relays to it has named it already."""
    assert told_of("PACS_B", "no answer") == "PACS_B: no answer"
    assert told_of("PACS_B", "PACS_B of South is busy") == "PACS_B of South is busy"
    assert told_of("PACS", "PACS_B of South is busy") == "PACS: PACS_B of South is busy"
