"""Queues to test with: whole but for who carries, or only what knows what is taken where."""

from typing import cast

import attrs

from relay.router.node import Node
from relay.router.queue.acceptance import Acceptance
from relay.router.queue.bandwidth import Throttle
from relay.router.queue.destinations import DestinationTable
from relay.router.queue.knowledge import OwnKnowledge
from relay.router.queue.settings import QueueSettings
from relay.router.queue.state import Queue
from relay.router.queue.warnings import Warnings
from relay.spool.spool import Spool


async def queue_of(node: Node, spool: Spool) -> Queue:
    """A queue of `node` over `spool`, by its clock; whoever wants it gives it couriers."""
    settings = QueueSettings()
    return Queue(
        node=node,
        spool=spool,
        settings=settings,
        destinations=await DestinationTable.load(node.database),
        knowledge=OwnKnowledge(node.database),
        acceptance=await Acceptance.load(node.database),
        warnings=Warnings(lambda: node.ae_title, clock=spool.clock),
        throttle=Throttle(settings.bandwidth),
    )


@attrs.frozen
class Parts:
    """Without a spool."""

    node: Node
    destinations: DestinationTable
    knowledge: OwnKnowledge
    acceptance: Acceptance


async def parts_of(node: Node) -> Queue:
    """As `node`'s database has them."""
    return cast(
        Queue,
        Parts(
            node,
            await DestinationTable.load(node.database),
            OwnKnowledge(node.database),
            await Acceptance.load(node.database),
        ),
    )
