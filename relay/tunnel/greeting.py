"""A session's first words, which are said until they are heard, and what the peer says to them.

The caller says Open, the callee Answer; either may be lost on the way, and who has it already
ignores the repetition. With the Answer the session stands: both ends have its keys.
"""

import attrs
import trio

from relay.dicom.pdu import AAbort, AAssociateRJ
from relay.errors import HandshakeError, SessionEnded
from relay.signalling.messages import Answer, Open, Refuse, Withdraw
from relay.tunnel.handshake import PendingOpening, ReceivedOpening
from relay.tunnel.keys import SessionKeys
from relay.tunnel.verdict import LOST, rejection_of_refusal, words


@attrs.frozen(slots=True)
class Declined:
    """The peer does not want the session; `atom` is what the device is told."""

    cause: str
    atom: AAssociateRJ | AAbort


class Greeting:
    """One end's part in a session's coming about.

    `first` is what this end says; `keys` are there from the beginning at the callee.
    """

    def __init__(
        self,
        opening: PendingOpening | ReceivedOpening,
        first: Open | Answer,
        keys: SessionKeys | None = None,
    ) -> None:
        self.first = first
        self._opening = opening
        self._keys = keys
        self._stands = trio.Event()
        self._heard = False
        self._declined = False
        if keys is not None:
            self._stands.set()

    @property
    def is_caller(self) -> bool:
        return isinstance(self._opening, PendingOpening)

    @property
    def stands(self) -> bool:
        """Both ends have the keys, or will once the Answer has arrived."""
        return self._stands.is_set()

    @property
    def heard(self) -> bool:
        """The peer has our first word: no need to say it again."""
        return self._heard

    def hear(self) -> None:
        """The peer spoke as only one can that has our first word."""
        self._heard = True

    async def wait_standing(self) -> SessionKeys:
        """The keys, once they are there."""
        await self._stands.wait()
        assert self._keys is not None
        return self._keys

    def take(self, message: Answer | Refuse | Withdraw) -> Declined | None:
        """What the peer says to it. Raises HandshakeError, or SessionEnded, if it may not."""
        match self._opening, message:
            case PendingOpening() as pending, Answer(answer=answer):
                if not self.stands:
                    self._heard = True
                    self._keys = pending.accept_answer(answer)
                    self._stands.set()
                return None
            case PendingOpening() as pending, Refuse(refusal=note):
                refusal = pending.check_refusal(note)
                if self.stands:
                    raise HandshakeError("the far Router refuses what it has answered")
                self._declined = True
                cause = f"the far Router refuses: {words(refusal)}"
                return Declined(cause, rejection_of_refusal(refusal))
            case ReceivedOpening() as received, Withdraw(withdrawal=note):
                received.check_withdrawal(note)
                return Declined("the caller withdrew", LOST)
            case _:
                raise SessionEnded(f"{type(message).__name__} from the wrong end")

    def withdrawal(self) -> Withdraw | None:
        """What takes back an opening that was neither answered nor refused yet."""
        if self.stands or self._declined or not isinstance(self._opening, PendingOpening):
            return None
        return Withdraw(self._opening.session, self._opening.withdraw())
