"""PS3.8 Table 9-10, written down a second time and compared cell by cell."""

import pytest

from relay.dicom import statemachine
from relay.dicom.statemachine import TRANSITIONS, Action, Event, State

# Rows Evt1 to Evt19, columns Sta1 to Sta13; action/next state, as the Table prints them.
TABLE_9_10 = """
AE-1/4 .      .      .      .      .      .      .         .      .       .      .      .
.      .      .      AE-2/5 .      .      .      .         .      .       .      .      .
.      AA-1/13 AA-8/13 .    AE-3/6 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
.      AA-1/13 AA-8/13 .    AE-4/1 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
AE-5/2 .      .      .      .      .      .      .         .      .       .      .      .
.      AE-6/3/13 AA-8/13 . AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-7/13
.      .      AE-7/6 .      .      .      .      .         .      .       .      .      .
.      .      AE-8/13 .     .      .      .      .         .      .       .      .      .
.      .      .      .      .      DT-1/6 .      AR-7/8    .      .       .      .      .
.      AA-1/13 AA-8/13 .   AA-8/13 DT-2/6 AR-6/7 AA-8/13   AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
.      .      .      .      .      AR-1/7 .      .         .      .       .      .      .
.      AA-1/13 AA-8/13 .   AA-8/13 AR-2/8 AR-8/9/10 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
.      AA-1/13 AA-8/13 .   AA-8/13 AA-8/13 AR-3/1 AA-8/13  AA-8/13 AR-10/12 AR-3/1 AA-8/13 AA-6/13
.      .      .      .      .      .      .      AR-4/13   AR-9/11 .      .      AR-4/13 .
.      .      AA-1/13 AA-2/1 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 .
.      AA-2/1 AA-3/1 .      AA-3/1 AA-3/1 AA-3/1 AA-3/1    AA-3/1 AA-3/1  AA-3/1 AA-3/1 AA-2/1
.      AA-5/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1    AA-4/1 AA-4/1  AA-4/1 AA-4/1 AR-5/1
.      AA-2/1 .      .      .      .      .      .         .      .       .      .      AA-2/1
.      AA-1/13 AA-8/13 .   AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-7/13
"""

GRID = {
    (event, state): cell
    for event, row in zip(Event, TABLE_9_10.strip().splitlines(), strict=True)
    for state, cell in zip(State, row.split(), strict=True)
}


def test_the_grid_is_whole() -> None:
    assert len(GRID) == 19 * 13
    assert len([cell for cell in GRID.values() if cell != "."]) == 123


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_each_cell(event: Event, state: State) -> None:
    action = TRANSITIONS.get((event, state))
    if action is None:
        assert GRID[event, state] == "."
        return
    outcomes = [action.outcome] + ([action.other] if action.other else [])
    next_states = "/".join(outcome.next_state.value.removeprefix("Sta") for outcome in outcomes)
    assert GRID[event, state] == f"{action.name}/{next_states}"


def test_all_28_actions_are_there_and_used() -> None:
    actions = {a.name for a in vars(statemachine).values() if isinstance(a, Action)}
    families = {"AE": 8, "DT": 2, "AR": 10, "AA": 8}
    assert actions == {f"{name}-{n + 1}" for name, count in families.items() for n in range(count)}
    assert {action.name for action in TRANSITIONS.values()} == actions


def test_constants_are_named_as_their_actions() -> None:
    for constant, action in vars(statemachine).items():
        if isinstance(action, Action):
            assert constant == action.name.replace("-", "_")


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        del TRANSITIONS[Event.EVT1, State.STA1]  # type: ignore[attr-defined]
