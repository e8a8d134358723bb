"""The deadlines of an association, by a clock that stands still between the steps."""

from math import inf

import pytest

from relay.dicom.statemachine import State
from relay.patience import Patience, Timeouts

TIMEOUTS = Timeouts(association_request=7, association_answer=9, release=5, artim=13, idle=11)


@pytest.mark.parametrize(
    ("state", "seconds", "words"),
    [
        (State.STA5, 9, "no answer to A-ASSOCIATE-RQ in 9 s"),
        (State.STA6, 11, "idle for 11 s"),
        (State.STA7, 5, "no answer to A-RELEASE-RQ in 5 s"),
        (State.STA10, 5, "no answer to A-RELEASE-RQ in 5 s"),
        (State.STA11, 5, "no answer to A-RELEASE-RQ in 5 s"),
    ],
)
def test_each_state_has_its_wait(state: State, seconds: int, words: str) -> None:
    patience = Patience(TIMEOUTS, State.STA1, 0)
    patience.moved(state, 100)
    assert patience.deadline == 100 + seconds
    assert patience.missing(99 + seconds) == ""
    assert patience.missing(100 + seconds) == words


@pytest.mark.parametrize("state", [State.STA1, State.STA3, State.STA8, State.STA9, State.STA12])
def test_where_it_is_for_us_to_speak_nothing_is_missing(state: State) -> None:
    patience = Patience(TIMEOUTS, state, 0)
    assert patience.deadline == inf
    assert patience.missing(1e9) == ""


def test_only_idleness_counts_from_the_last_movement() -> None:
    patience = Patience(TIMEOUTS, State.STA7, 0)
    patience.moved(State.STA7, 4)
    assert patience.deadline == 5  # a peer that drips has no more time than one that is silent
    patience.moved(State.STA6, 10)
    patience.moved(State.STA6, 15)
    assert patience.deadline == 26


def test_without_an_idle_limit_an_association_rests_for_ever() -> None:
    assert Patience(Timeouts(), State.STA6, 0).deadline == inf


@pytest.mark.parametrize(
    ("state", "seconds", "words"),
    [(State.STA2, 7, "no A-ASSOCIATE-RQ within 7 s"), (State.STA13, 13, "")],
)
def test_artim_runs_until_it_is_stopped(state: State, seconds: int, words: str) -> None:
    patience = Patience(TIMEOUTS, State.STA1, 0)
    patience.start_artim(state, 100)
    patience.moved(state, 100)
    assert patience.deadline == 100 + seconds
    assert not patience.artim_expired(99 + seconds)
    assert patience.artim_expired(100 + seconds)
    assert patience.missing(100 + seconds) == words
    patience.stop_artim()
    assert patience.deadline == inf
    assert not patience.artim_expired(1e9)
