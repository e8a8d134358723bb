"""The hospital's devices: where they are, what the network may know of them, and their limits.

Hosts and ports stay in this hospital. Rows live in SQLite and in memory; what changes takes effect
with the next association.
"""

import ipaddress
import json
import socket
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from functools import partial
from typing import Any

import apsw
import attrs
import trio

from relay.database import Database
from relay.dicom import character_sets
from relay.errors import Refused
from relay.router import services
from relay.router.entries import Entry, ae_title
from relay.router.pairs import Pairs
from relay.tunnel.notes import MAXIMUM_CHARACTER_SET, MAXIMUM_ISSUER

DEFAULT_PORT = 104  # PS3.8 §9.1.2: the well-known port
HIGHEST_PORT = 65535

# One PACS typically takes some tens of associations; this leaves room for its other senders.
DEFAULT_MAXIMUM_ASSOCIATIONS = 16
HIGHEST_MAXIMUM_ASSOCIATIONS = 1000

# Below the 30 s that most devices wait for an A-ASSOCIATE-AC (DESIGN §5).
DEFAULT_ANSWER_WAIT = 25.0
# Below the 30 s to 60 s for which most devices wait for a response (DESIGN §5).
DEFAULT_RESUME_WINDOW = 20.0
LONGEST_WAIT = 600.0
# A place is free again within a second or two where a device takes one association after the other.
# It counts against the patience of the device that calls, as `answer_wait` does.
DEFAULT_PLACE_WAIT = 5.0
LONGEST_PLACE_WAIT = 60.0
# A device takes the release as the end of a study: it must not be held back for long.
LONGEST_LINGER = 60.0
# Associations at once to one device for what waits for it: more gain nothing on a line that eight
# fill, and take places from its other callers.
HIGHEST_SPLIT = 8

# As many as one Router may publish (relay.signalling.messages.MAXIMUM_PUBLICATIONS).
MAXIMUM_DEVICES = 512
# All publications go to the Bridge in one message of at most 256 KiB.
MAXIMUM_PUBLISHED = 192 * 1024
_STATEMENT_OVERHEAD = 160  # identity, signature, network, AE title, serial

MAXIMUM_HOST = 253  # RFC 1035 §2.3.4, without the final dot

# A name server of a hospital answers at once or not at all; an association waits for this.
RESOLVE_DEADLINE = 5.0


class MoveVia(Enum):
    """To whom a device sends what a C-MOVE asks for (DESIGN §4)."""

    DEVICE = "device"  # to the Move Destination by its name, for which it has an entry
    ROUTER = "router"  # to its own Router, the only one that it has an entry for


