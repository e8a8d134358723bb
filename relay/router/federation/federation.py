"""The federation of one Router: its settings, whom it asks, and what it knows of them."""

import attrs

from relay.router.federation.found import Found
from relay.router.federation.held import Held
from relay.router.federation.lines import Lines
from relay.router.federation.paces import Paces
from relay.router.federation.settings import FederationSettings
from relay.router.federation.sources import Sources
from relay.router.federation.states import States
from relay.router.node import Node


@attrs.define(slots=True, eq=False)
class Federation:
    """What all its operations share.

    `lines` stand before each device for queries, `transfer_lines` for what moves objects; `held`
    are the bytes of answers that merged searches hold; `paces` say who of them are slow.
    """

    node: Node
    settings: FederationSettings = attrs.field(factory=FederationSettings)
    sources: Sources = attrs.field(
        default=attrs.Factory(lambda self: Sources(self.node, self.settings), takes_self=True)
    )
    states: States = attrs.field(factory=States)
    found: Found = attrs.field(factory=Found)
    paces: Paces = attrs.field(factory=Paces)
    held: Held = attrs.field(factory=Held)
    lines: Lines = attrs.field(
        default=attrs.Factory(lambda self: Lines(self.settings.queries), takes_self=True)
    )
    transfer_lines: Lines = attrs.field(
        default=attrs.Factory(lambda self: Lines(self.settings.retrieves), takes_self=True)
    )
