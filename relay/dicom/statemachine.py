"""The upper layer's state machine: PS3.8 Tables 9-6 to 9-10, as data and in their own names.

All transitions live here, and this file does not know which side we play or what a PDU looks like:
`upperlayer` asks `TRANSITIONS` for the action, carries out its steps and takes its next state.
A combination that is absent from `TRANSITIONS` is blank in Table 9-10.
"""

from collections.abc import Mapping
from enum import Enum, unique
from types import MappingProxyType

import attrs


@unique
class State(Enum):
    """PS3.8 Tables 9-1 to 9-5."""

    STA1 = "Sta1"  # Idle
    STA2 = "Sta2"  # Transport connection open (awaiting A-ASSOCIATE-RQ PDU)
    STA3 = "Sta3"  # Awaiting local A-ASSOCIATE response primitive
    STA4 = "Sta4"  # Awaiting transport connection opening to complete
    STA5 = "Sta5"  # Awaiting A-ASSOCIATE-AC or A-ASSOCIATE-RJ PDU
    STA6 = "Sta6"  # Association established and ready for data transfer
    STA7 = "Sta7"  # Awaiting A-RELEASE-RP PDU
    STA8 = "Sta8"  # Awaiting local A-RELEASE response primitive
    STA9 = "Sta9"  # Release collision requestor side; awaiting A-RELEASE response primitive
    STA10 = "Sta10"  # Release collision acceptor side; awaiting A-RELEASE-RP PDU
    STA11 = "Sta11"  # Release collision requestor side; awaiting A-RELEASE-RP PDU
    STA12 = "Sta12"  # Release collision acceptor side; awaiting A-RELEASE response primitive
    STA13 = "Sta13"  # Awaiting transport connection close indication


@unique
class Event(Enum):
    """PS3.8 Table 9-10, first column."""

    EVT1 = "Evt1"  # A-ASSOCIATE request (local user)
    EVT2 = "Evt2"  # Transport connection confirmation (local transport service)
    EVT3 = "Evt3"  # A-ASSOCIATE-AC PDU (received on transport connection)
    EVT4 = "Evt4"  # A-ASSOCIATE-RJ PDU (received on transport connection)
    EVT5 = "Evt5"  # Transport connection indication (local transport service)
    EVT6 = "Evt6"  # A-ASSOCIATE-RQ PDU (received on transport connection)
    EVT7 = "Evt7"  # A-ASSOCIATE response primitive (accept)
    EVT8 = "Evt8"  # A-ASSOCIATE response primitive (reject)
    EVT9 = "Evt9"  # P-DATA request primitive
    EVT10 = "Evt10"  # P-DATA-TF PDU
    EVT11 = "Evt11"  # A-RELEASE request primitive
    EVT12 = "Evt12"  # A-RELEASE-RQ PDU (received on open transport connection)
    EVT13 = "Evt13"  # A-RELEASE-RP PDU (received on transport connection)
    EVT14 = "Evt14"  # A-RELEASE response primitive
    EVT15 = "Evt15"  # A-ABORT request primitive
    EVT16 = "Evt16"  # A-ABORT PDU (received on open transport connection)
    EVT17 = "Evt17"  # Transport connection closed indication (local transport service)
    EVT18 = "Evt18"  # ARTIM timer expired (Association reject/release timer)
    EVT19 = "Evt19"  # Unrecognized or invalid PDU received


@unique
class Step(Enum):
    """What an action is made of, in the words of PS3.8 Tables 9-6 to 9-9."""

    SEND = "send the PDU of the local primitive"
    SEND_REJECTION = "send A-ASSOCIATE-RJ PDU as service provider"
    SEND_USER_ABORT = "send A-ABORT PDU (service-user source)"
    SEND_PROVIDER_ABORT = "send A-ABORT PDU (service-provider source)"
    INDICATE = "issue the primitive of the received PDU"
    INDICATE_PROVIDER_ABORT = "issue an A-P-ABORT indication primitive"
    START_ARTIM = "start, or restart, ARTIM timer"
    STOP_ARTIM = "stop ARTIM timer, if it runs"
    CLOSE = "close transport connection"


@attrs.frozen(slots=True)
class Outcome:
    """The steps that an action takes, in this order, and the state after them."""

    steps: tuple[Step, ...]
    next_state: State


@attrs.frozen(slots=True, eq=False)
class Action:
    """One row of Tables 9-6 to 9-9.

    Two actions have a second outcome: AE-6, where the request is not acceptable to the service
    provider, and AR-8, where we are the association's acceptor.
    """

    name: str
    outcome: Outcome
    other: Outcome | None = None


def _action(name: str, next_state: State, *steps: Step) -> Action:
    return Action(name, Outcome(steps, next_state))


_S, _E = State, Event

# PS3.8 Table 9-6: association establishment. (The transport connection of AE-1 and its acceptance
# in AE-5 are the business of whoever holds the socket.)
AE_1 = _action("AE-1", _S.STA4)
AE_2 = _action("AE-2", _S.STA5, Step.SEND)
AE_3 = _action("AE-3", _S.STA6, Step.INDICATE)
AE_4 = _action("AE-4", _S.STA1, Step.INDICATE, Step.CLOSE)
AE_5 = _action("AE-5", _S.STA2, Step.START_ARTIM)
AE_6 = Action(
    "AE-6",
    Outcome((Step.STOP_ARTIM, Step.INDICATE), _S.STA3),
    Outcome((Step.STOP_ARTIM, Step.SEND_REJECTION, Step.START_ARTIM), _S.STA13),
)
AE_7 = _action("AE-7", _S.STA6, Step.SEND)
AE_8 = _action("AE-8", _S.STA13, Step.SEND, Step.START_ARTIM)