@attrs.frozen(slots=True)
class Device:
    """One DICOM application entity of this hospital."""

    ae_title: str
    host: str
    port: int = DEFAULT_PORT
    # The title by which the network knows it: unique there, so another one where two hospitals own
    # devices of the same AE title.
    published: str = attrs.field(
        default=attrs.Factory(lambda self: self.ae_title, takes_self=True), kw_only=True
    )
    # What the network may be granted. Nothing: the device can call out and is known to nobody.
    services: frozenset[str] = attrs.field(default=frozenset(), kw_only=True)
    maximum_associations: int = attrs.field(default=DEFAULT_MAXIMUM_ASSOCIATIONS, kw_only=True)
    answer_wait: float = attrs.field(default=DEFAULT_ANSWER_WAIT, kw_only=True)  # seconds
    resume_window: float = attrs.field(default=DEFAULT_RESUME_WINDOW, kw_only=True)  # seconds
    # Whether an association in this device's name must come from its host's address.
    check_address: bool = attrs.field(default=True, kw_only=True)
    # Whether its user identity (PS3.7 §D.3.3.7) may leave the hospital with its calls.
    user_identity: bool = attrs.field(default=False, kw_only=True)
    # Whether it is called over TLS, and which name its certificate must have; empty: its host.
    tls: bool = attrs.field(default=False, kw_only=True)
    tls_name: str = attrs.field(default="", kw_only=True)
    # Where it sends what a C-MOVE of another hospital asks for.
    move_via: MoveVia = attrs.field(default=MoveVia.DEVICE, kw_only=True)
    # The one calling AE title under which all other hospitals' devices call it; empty: their own.
    present_as: str = attrs.field(default="", kw_only=True)
    # How long a call waits for a place where the device has its maximum of associations.
    place_wait: float = attrs.field(default=DEFAULT_PLACE_WAIT, kw_only=True)  # seconds
    # How long an association to it stays open after its release, for the next call of its kind.
    linger: float = attrs.field(default=0.0, kw_only=True)  # seconds
    # Over how many associations at once other hospitals' queues may deliver to it.
    split: int = attrs.field(default=1, kw_only=True)
    # What it takes, in a person's words instead of a probe's; nothing: it is probed.
    declares: Pairs = attrs.field(factory=Pairs, kw_only=True)
    # Whether this hospital's federation asks it.
    federation: bool = attrs.field(default=False, kw_only=True)
    # Whose its Patient IDs are, where it has nobody else's: Issuer of Patient ID (0010,0021).
    issuer: str = attrs.field(default="", kw_only=True)
    # In which Specific Character Set (0008,0005) it understands what it is asked; empty: any.
    character_set: str = attrs.field(default="", kw_only=True)
    # Whether what a C-GET asks of it is asked by a C-MOVE: it has no C-GET.
    get_via_move: bool = attrs.field(default=False, kw_only=True)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Device":
        """A device as a person describes it.

        Raises Refused (400) naming the field that does not hold.
        """
        device = Entry(entry, "device")
        device.only(_FIELDS)
        return cls(
            ae_title=ae_title(device.text("ae_title")),
            host=_host(device.text("host")),
            port=device.whole("port", DEFAULT_PORT, 1, HIGHEST_PORT),
            services=services.parse(device.texts("services")),
            maximum_associations=device.whole(
                "maximum_associations",
                DEFAULT_MAXIMUM_ASSOCIATIONS,
                1,
                HIGHEST_MAXIMUM_ASSOCIATIONS,
            ),
            answer_wait=device.seconds("answer_wait", DEFAULT_ANSWER_WAIT, LONGEST_WAIT),
            resume_window=device.seconds("resume_window", DEFAULT_RESUME_WINDOW, LONGEST_WAIT),
            check_address=device.flag("check_address", True),
            user_identity=device.flag("user_identity", False),
            published=device.title("published_as", ae_title(device.text("ae_title"))),
            tls=device.flag("tls", False),
            tls_name=_host(device.text("tls_name")) if device.fields.get("tls_name") else "",
            move_via=device.choice("move_via", MoveVia.DEVICE),
            present_as=device.title("present_as"),
            place_wait=device.seconds(
                "place_wait", DEFAULT_PLACE_WAIT, LONGEST_PLACE_WAIT, may_be_zero=True
            ),
            linger=device.seconds("linger", 0, LONGEST_LINGER, may_be_zero=True),
            split=device.whole("split", 1, 1, HIGHEST_SPLIT),
            declares=_declares(device.fields.get("declares")),
            federation=device.flag("federation", False),
            issuer=_issuer(device.line("issuer", MAXIMUM_ISSUER)),
            character_set=_character_set(device.line("character_set", MAXIMUM_CHARACTER_SET)),
            get_via_move=device.flag("get_via_move", False),
        )

    @property
    def where(self) -> tuple[str, int, bool, str]:
        """Where it is called, and how the machine there proves to be it."""
        return self.host, self.port, self.tls, self.tls_name

    def to_json(self) -> dict[str, Any]:
        """The same description, complete."""
        entry = attrs.asdict(self)
        entry["published_as"] = entry.pop("published")
        return entry | {
            "services": list(services.ordered(self.services)),
            "move_via": self.move_via.value,
            "declares": self.declares.to_json(),
        }


_FIELDS = [
    "published_as" if field.name == "published" else field.name for field in attrs.fields(Device)
]


class DeviceTable:
    """All devices, kept in SQLite and looked up in memory. Made by `load`."""

    def __init__(self, database: Database, rows: Iterable[Device]) -> None:
        self._database = database
        self._devices = {device.ae_title: device for device in rows}

    @classmethod
    async def load(cls, database: Database) -> "DeviceTable":
        """The table as the database has it."""
        return cls(database, await database.run(_read))

    def __iter__(self) -> Iterator[Device]:
        return iter(sorted(self._devices.values(), key=lambda device: device.ae_title))

    def get(self, ae_title: str) -> Device | None:
        """The device with this local AE title."""
        return self._devices.get(ae_title)

    def published_as(self, title: str) -> Device | None:
        """The device that the network knows as `title`, if it is published at all."""
        for device in self._devices.values():
            if device.published == title and device.services:
                return device
        return None

    def named(self, title: str) -> Device | None:
        """The published device that people mean by `title`, its published one or else its local."""
        local = self._devices.get(title)
        return self.published_as(title) or (local if local is not None and local.services else None)

    async def put(self, device: Device) -> bool:
        """Add `device`, or replace the one of that AE title; returns whether anything changed.

        Raises Refused (409) when the table is full, or another has its published title.
        """
        if self._devices.get(device.ae_title) == device:
            return False
        if device.ae_title not in self._devices and len(self._devices) >= MAXIMUM_DEVICES:
            raise Refused(409, f"this Router already has {MAXIMUM_DEVICES} devices")
        others = [known for known in self if known.ae_title != device.ae_title]
        if sum(map(_size, [*others, device])) > MAXIMUM_PUBLISHED:
            raise Refused(409, "all publications together are longer than the Bridge can be told")
        await self._database.run(lambda connection: _write(connection, device))
        self._devices[device.ae_title] = device
        return True

    async def remove(self, ae_title: str) -> None:
        """Forget the device. Raises Refused (404) if there is none."""
        if ae_title not in self._devices:
            raise Refused(404, f"no device {ae_title!r}; `relay device list` shows them all")
        await self._database.run(partial(_remove, ae_title=ae_title))
        del self._devices[ae_title]


