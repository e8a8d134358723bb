"""The owner's end of a knowledge session: a peer's Router is told what a device of ours takes.

    opening -> found out (relay.router.queue.knowledge) -> Knowledge, A-RELEASE-RP

PROTOCOL.md §10.4. Whoever may not store is refused before (relay.router.incoming). The others are
told what of it they are granted, or A-ASSOCIATE-RJ where nothing is known in time. Who asks for a
description only is told what is at hand, and the device hears nothing of it.
"""

import attrs
import structlog
import trio

from relay.dicom import uids
from relay.dicom.pdu import AReleaseRP
from relay.dicom.rejection import TEMPORARY_CONGESTION, rejected
from relay.errors import AssociationAborted, AssociationRejected
from relay.router.incoming import IncomingCall, live_entry
from relay.router.node import Network, Node
from relay.router.queue.knowledge import ANSWER_WAIT, LIFETIME, Own, OwnKnowledge
from relay.router.reaching import Answer
from relay.router.services import Service, service_of
from relay.tunnel import notes
from relay.tunnel.notes import Knowledge
from relay.tunnel.session import TunnelAssociation

log = structlog.get_logger()


async def serve_knowledge(
    node: Node, network: Network, call: IncomingCall, knowledge: OwnKnowledge
) -> None:
    """Serve a session of purpose KNOWLEDGE to its end, and the probe that it brings about to its.

    Raises HandshakeError if it has ended before there was anybody to tell.
    """
    entry = live_entry(node, network, call)
    answer = Answer(network, call)
    with node.live.hold(entry):
        async with trio.open_nursery() as nursery:
            finding = _Finding(knowledge, node, call)
            nursery.start_soon(finding.run)
            async with answer:
                near = await answer.given()
                try:
                    outcome = await finding.outcome()
                    await _say(near, node, call, outcome)
                    if isinstance(outcome, Own) and not call.asks_description:
                        knowledge.told(call, outcome)
                except AssociationAborted as error:
                    log.info("asker left", association=call.number, why=str(error))
    answer.check_given(entry)


@attrs.define(slots=True, eq=False)
class _Finding:
    """Finding out, which may take longer than its asker waits."""

    _knowledge: OwnKnowledge
    _node: Node
    _call: IncomingCall
    _done: trio.Event = attrs.field(factory=trio.Event)
    _outcome: Own | AssociationRejected = attrs.field(
        factory=lambda: rejected(
            TEMPORARY_CONGESTION, f"the device was not probed within {ANSWER_WAIT:g} s"
        )
    )

    async def run(self) -> None:
        try:
            self._outcome = await self._find()
        except AssociationRejected as error:
            self._outcome = error
        finally:
            self._done.set()

    async def _find(self) -> Own:
        if self._call.asks_description:
            return await self._knowledge.at_hand(self._call)
        return await self._knowledge.find(self._node, self._call)

    async def outcome(self) -> Own | AssociationRejected:
        """What was found out, or is known already, or why nothing is."""
        with trio.move_on_after(ANSWER_WAIT) as scope:
            await self._done.wait()
        if scope.cancelled_caught:
            call = self._call
            return await self._knowledge.known(call.device, call.seen) or self._outcome
        return self._outcome


async def _say(
    near: TunnelAssociation, node: Node, call: IncomingCall, outcome: Own | AssociationRejected
) -> None:
    """Tell what the caller's grants let it know, or that it is not known now."""
    device = node.devices.get(call.device.ae_title) or call.device
    if isinstance(outcome, AssociationRejected):
        log.info("knowledge not told", association=call.number, why=str(outcome))
        await near.send(TEMPORARY_CONGESTION)
        return
    services = call.permission.services
    pairs = outcome.pairs.only(
        lambda sop_class: (
            service_of(sop_class) in services and sop_class != uids.STORAGE_COMMITMENT_PUSH_MODEL
        )
    )
    said = Knowledge(
        serial=outcome.serial,
        lifetime=max(0, LIFETIME - outcome.age),
        split=device.split,
        window=outcome.window,
        commitment=outcome.commitment and Service.COMMIT in services,
        groups=pairs.groups(),
        issuer=device.issuer,
        character_set=device.character_set,
    )
    await near.send(notes.encode(said))
    await near.send(AReleaseRP())
    log.info(
        "knowledge told",
        association=call.number,
        calling=call.request.calling,
        called=call.request.called,
        serial=said.serial,
        sop_classes=len(pairs),
    )
