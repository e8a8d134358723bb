"""Destinations: which of another hospital's devices are sent to by way of the queue.

Confirmed is the default, and needs no row: the sender hears the far device's own answer. A row is
for a called AE title, from all devices of ours or from one, whose row wins over the general one;
both titles are the published ones. Rows live in SQLite and in memory; a change takes effect with
the next association.
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

import apsw
import attrs
import structlog
import trio

from relay.database import Database
from relay.errors import Refused
from relay.router.entries import Entry, ae_title
from relay.router.schema import change
from relay.spool.items import Priority

if TYPE_CHECKING:  # the command line reads this module, and none of these
    from relay.router.devices import Device
    from relay.router.grants import Grant
    from relay.router.node import Node
    from relay.router.queue.state import Queue

log = structlog.get_logger()

# Each is a person's word about one way that images go: some dozens in a large hospital, and few
# enough to look through.
MAXIMUM_DESTINATIONS = 1024


class Mode(Enum):
    """Who answers the sender's C-STORE."""

    QUEUED = "queued"  # its own Router, once the object is on its disk
    CONFIRMED = "confirmed"  # the far device


class Mixed(Enum):
    """What becomes of a queued association that also proposes what cannot be queued."""

    REFUSE = "refuse"  # those contexts are rejected
    CONFIRMED = "confirmed"  # it goes through whole


_WORDS = {priority.name.lower(): priority for priority in Priority}


@attrs.frozen(slots=True)
class Destination:
    """What goes to `called`; `calling` is the device of ours that sends, empty: any."""

    called: str
    calling: str = ""
    mode: Mode = Mode.QUEUED
    mixed: Mixed = Mixed.REFUSE
    priority: Priority = Priority.NORMAL

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Destination":
        """A destination as a person describes it, by whatever titles: see `as_published`.

        Raises Refused (400) naming the field that does not hold.
        """
        destination = Entry(entry, "destination")
        destination.only([field.name for field in attrs.fields(cls)])
        return cls(
            ae_title(destination.text("called")),
            destination.title("calling"),
            destination.choice("mode", Mode.QUEUED),
            destination.choice("mixed", Mixed.REFUSE),
            _priority(entry.get("priority", "normal")),
        )

    @property
    def key(self) -> tuple[str, str]:
        """What there is one row for."""
        return self.called, self.calling

    def to_json(self) -> dict[str, Any]:
        """The same description, complete."""
        return {
            "called": self.called,
            "calling": self.calling,
            "mode": self.mode.value,
            "mixed": self.mixed.value,
            "priority": self.priority.name.lower(),
        }


def _priority(word: object) -> Priority:
    if not isinstance(word, str) or word not in _WORDS:
        raise Refused(400, f"destination: priority is {' or '.join(_WORDS)}")
    return _WORDS[word]


class DestinationTable:
    """All destinations, kept in SQLite and looked up in memory. Made by `load`."""

    def __init__(self, database: Database, rows: Iterable[Destination] = ()) -> None:
        self._database = database
        self._rows = {row.key: row for row in rows}
        self._changed = trio.Event()

    @classmethod
    async def load(cls, database: Database) -> "DestinationTable":
        """The table as the database has it."""
        return cls(database, await database.run(_read))

    def __iter__(self) -> Iterator[Destination]:
        return iter(sorted(self._rows.values(), key=lambda row: row.key))

    @property
    def changed(self) -> trio.Event:
        """Set with the next change; each one has its own."""
        return self._changed

    def get(self, called: str, calling: str) -> Destination | None:
        """The row for these very titles."""
        return self._rows.get((called, calling))

    def for_call(self, called: str, calling: str) -> Destination | None:
        """What holds for a call of `calling`, published, to `called`; None: it is confirmed."""
        return self._rows.get((called, calling)) or self._rows.get((called, ""))

    async def put(self, destination: Destination) -> bool:
        """Keep `destination`, in place of the one for the same titles; whether that is a change.

        Raises Refused (409) when the table is full.
        """
        if self._rows.get(destination.key) == destination:
            return False
        if destination.key not in self._rows and len(self._rows) >= MAXIMUM_DESTINATIONS:
            raise Refused(409, f"this Router already has {MAXIMUM_DESTINATIONS} destinations")
        row = destination.to_json()
        await self._database.run(
            change(
                f"INSERT OR REPLACE INTO destination ({', '.join(row)})"
                f" VALUES ({', '.join('?' * len(row))})",
                *row.values(),
            )
        )
        self._rows[destination.key] = destination
        self._tell()
        return True

    async def remove(self, called: str, calling: str) -> Destination:
        """Forget the row for these titles, and return it. Raises Refused (404)."""
        if (called, calling) not in self._rows:
            whose = f" from {calling!r}" if calling else ""
            raise Refused(
                404,
                f"no destination {called!r}{whose}; `relay destination list` shows them all",
            )
        await self._database.run(
            change("DELETE FROM destination WHERE called = ? AND calling = ?", called, calling)
        )
        removed = self._rows.pop((called, calling))
        self._tell()
        return removed

    async def rename(self, before: str, after: str) -> None:
        """What holds for calls of our device that was published as `before` goes on as `after`."""
        await self._database.run(
            change("UPDATE OR REPLACE destination SET calling = ? WHERE calling = ?", after, before)
        )
        for row in [row for row in self if row.calling == before]:
            del self._rows[row.key]
            renamed = attrs.evolve(row, calling=after)
            self._rows[renamed.key] = renamed
        self._tell()

    async def forget_caller(self, calling: str) -> None:
        """Our device that was published as `calling` is gone, and with it what held for it."""
        for row in [row for row in self if row.calling == calling]:
            await self.remove(*row.key)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


