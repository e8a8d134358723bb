"""How long an association waits for its peer, state by state, and what is missing when it is over.

Pure: the time is told to it, in seconds of whatever clock its holder goes by.
"""

from math import inf

import attrs

from relay.dicom.statemachine import State

# What is said of a peer that takes the connection and stays silent.
NO_ANSWER = "no answer to A-ASSOCIATE-RQ"


@attrs.frozen(slots=True, kw_only=True)
class Timeouts:
    """How long an association waits for its peer, in seconds.

    The defaults suit a device in the same hospital.
    """

    # TCP, name look-up included, and TLS on top of it. A device that is switched off answers never.
    connect: float = 10.0
    tls_handshake: float = 10.0
    # As acceptor, from the connection to the whole A-ASSOCIATE-RQ (ARTIM, PS3.8 §9.1.5).
    association_request: float = 30.0
    # As requestor, from A-ASSOCIATE-RQ to its answer. DCMTK and pynetdicom wait 30 s too.
    association_answer: float = 30.0
    # From A-RELEASE-RQ to A-RELEASE-RP. A device may store what it has before it answers.
    release: float = 60.0
    # After a rejection, release or abort: for the peer to close (ARTIM, PS3.8 §9.1.5).
    artim: float = 30.0
    # For each piece of relay.association.WRITE_SIZE. A device that writes to a busy disk stops
    # taking for a while.
    write: float = 60.0
    # Nothing either way while established. None: whoever knows whether an answer is owed decides.
    idle: float | None = None


class Patience:
    """The deadlines of one association: ARTIM, and those that PS3.8 leaves to the implementation.

    Told of every step (`moved`), since each state has a wait of its own.
    """

    def __init__(self, timeouts: Timeouts, state: State, now: float) -> None:
        self._timeouts = timeouts
        self._state = state
        self._since = now  # in this state
        self._moved = now  # anything, either way
        self._artim = inf  # when it expires

    @property
    def deadline(self) -> float:
        """When the first of all waits is over; infinity where there is none."""
        return min(self._artim, self._wait()[0])

    def moved(self, state: State, now: float) -> None:
        """Something went either way, and the association is in `state` now."""
        if state is not self._state:
            self._state, self._since = state, now
        self._moved = now

    def start_artim(self, state: State, now: float) -> None:
        """Start the ARTIM timer, or start it anew, as the association enters `state`."""
        awaits_request = state is State.STA2
        timeouts = self._timeouts
        self._artim = now + (timeouts.association_request if awaits_request else timeouts.artim)

    def stop_artim(self) -> None:
        """Stop the ARTIM timer if it runs."""
        self._artim = inf

    def artim_expired(self, now: float) -> bool:
        """Whether the ARTIM timer has run out."""
        return now >= self._artim

    def missing(self, now: float) -> str:
        """What the peer should have sent by now, in words for the log; empty if nothing."""
        if self.artim_expired(now):
            seconds = self._timeouts.association_request
            return f"no A-ASSOCIATE-RQ within {seconds:g} s" if self._state is State.STA2 else ""
        deadline, words = self._wait()
        return words if now >= deadline else ""

    def _wait(self) -> tuple[float, str]:
        """When this state's wait for the peer is over, and what is missing then."""
        timeouts = self._timeouts
        match self._state:
            case State.STA5:
                seconds = timeouts.association_answer
                return self._since + seconds, f"{NO_ANSWER} in {seconds:g} s"
            case State.STA7 | State.STA10 | State.STA11:
                seconds = timeouts.release
                return self._since + seconds, f"no answer to A-RELEASE-RQ in {seconds:g} s"
            case State.STA6 if timeouts.idle is not None:
                return self._moved + timeouts.idle, f"idle for {timeouts.idle:g} s"
            case _:
                return inf, ""
