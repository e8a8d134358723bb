"""All devices that are published, and those that the federation asks, as people see them.

The directory (relay.router.directory) says whose a title is and what is granted of it; here comes
to it by which name it is called in this hospital, whether the federation asks it, how it fared when
it was asked last, and which transfer syntaxes it is known to take.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Any

from relay.router import services
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.states import State
from relay.router.node import Network, Node, unix_time
from relay.router.queue.state import Queue
from relay.router.services import Service


class Reach(Enum):
    """Whether a device serves, as far as is known; that it does says nothing of the next call."""

    REACHABLE = "reachable"  # it has served when it was called last
    AWAY = "away"  # its Router is not connected, or it has not served the federation last
    UNKNOWN = "unknown"  # it has not been called since this Router started


async def overview(node: Node, queue: Queue, federation: Federation | None) -> list[dict[str, Any]]:
    """A row for each published AE title, and for each device that the federation asks, by title.

    Without a `federation` nobody is asked. Raises Refused (409) while the Router is not enrolled.
    """
    network = node.joined()
    asked = _asked(node, network) if federation is not None else {}
    rows = {row["ae_title"]: row for row in network.directory.to_json()}
    for title, row in asked.items():
        rows.setdefault(title, row)
    shown = []
    for title, row in sorted(rows.items()):
        state = State().to_json() if federation is None else federation.states.to_json(title)
        device = node.names.own(title) if row["own"] else None
        shown.append(
            row
            | state
            | {
                "hospital": network.membership.name if row["own"] else row["name"],
                "local": node.names.local(title),
                "federation": title in asked,
                "state": _reach(row, state).value,
                "transfer_syntaxes": sorted(await _transfer_syntaxes(node, queue, title, device)),
            }
        )
    return shown


def _asked(node: Node, network: Network) -> dict[str, dict[str, Any]]:
    """Whom the federation asks, for whichever caller: a row for each, by published title."""
    own = {
        device.published: _row(
            device.published,
            services.ordered(device.services),
            peer=node.identity.fingerprint,
            own=True,
        )
        for device in node.devices
        if device.federation
    }
    return own | dict(_granted(node, network))


def _granted(node: Node, network: Network) -> Iterator[tuple[str, dict[str, Any]]]:
    for title, peer, words in network.directory.granted_titles(Service.QUERY):
        local = node.names.local(title)
        if local is None or node.federation_title in (local, title):
            continue
        # What its owner publishes has not been shown: it may be no more than what was granted.
        row = _row(title, (), peer=peer.fingerprint, own=False)
        yield title, row | {"granted": list(services.ordered(words)), "name": peer.name}


def _row(title: str, published: tuple[str, ...], *, peer: str, own: bool) -> dict[str, Any]:
    """As relay.router.directory shows a title, for one that it has not."""
    return {
        "ae_title": title,
        "services": list(published),
        "granted": [],
        "peer": peer,
        "name": "",
        "own": own,
        "signed": own,
        "connected": own,
        "claimed_by": None,
    }


def _reach(row: dict[str, Any], state: dict[str, Any]) -> Reach:
    if state["last_error"] or not row["connected"]:
        return Reach.AWAY
    return Reach.REACHABLE if state["last_seen"] else Reach.UNKNOWN


async def _transfer_syntaxes(
    node: Node, queue: Queue, title: str, device: Device | None
) -> frozenset[str]:
    """All in which a device is known to take something, of whichever caller."""
    if device is not None:
        return await queue.knowledge.transfer_syntaxes(device)
    return queue.acceptance.transfer_syntaxes(node, title, unix_time())