# --- what people do -------------------------------------------------------------------------------


def as_published(node: "Node", called: str, calling: str) -> tuple[str, str]:
    """Both titles, as people here write them, by the network's names.

    Raises Refused (409) where `called` is no other hospital's, or `calling` no device of ours.
    """
    return _called(node, called), _calling(node, calling)


def _called(node: "Node", title: str) -> str:
    published = node.names.published(title)
    if published is None:
        raise Refused(409, f"{title!r} is this Router's own AE title")
    if (own := node.devices.get(title) or node.names.own(published)) is not None:
        raise Refused(
            409,
            f"{title!r} is the device {own.ae_title} of this hospital, which is called directly:"
            " a destination is another hospital's device",
        )
    return published


def _calling(node: "Node", title: str) -> str:
    if not title or title == node.ae_title:  # the command line calls as the Router itself
        return title
    device = node.names.own(title) or node.devices.get(title)
    if device is None:
        raise Refused(409, f"{title!r} is no device of this Router; `relay device list` has them")
    return device.published


async def put(queue: "Queue", destination: Destination) -> tuple[Destination, bool]:
    """Make `destination`, by whatever titles; the row as it is kept, and whether it is a change.

    Raises Refused (409) as `as_published`, and when the table is full.
    """
    called, calling = as_published(queue.node, destination.called, destination.calling)
    row = attrs.evolve(destination, called=called, calling=calling)
    changed = await queue.destinations.put(row)
    if changed:
        log.info("destination set", **row.to_json())
    return row, changed


async def remove(queue: "Queue", called: str, calling: str) -> Destination:
    """Forget a destination, by whatever titles: what goes there is confirmed again.

    What the device there takes is asked anew if it comes back. Raises Refused (404).
    """
    if queue.destinations.get(called, calling) is None:  # else whatever became of the titles
        called, calling = as_published(queue.node, called, calling)
    removed = await queue.destinations.remove(called, calling)
    await queue.acceptance.forget(called, calling)
    log.info("destination removed", called=called, calling=calling)
    return removed


async def put_device(queue: "Queue", device: "Device") -> bool:
    """Add or replace a device, whose destinations follow it; see `Node.put_device`."""
    before = queue.node.devices.get(device.ae_title)
    changed = await queue.node.put_device(device)
    if before is not None and before.published != device.published:
        await queue.destinations.rename(before.published, device.published)
    return changed


async def remove_device(queue: "Queue", ae_title: str) -> "list[Grant]":
    """Forget a device, and the destinations that are its alone; see `Node.remove_device`."""
    device = queue.node.devices.get(ae_title)
    gone = await queue.node.remove_device(ae_title)
    if device is not None:
        await queue.destinations.forget_caller(device.published)
    return gone


def _read(connection: apsw.Connection) -> list[Destination]:
    rows = connection.execute("SELECT called, calling, mode, mixed, priority FROM destination")
    return [
        Destination(called, calling, Mode(mode), Mixed(mixed), _WORDS[priority])
        for called, calling, mode, mixed, priority in rows
    ]
