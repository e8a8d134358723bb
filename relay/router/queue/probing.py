"""A probe: all that a device of ours takes when it is called by one title.

One association after the other, in one place of the device as a call has it, with 128 presentation
contexts each and one transfer syntax to a context. All of them are answered, or nothing is said: a
device that was busy for the last of them takes more than it said.
"""

import json

import attrs
import trio

from relay.dicom import uids
from relay.dicom.negotiation import AsynchronousOperationsWindow, accepted_contexts, batches
from relay.dicom.pdu import AAssociateAC, AAssociateRQ, PresentationContext
from relay.dicom.rejection import PERMANENT, TEMPORARY_CONGESTION, rejected
from relay.errors import AssociationAborted, AssociationRejected, RemoteProtocolError
from relay.router import probe
from relay.router.devices import Device
from relay.router.live import Side
from relay.router.node import Node
from relay.router.pairs import Pairs
from relay.router.places import Claim
from relay.router.queue.operations import MAXIMUM_WINDOW, window_of

# For the whole of a probe. Forty associations take a second where the device is quick; one that
# looks up each caller's name takes seconds for each.
PROBE_DEADLINE = 600.0

# How often an association of a probe is tried. Devices that take few at once count one as theirs
# for a moment after its release.
TRIES = 3
TRY_PAUSE = 2.0

# Asked beside the storage pairs: whether it commits itself to what it was given.
COMMITMENT_PAIRS = [
    (uids.STORAGE_COMMITMENT_PUSH_MODEL, (syntax,))
    for syntax in (uids.IMPLICIT_VR_LITTLE_ENDIAN, uids.EXPLICIT_VR_LITTLE_ENDIAN)
]


def basis(device: Device) -> str:
    """What of a device's row its knowledge rests on: where it is, or what is declared of it."""
    declared = device.declares.to_json()
    return json.dumps([declared] if declared else [*device.where, device.ae_title])


@attrs.define(slots=True)
class Found:
    """What a device has said so far. `window`: the least that it has granted."""

    taken: set[tuple[str, str]] = attrs.field(factory=set)
    commitment: bool = False
    window: int = MAXIMUM_WINDOW

    @property
    def pairs(self) -> Pairs:
        return Pairs.of(self.taken)

    def add(self, request: AAssociateRQ, answer: AAssociateAC) -> None:
        for context in accepted_contexts(request, answer).values():
            if context.abstract_syntax == uids.STORAGE_COMMITMENT_PUSH_MODEL:
                self.commitment = True
            else:
                self.taken.add((context.abstract_syntax, context.transfer_syntax))
        self.window = min(self.window, window_of(answer))


async def ask_all(node: Node, device: Device, seen: str, peer: str) -> Found:
    """All that `device` takes when it is called as `seen`, in a place of the hospital `peer`.

    Raises AssociationRejected if it did not answer everything: of that nothing is said.
    """
    claim = Claim(
        side=Side.CALLEE,
        device=device.ae_title,
        peer=peer,
        maximum=device.maximum_associations,
        shared=True,  # it is for nobody alone
    )
    found = Found()
    with trio.move_on_after(PROBE_DEADLINE):
        # The asker's leaving is no reason to stop: it will ask again.
        with await node.places.take(claim, device.place_wait, trio.sleep_forever):
            for contexts in batches([*COMMITMENT_PAIRS, *probe.storage_pairs()]):
                await _ask(node, device, seen, contexts, found)
        now = node.devices.get(device.ae_title)
        if now is None or basis(now) != basis(device):
            raise rejected(TEMPORARY_CONGESTION, "the device was changed while it was probed")
        return found
    raise rejected(TEMPORARY_CONGESTION, f"the probe took longer than {PROBE_DEADLINE:g} s")


async def _ask(
    node: Node,
    device: Device,
    seen: str,
    contexts: tuple[PresentationContext, ...],
    found: Found,
) -> None:
    """One association of a probe, tried again where that may help. Raises AssociationRejected."""
    window = AsynchronousOperationsWindow(MAXIMUM_WINDOW, 1)
    for left in reversed(range(TRIES)):
        try:
            found.add(*await probe.ask(device, seen, node.device_tls, contexts, window))
            return
        except AssociationRejected as error:
            if not left or error.result == PERMANENT:
                raise
        except (AssociationAborted, RemoteProtocolError) as error:
            if not left:
                raise rejected(TEMPORARY_CONGESTION, str(error)) from error
        await trio.sleep(TRY_PAUSE)