async def addresses(host: str) -> frozenset[str]:
    """All IP addresses of `host`, as text. Empty if it has none or nobody answers in time."""
    with trio.move_on_after(RESOLVE_DEADLINE):
        try:
            found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return frozenset()
        return frozenset(plain_address(str(row[4][0])) for row in found)
    return frozenset()


def plain_address(address: str) -> str:
    """`address` without a zone, an IPv4 address in IPv6 clothes as what it is (RFC 4291 §2.5.5)."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


async def is_own_listener(device: Device, listening: Sequence[tuple[str, int]]) -> bool:
    """Whether `device` is where this Router itself listens: calls to it would go round for ever."""
    if device.port not in {port for _, port in listening}:
        return False
    bound = {plain_address(host) for host, port in listening if port == device.port}
    everywhere = not bound.isdisjoint({"0.0.0.0", "::"})
    return any(
        address in bound or (everywhere and _is_of_this_machine(address))
        for address in await addresses(device.host)
    )


def _is_of_this_machine(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))  # the system allows it only for an address of its own
        except OSError:
            return False
    return True


def _size(device: Device) -> int:
    if not device.services:
        return 0
    return _STATEMENT_OVERHEAD + sum(len(word) + 2 for word in device.services)


# The table's columns, in the order in which rows are read and written.
_COLUMNS = [field.name for field in attrs.fields(Device)]
_FLAGS = [field.name for field in attrs.fields(Device) if field.type is bool]


def _read(connection: apsw.Connection) -> list[Device]:
    devices = []
    for row in connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM device"):
        entry = dict(zip(_COLUMNS, row, strict=True))
        entry["services"] = frozenset(entry["services"].split())
        entry["move_via"] = MoveVia(entry["move_via"])
        for flag in _FLAGS:
            entry[flag] = bool(entry[flag])
        entry["declares"] = Pairs.from_json(json.loads(entry["declares"] or "null"))
        devices.append(Device(**entry))
    return devices


def _write(connection: apsw.Connection, device: Device) -> None:
    held = connection.execute(
        "SELECT ae_title FROM device WHERE published = ? AND ae_title <> ?",
        (device.published, device.ae_title),
    ).get
    if held is not None:
        raise Refused(
            409,
            f"the network knows {held} as {device.published!r} already:"
            f" give {device.ae_title} another published title",
        )
    entry = attrs.asdict(device) | {
        "services": " ".join(services.ordered(device.services)),
        "move_via": device.move_via.value,
        "declares": json.dumps(device.declares.to_json()) if device.declares else "",
    }
    connection.execute(
        f"INSERT OR REPLACE INTO device ({', '.join(_COLUMNS)})"
        f" VALUES ({', '.join('?' * len(_COLUMNS))})",
        [entry[column] for column in _COLUMNS],
    )


def _remove(connection: apsw.Connection, ae_title: str) -> None:
    connection.execute("DELETE FROM device WHERE ae_title = ?", (ae_title,))
    # What was found out of it is of no use to another one by that name.
    connection.execute("DELETE FROM knowledge_own WHERE device = ?", (ae_title,))


def _declares(value: object) -> Pairs:
    try:
        return Pairs.from_json(value)
    except Refused as error:
        raise Refused(error.status, f"device: declares: {error}") from None


def _issuer(text: str) -> str:
    if "\\" in text:
        raise Refused(400, "device: issuer is one value: without a backslash")
    return text


def _character_set(text: str) -> str:
    problem = character_sets.problem(text)
    if problem:
        raise Refused(400, f"device: character_set: {problem}")
    return "\\".join(character_sets.values(text))


def _host(text: str) -> str:
    host = text.strip().removeprefix("[").removesuffix("]")
    if not 1 <= len(host) <= MAXIMUM_HOST or not all(
        character.isascii() and (character.isalnum() or character in ".-_:%") for character in host
    ):
        raise Refused(400, f"device: host is neither a name nor an IP address: {text[:80]!r}")
    return host
