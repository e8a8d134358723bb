"""The parts of a queue that know what is taken where, without a spool."""

from typing import cast

import attrs

from relay.router.node import Node
from relay.router.queue.acceptance import Acceptance
from relay.router.queue.destinations import DestinationTable
from relay.router.queue.knowledge import OwnKnowledge
from relay.router.queue.state import Queue


@attrs.frozen
class Parts:
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
