"""The audit's trail of DICOMweb: a viewer's requests for one study are told as one transfer.

A viewer asks for a study frame by frame, some thousand requests a minute. That the study begins to
go is told at once; that it has gone, and how many requests there were, once nobody has asked for it
for a while.
"""

from typing import Final

import attrs
import trio

from relay.audit.events import Participant
from relay.audit.happenings import Transfer
from relay.router.auditing import Auditing

# Seconds without a request, after which a study has gone: a person looks at one image for as long.
IDLE: Final = 60.0

# How often that is looked at.
LOOK: Final = 5.0

# Studies under way, for all who ask; one more, and the one that waits for the longest is told.
MAXIMUM_STUDIES: Final = 1024

_SEARCHES: Final = frozenset({"search studies", "search series", "search instances"})
_STORES: Final = "store"


@attrs.frozen(slots=True)
class WebRequest:
    """A request that was answered: by whom, for what of whom, and whether it got that.

    `caller` is the AE title in whose name it came, `token` the name of its token, `names` the
    parameters of its query without their values.
    """

    resource: str
    caller: str
    token: str
    address: str
    called: str
    path: str
    study: str = ""
    names: str = ""
    held: bool = True


@attrs.define(slots=True)
class _Going:
    transfer: Transfer
    last: float
    held: int = 0
    failed: int = 0


class WebTrail:
    """What goes by DICOMweb now."""

    def __init__(self, auditing: Auditing) -> None:
        self._auditing = auditing
        self._going: dict[tuple[str, str, str, str], _Going] = {}

    def answered(self, request: WebRequest) -> None:
        """A request of somebody who may ask was answered."""
        if request.resource in _SEARCHES:
            transfer = self._between(request)
            self._auditing.searched(transfer, request.path, request.names)
        elif request.resource == _STORES:
            why = "" if request.held else "not all was stored"
            self._auditing.record(self._between(request).ended(request.study, (), why))
        elif request.study:
            self._retrieved(request)

    def _between(self, request: WebRequest) -> Transfer:
        """Who asks, or sends, and the other one."""
        asks = Participant(
            request.caller,
            requestor=True,
            name=request.token,
            address=request.address,
            ae_title=True,
        )
        return Transfer(source=asks, destination=Participant(request.called, ae_title=True))

    def _retrieved(self, request: WebRequest) -> None:
        key = (request.caller, request.address, request.called, request.study)
        going = self._going.pop(key, None)
        if going is None:
            between = self._between(request)
            transfer = Transfer(source=between.destination, destination=between.source)
            going = _Going(transfer, 0.0)
            self._auditing.record(transfer.begins(request.study))
        going.last = trio.current_time()
        if request.held:
            going.held += 1
        else:
            going.failed += 1
        self._going[key] = going  # at the end: the first is the one that waits for the longest
        if len(self._going) > MAXIMUM_STUDIES:
            self._tell(next(iter(self._going)))

    def _tell(self, key: tuple[str, str, str, str]) -> None:
        going = self._going.pop(key)
        study = key[3]
        if going.held:
            self._auditing.record(going.transfer.ended(study, (), requests=going.held))
        if going.failed:
            why = "these requests were refused, or broke off"
            self._auditing.record(going.transfer.ended(study, (), why, requests=going.failed))

    def look(self) -> None:
        """Tell of what nobody has asked for any more."""
        now = trio.current_time()
        for key in [key for key, going in self._going.items() if going.last + IDLE <= now]:
            self._tell(key)

    def close(self) -> None:
        """Tell of all that is under way."""
        for key in list(self._going):
            self._tell(key)

    async def run(self) -> None:
        """Look, for ever; at the end all is told."""
        try:
            while True:
                await trio.sleep(LOOK)
                self.look()
        finally:
            self.close()
