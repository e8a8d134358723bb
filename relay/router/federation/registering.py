"""What the federation's associations rest on, for the register of what is live (relay.router.live).

Those with other hospitals are entered where they are relayed, as any call of a device is.
"""

import secrets

from relay.router.devices import Device
from relay.router.live import LiveAssociation, Side, Work
from relay.router.node import Node


def caller_entry(node: Node, caller: Device | None, title: str) -> LiveAssociation:
    """`caller` calls the federation, `title`: it ends when the device is another, or gone."""
    return LiveAssociation(
        number=_number(),
        side=Side.CALLER,
        device=node.ae_title if caller is None else caller.ae_title,
        calling=node.ae_title if caller is None else caller.published,
        called=title,
        peer=node.identity.fingerprint,
        still_permitted=lambda: _is_there(node, caller),
        work=Work.FEDERATION,
    )


def source_entry(node: Node, caller: Device | None, device: Device) -> LiveAssociation:
    """The federation calls `device`, one of ours, for `caller`: as above, and while it is asked."""

    def still_permitted() -> bool:
        now = node.devices.get(device.ae_title)
        asked = now is not None and now.federation and now.where == device.where
        return asked and _is_there(node, caller)

    return LiveAssociation(
        number=_number(),
        side=Side.CALLEE,
        device=device.ae_title,
        calling=node.ae_title if caller is None else caller.ae_title,
        called=device.published,
        peer=node.identity.fingerprint,
        still_permitted=still_permitted,
        work=Work.FEDERATION,
    )


def _is_there(node: Node, caller: Device | None) -> bool:
    now = None if caller is None else node.devices.get(caller.ae_title)
    return caller is None or (now is not None and now.published == caller.published)


def _number() -> str:
    """As long as that of a session (relay.router.live.number)."""
    return secrets.token_hex(6)
