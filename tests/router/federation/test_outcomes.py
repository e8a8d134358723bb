from relay.errors import RelayError
from relay.router.federation.outcomes import Outcome, SourceFailed, is_incomplete


def test_what_a_caller_may_not_use_is_no_gap() -> None:
    whole = {outcome for outcome in Outcome if not is_incomplete(outcome)}
    assert whole == {Outcome.COMPLETE, Outcome.NOT_GRANTED}


def test_a_failure_says_how() -> None:
    error = SourceFailed("it is switched off", Outcome.UNREACHABLE)
    assert isinstance(error, RelayError)
    assert (str(error), error.outcome) == ("it is switched off", Outcome.UNREACHABLE)
