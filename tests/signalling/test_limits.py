"""The limits hold together: none of them makes another one void."""

from relay.signalling import limits
from relay.signalling.messages import (
    MAXIMUM_IN_LINE,
    MAXIMUM_MESSAGE,
    MAXIMUM_SESSIONS,
    MAXIMUM_STATEMENT,
)


def test_a_peer_within_its_credit_never_overflows() -> None:
    assert limits.MAXIMUM_WAITING_IN_LINE >= limits.IN_LINE_CREDIT_SESSION + MAXIMUM_IN_LINE
    assert limits.MAXIMUM_WAITING_SESSIONS > limits.IN_LINE_CREDIT_SOCKET
    # A sealed chunk is at least its header of 24 bytes, its tag of 16 and a record of several more.
    assert limits.IN_LINE_CREDIT_SESSION // 64 <= limits.MAXIMUM_WAITING_MESSAGES


def test_a_directory_message_fits_whatever_its_last_row() -> None:
    last = 2 * MAXIMUM_STATEMENT
    assert limits.MAXIMUM_DIRECTORY_BYTES + last < MAXIMUM_MESSAGE


def test_times_are_in_an_order_that_names_the_cause() -> None:
    timeouts = limits.Timeouts()
    assert timeouts.heartbeat * 3 <= timeouts.silence
    assert timeouts.write < timeouts.silence
    assert timeouts.first_pause < timeouts.longest_pause
    assert timeouts.held > 3 * timeouts.request
    assert timeouts.backend <= timeouts.request


def test_the_hub_bears_what_its_own_clients_do() -> None:
    assert limits.TOLERATED_REQUESTS > limits.MAXIMUM_REQUESTS
    assert limits.REMEMBERED_UNKNOWN >= MAXIMUM_SESSIONS
    assert limits.NOTICES_AT_ONCE > 10
