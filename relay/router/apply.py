"""Bringing a Router to what a file says; doing it again changes nothing.

    {"devices": [{"ae_title": ..., "host": ..., ...}],
     "aliases": [{"local": ..., "published": ...}],
     "destinations": [{"called": ..., ...}],
     "grants": [{"peer": ..., ...}],
     "prune": false}

What the document does not name stays as it is, fields of devices and destinations too; what its
lists do not name goes with `prune`. An alias that has one title of a wanted one gives way to it.
Everything is read and checked before anything is changed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import attrs

from relay.errors import Refused
from relay.identity import fingerprint
from relay.router import services
from relay.router.aliases import Alias
from relay.router.devices import Device
from relay.router.entries import Entry, differences
from relay.router.grants import Grant, parse_calling
from relay.router.node import Node
from relay.router.queue import destinations
from relay.router.queue.destinations import Destination
from relay.router.queue.state import Queue

T = TypeVar("T")

_FIELDS = ("devices", "aliases", "destinations", "grants", "prune")
# What one entry of each list is called where it does not hold.
_ENTRY_OF = {
    "devices": "device",
    "aliases": "alias",
    "destinations": "destination",
    "grants": "grant",
}
_GRANT_FIELDS = ("peer", "ae_title", "services", "calling", "user_identity")


async def apply(queue: Queue, document: dict[str, Any]) -> list[str]:
    """Carry out `document`; returns one line for each change. Raises Refused."""
    node = queue.node
    wanted = Entry(document)
    wanted.only(_FIELDS)
    prune = wanted.flag("prune", False)
    devices = _read("devices", wanted.entries("devices"), partial(_described, node))
    aliases = _read("aliases", wanted.entries("aliases"), Alias.from_json)
    _check_unique("device", [device.ae_title for device in devices])
    _check_unique("alias", [alias.local for alias in aliases])
    _check_unique("alias of", [alias.published for alias in aliases])
    ways = wanted.entries("destinations")
    _check_unique(
        "destination", [_way(way) for way in _read("destinations", ways, Destination.from_json)]
    )
    grants = _read("grants", wanted.entries("grants"), partial(parse_grant, node))
    async with node.together():
        # First of all: their titles may be those of devices and aliases that are to come.
        former = [alias for alias in node.aliases if _gives_way(alias, aliases)]
        if prune and "aliases" in document:
            former = [alias for alias in node.aliases if alias not in aliases]
        for alias in former:
            await node.remove_alias(alias.local)
        kept = {alias.local for alias in aliases}
        changes = [f"alias {_pair(a)} removed" for a in former if a.local not in kept]
        for device in devices:
            known = node.devices.get(device.ae_title)
            if await destinations.put_device(queue, device):
                how = f"changed: {_differences(known, device)}" if known else "added"
                changes.append(f"device {device.ae_title} {how}")
        changed = {alias.local for alias in former}
        for alias in aliases:
            if await node.put_alias(alias):
                how = "changed" if alias.local in changed else "added"
                changes.append(f"alias {_pair(alias)} {how}")
        made = [await _apply_destination(queue, entry, changes) for entry in ways]
        grants = [as_published(node, grant) for grant in grants]
        for grant in grants:
            changes += await _apply_grant(node, grant)
        if prune:
            changes += await _prune(queue, document, devices, made, grants)
    return changes


def _read(name: str, entries: list[dict[str, Any]], read: Callable[[dict[str, Any]], T]) -> list[T]:
    """Each entry as `read` has it. Raises Refused naming the entry that does not hold."""
    values = []
    for index, entry in enumerate(entries):
        try:
            values.append(read(entry))
        except Refused as error:
            complaint = str(error).removeprefix(f"{_ENTRY_OF[name]}: ")
            raise Refused(error.status, f"{name}[{index}]: {complaint}") from error
    return values


def _described(node: Node, entry: dict[str, Any]) -> Device:
    """The device of `entry`: what it does not name is as it was, or as usual."""
    device = Device.from_json(entry)
    known = node.devices.get(device.ae_title)
    return device if known is None else Device.from_json(known.to_json() | entry)


def _differences(before: Device, after: Device) -> str:
    return differences(before.to_json(), after.to_json())


def _gives_way(alias: Alias, wanted: list[Alias]) -> bool:
    """Whether one of `wanted` has one of its titles, and is not the same."""
    return alias not in wanted and any(
        alias.local == other.local or alias.published == other.published for other in wanted
    )


def parse_grant(node: Node, entry: dict[str, Any]) -> Grant:
    """A grant as a person describes it, its peer by fingerprint. Raises Refused."""
    grant = Entry(entry, "grant")
    grant.only(_GRANT_FIELDS)
    peer, title = grant.text("peer"), grant.text("ae_title").strip()
    user_identity = grant.flag("user_identity", False)
    return Grant(
        node.joined().peers.by_fingerprint(peer).identity,
        title,
        services.parse(grant.texts("services")),
        parse_calling(grant.texts("calling")),
        user_identity,
    )


def as_published(node: Node, grant: Grant) -> Grant:
    """`grant` by the published title of the device that a person named by either."""
    device = node.devices.named(grant.ae_title)
    return grant if device is None else attrs.evolve(grant, ae_title=device.published)


async def put_grant(node: Node, grant: Grant) -> tuple[Grant, list[Grant]]:
    """Make `grant`, in place of others to the same peer for the same device and callers.

    Returns it with its id, and those that it replaces. Raises Refused as `Node.add_grant`.
    """
    async with node.together():
        # First the new, then the old: what both allow is never interrupted.
        kept = await node.add_grant(grant)
        replaced = [
            known
            for known in node.grants
            if known.id != kept.id and _subject(known) == _subject(grant)
        ]
        for known in replaced:
            await node.remove_grant(known.id)
    return kept, replaced


async def _apply_grant(node: Node, grant: Grant) -> list[str]:
    if any(known == grant for known in node.grants):
        return []
    _, replaced = await put_grant(node, grant)
    return [f"grant {_words(node, grant)} {'changed' if replaced else 'added'}"]


async def _apply_destination(
    queue: Queue, entry: dict[str, Any], changes: list[str]
) -> Destination:
    """Bring the destination of `entry` about: what it does not name is as it was, or as usual."""
    wanted = Destination.from_json(entry)
    titles = destinations.as_published(queue.node, wanted.called, wanted.calling)
    known = queue.destinations.get(*titles)
    if known is not None:
        wanted = Destination.from_json(known.to_json() | entry)
    row, changed = await destinations.put(queue, wanted)
    if changed:
        how = f"changed: {differences(known.to_json(), row.to_json())}" if known else "added"
        changes.append(f"destination {_way(row)} {how}")
    return row


def _way(row: Destination) -> str:
    return f"{row.called} from {row.calling}" if row.calling else row.called


async def _prune(
    queue: Queue,
    document: dict[str, Any],
    devices: list[Device],
    made: list[Destination],
    grants: list[Grant],
) -> list[str]:
    node, changes = queue.node, []
    if "destinations" in document:
        for row in [known for known in queue.destinations if known not in made]:
            await destinations.remove(queue, *row.key)
            changes.append(f"destination {_way(row)} removed")
    if "grants" in document:
        for grant in [known for known in node.grants if known not in grants]:
            await node.remove_grant(grant.id)
            changes.append(f"grant {_words(node, grant)} removed")
    if "devices" in document:
        named = {device.ae_title for device in devices}
        for device in [known for known in node.devices if known.ae_title not in named]:
            gone = await destinations.remove_device(queue, device.ae_title)
            changes.append(f"device {device.ae_title} removed")
            changes += [f"grant {_words(node, grant)} removed" for grant in gone]
    return changes


def _check_unique(what: str, ae_titles: list[str]) -> None:
    for title in ae_titles:
        if ae_titles.count(title) > 1:
            raise Refused(400, f"{what} {title!r} is named twice")


def _pair(alias: Alias) -> str:
    return f"{alias.local} for {alias.published}"


def _subject(grant: Grant) -> Grant:
    return attrs.evolve(grant, services=frozenset(), user_identity=False, id=0)


def _words(node: Node, grant: Grant) -> str:
    peer = node.network.peers.get(grant.grantee) if node.network is not None else None
    return (
        f"{grant.ae_title} to {peer.name if peer else 'unknown'} ({fingerprint(grant.grantee)}): "
        f"{', '.join(services.ordered(grant.services))}"
    )