# PS3.8 Table 9-7: data transfer.
DT_1 = _action("DT-1", _S.STA6, Step.SEND)
DT_2 = _action("DT-2", _S.STA6, Step.INDICATE)

# PS3.8 Table 9-8: association release.
AR_1 = _action("AR-1", _S.STA7, Step.SEND)
AR_2 = _action("AR-2", _S.STA8, Step.INDICATE)
AR_3 = _action("AR-3", _S.STA1, Step.INDICATE, Step.CLOSE)
AR_4 = _action("AR-4", _S.STA13, Step.SEND, Step.START_ARTIM)
AR_5 = _action("AR-5", _S.STA1, Step.STOP_ARTIM)
AR_6 = _action("AR-6", _S.STA7, Step.INDICATE)
AR_7 = _action("AR-7", _S.STA8, Step.SEND)
AR_8 = Action("AR-8", Outcome((Step.INDICATE,), _S.STA9), Outcome((Step.INDICATE,), _S.STA10))
AR_9 = _action("AR-9", _S.STA11, Step.SEND)
AR_10 = _action("AR-10", _S.STA12, Step.INDICATE)

# PS3.8 Table 9-9: association abort.
AA_1 = _action("AA-1", _S.STA13, Step.SEND_USER_ABORT, Step.START_ARTIM)
AA_2 = _action("AA-2", _S.STA1, Step.STOP_ARTIM, Step.CLOSE)
AA_3 = _action("AA-3", _S.STA1, Step.INDICATE, Step.CLOSE)
AA_4 = _action("AA-4", _S.STA1, Step.INDICATE_PROVIDER_ABORT)
AA_5 = _action("AA-5", _S.STA1, Step.STOP_ARTIM)
AA_6 = _action("AA-6", _S.STA13)
AA_7 = _action("AA-7", _S.STA13, Step.SEND_PROVIDER_ABORT)
AA_8 = _action(
    "AA-8",
    _S.STA13,
    Step.SEND_PROVIDER_ABORT,
    Step.INDICATE_PROVIDER_ABORT,
    Step.START_ARTIM,
)

# PS3.8 Table 9-10, a row for each event. The states in which most PDUs are simply out of sequence,
# and a row changes only where it has something better to do:
_OUT_OF_SEQUENCE = {
    _S.STA2: AA_1,
    _S.STA3: AA_8,
    _S.STA5: AA_8,
    _S.STA6: AA_8,
    _S.STA7: AA_8,
    _S.STA8: AA_8,
    _S.STA9: AA_8,
    _S.STA10: AA_8,
    _S.STA11: AA_8,
    _S.STA12: AA_8,
    _S.STA13: AA_6,
}
_ASSOCIATED = (_S.STA3, *(_S[f"STA{n}"] for n in range(5, 13)))

_ROWS: dict[Event, dict[State, Action]] = {
    _E.EVT1: {_S.STA1: AE_1},
    _E.EVT2: {_S.STA4: AE_2},
    _E.EVT3: _OUT_OF_SEQUENCE | {_S.STA5: AE_3},
    _E.EVT4: _OUT_OF_SEQUENCE | {_S.STA5: AE_4},
    _E.EVT5: {_S.STA1: AE_5},
    _E.EVT6: _OUT_OF_SEQUENCE | {_S.STA2: AE_6, _S.STA13: AA_7},
    _E.EVT7: {_S.STA3: AE_7},
    _E.EVT8: {_S.STA3: AE_8},
    _E.EVT9: {_S.STA6: DT_1, _S.STA8: AR_7},
    _E.EVT10: _OUT_OF_SEQUENCE | {_S.STA6: DT_2, _S.STA7: AR_6},
    _E.EVT11: {_S.STA6: AR_1},
    _E.EVT12: _OUT_OF_SEQUENCE | {_S.STA6: AR_2, _S.STA7: AR_8},
    _E.EVT13: _OUT_OF_SEQUENCE | {_S.STA7: AR_3, _S.STA10: AR_10, _S.STA11: AR_3},
    _E.EVT14: {_S.STA8: AR_4, _S.STA9: AR_9, _S.STA12: AR_4},
    _E.EVT15: dict.fromkeys(_ASSOCIATED, AA_1) | {_S.STA4: AA_2},
    _E.EVT16: dict.fromkeys(_ASSOCIATED, AA_3) | {_S.STA2: AA_2, _S.STA13: AA_2},
    _E.EVT17: dict.fromkeys(_ASSOCIATED, AA_4) | {_S.STA2: AA_5, _S.STA4: AA_4, _S.STA13: AR_5},
    _E.EVT18: {_S.STA2: AA_2, _S.STA13: AA_2},
    _E.EVT19: _OUT_OF_SEQUENCE | {_S.STA13: AA_7},
}

TRANSITIONS: Mapping[tuple[Event, State], Action] = MappingProxyType(
    {(event, state): action for event, row in _ROWS.items() for state, action in row.items()}
)
