"""Who publishes which AE title: what the Bridge says, checked, and pinned.

The Bridge passes on publications that their owners have signed. The first owner of a title is
pinned, durably; when another identity publishes it later, the title carries nothing until a person
accepts the change (DESIGN §3). The Bridge can hide titles and misroute, never bind them anew.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from math import inf
from typing import Any

import apsw
import attrs
import structlog
import trio

from relay.database import Database
from relay.dicom.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    TEMPORARY_CONGESTION,
    rejected,
)
from relay.errors import IdentityError, Refused, RelayError
from relay.identity import KeyStatement, Publication, fingerprint
from relay.router import services
from relay.router.peers import Peer, PeerTable
from relay.router.refusals import NOT_PUBLISHED
from relay.signalling import messages

log = structlog.get_logger()

# What a hostile Bridge can make us remember: each peer with some titles.
MAXIMUM_TITLES = 16384

# A snapshot comes in parts, and nothing says which is the last. What was known before holds for so
# many seconds more if it is not shown again: longer than the largest snapshot takes to be checked.
SETTLING = 30.0


class Standing(Enum):
    """Where we stand with the owner of a title, or with a peer."""

    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    CHANGED = "changed"


@attrs.frozen(slots=True)
class Binding:
    """Whose a title is, and who else claims it: that one waits for a person's word."""

    identity: bytes
    serial: int
    claimant: bytes | None = None
    claimant_serial: int = 0


@attrs.frozen(slots=True)
class Route:
    """Where a call to `ae_title` goes."""

    ae_title: str
    peer: Peer
    key: KeyStatement
    services: frozenset[str]


class Directory:
    """The network as this Router sees it. Made by `load`; fed with the Bridge's messages."""

    def __init__(
        self,
        database: Database,
        peers: PeerTable,
        network: bytes,
        own: bytes,
        bindings: dict[str, Binding],
    ) -> None:
        self._database = database
        self._peers = peers
        self._network = network
        self._own = own
        self._bindings = bindings
        # What the Bridge shows now, in memory only: after a restart it shows it again.
        self._connected: dict[bytes, bool] = {}
        self._publications: dict[str, Publication] = {}
        # By owner and title.
        self._granted: dict[tuple[bytes, str], frozenset[str]] = {}
        # What was known before the snapshot that is coming in and has not been shown again yet;
        # None: from an earlier run, which the database remembers only as a binding.
        self._earlier: dict[str, Publication | None] = dict.fromkeys(bindings)
        self._settled = inf  # when it is over, by trio's clock

    @classmethod
    async def load(
        cls, database: Database, peers: PeerTable, network: bytes, own: bytes
    ) -> "Directory":
        """The directory with the bindings that the database has; `own` is our own identity."""
        return cls(database, peers, network, own, await database.run(_read))

    async def take(self, message: messages.Directory | messages.Granted) -> None:
        """Take in what the Bridge says. What does not hold is left out and logged."""
        if isinstance(message, messages.Granted):
            self._take_granted(message)
            return
        if message.whole:
            self._begin_snapshot()
        for identity, name, statement, connected in message.routers:
            if identity != self._own:
                await self._take_router(identity, name, statement, connected)
        await self._take_publications(message.publications)
        for identity in message.gone_routers:
            self._connected.pop(identity, None)
        for title in message.gone_titles:
            self._publications.pop(title, None)
            self._earlier.pop(title, None)

    def resolve(self, title: str, now: int) -> Route:
        """Where to call `title`; `now` is Unix seconds.

        Raises AssociationRejected, as the device that calls should be told (DESIGN §11).
        """
        publication = self._published(title)
        binding = self._bindings.get(title)
        if publication is None and title in self._earlier and self._settling:
            raise rejected(
                TEMPORARY_CONGESTION,
                f"the Bridge has not said yet whether {title!r} is published still",
            )
        if publication is None or binding is None:
            raise rejected(
                CALLED_AE_TITLE_NOT_RECOGNIZED,
                f"called AE title {title!r} {NOT_PUBLISHED}; `relay peer list` shows what there is",
            )
        if binding.claimant is not None:
            raise rejected(
                CALLING_AE_TITLE_NOT_RECOGNIZED,
                f"{title!r} is published by another hospital than before: compare fingerprints, "
                f"then `relay peer accept {fingerprint(binding.claimant)}`",
            )
        if binding.identity == self._own:
            raise rejected(
                CALLED_AE_TITLE_NOT_RECOGNIZED,
                f"{title!r} is a device of this hospital: it is called directly",
            )
        peer = self._peers.get(binding.identity)
        if peer is None or not self._peers.trusted(binding.identity):
            raise rejected(
                CALLING_AE_TITLE_NOT_RECOGNIZED,
                f"{title!r} belongs to a peer whose contact was never verified",
            )
        if peer.key is None or peer.key.expires <= now:
            raise rejected(
                TEMPORARY_CONGESTION, f"the Router of {title!r} has published no key that holds now"
            )
        return Route(title, peer, peer.key, frozenset(publication.services))

    def owner(self, title: str) -> bytes | None:
        """Whose `title` is, if it is published and undisputed."""
        binding = self._bindings.get(title)
        if self._published(title) is None or binding is None or binding.claimant is not None:
            return None
        return binding.identity

    def is_published(self, title: str) -> bool:
        """Whether anybody publishes `title`, disputed or not."""
        return self._published(title) is not None

    def is_reachable(self, title: str) -> bool:
        """Whether the Router that owns `title` is connected, as the Bridge says."""
        owner = self.owner(title)
        return owner is not None and self._connected.get(owner, False)

    def granted(self, title: str) -> frozenset[str]:
        """What the owner of `title` grants us of it, as the Bridge says.

        To show people, and to refuse early what cannot be: the owner's Router decides.
        """
        owner = self.owner(title)
        return self._granted.get((owner, title), frozenset()) if owner else frozenset()

    def permits(self, title: str, identity: bytes) -> bool:
        """Whether a call to `title` that went to `identity` may go on.

        Whether the title is published still is the owner's to say, who ends it then.
        """
        binding = self._bindings.get(title)
        return (
            binding is not None
            and binding.identity == identity
            and binding.claimant is None
            and self._peers.trusted(identity)
        )

    def standing(self, peer: Peer) -> Standing:
        """Where we stand with `peer`: CHANGED while it claims what was another's."""
        if any(binding.claimant == peer.identity for binding in self._bindings.values()):
            return Standing.CHANGED
        return Standing.VERIFIED if peer.verified else Standing.UNVERIFIED

    async def accept(self, peer: Peer) -> list[str]:
        """A person accepts all titles that `peer` claims; returns them.

        Raises Refused (409) if it claims none.
        """
        claimed = {
            title: Binding(peer.identity, binding.claimant_serial)
            for title, binding in self._bindings.items()
            if binding.claimant == peer.identity
        }
        if not claimed:
            raise Refused(409, f"{peer.name} claims no AE title that was another's")
        await self._bind(claimed)
        for title in claimed:
            log.info("changed binding accepted", ae_title=title, peer=peer.fingerprint)
        return sorted(claimed)

    def peers_json(self) -> Iterator[dict[str, Any]]:
        """All peers, for people."""
        for peer in self._peers:
            yield {
                "fingerprint": peer.fingerprint,
                "name": peer.name,
                "verified": peer.verified,
                "state": self.standing(peer).value,
                "connected": self._connected.get(peer.identity, False),
                "enrolled": peer.identity in self._connected,
                "claims": sorted(
                    title
                    for title, binding in self._bindings.items()
                    if binding.claimant == peer.identity
                ),
            }

    def to_json(self) -> Iterator[dict[str, Any]]:
        """All published titles, for people."""
        for title, publication in sorted(self._publications.items()):
            binding = self._bindings[title]
            peer = self._peers.get(binding.identity)
            own = binding.identity == self._own
            yield {
                "ae_title": title,
                "services": list(services.ordered(publication.services)),
                "granted": list(services.ordered(self.granted(title))),
                "peer": fingerprint(binding.identity),
                "name": peer.name if peer else "",
                "own": own,
                "connected": own or self._connected.get(binding.identity, False),
                "claimed_by": fingerprint(binding.claimant) if binding.claimant else None,
            }

    def _take_granted(self, message: messages.Granted) -> None:
        self._granted = {(owner, title): frozenset(words) for owner, title, words in message.rows}
        if message.left_out:
            log.warning("the Bridge cannot say all that is granted", left_out=message.left_out)

    def _begin_snapshot(self) -> None:
        earlier = self._earlier if self._settling else {}
        self._earlier = {**dict.fromkeys(self._bindings), **earlier, **self._publications}
        self._settled = trio.current_time() + SETTLING
        self._publications.clear()
        self._connected.clear()

    @property
    def _settling(self) -> bool:
        return trio.current_time() < self._settled

    def _published(self, title: str) -> Publication | None:
        """The publication that the Bridge shows, or showed before what is coming in now."""
        found = self._publications.get(title)
        return self._earlier.get(title) if found is None and self._settling else found

    async def _take_router(
        self, identity: bytes, name: str, statement: bytes, connected: bool
    ) -> None:
        try:
            await self._peers.meet(identity, _shown(name))
            self._connected[identity] = connected
            if statement:
                await self._peers.take_key(identity, statement, self._network)
        except RelayError as error:  # a full disk too: the next row may need no writing
            log.warning("directory entry refused", peer=fingerprint(identity), why=str(error))

    async def _take_publications(self, statements: Iterable[bytes]) -> None:
        taken: list[Publication] = []
        bindings: dict[str, Binding] = {}
        for statement in statements:
            try:
                owner, publication = Publication.open(statement, self._network)
                services.parse(publication.services)
                bindings[publication.ae_title] = self._pinned(owner, publication, bindings)
            except RelayError as error:
                log.warning("publication refused", why=str(error))
            else:
                taken.append(publication)
        new = {title: b for title, b in bindings.items() if self._bindings.get(title) != b}
        try:
            # All in one transaction: a peer that publishes again and again must not keep the disk
            # busy with hundreds of them.
            await self._bind(new)
        except RelayError as error:
            log.warning("publications refused", titles=len(new), why=str(error))
            taken = [publication for publication in taken if publication.ae_title not in new]
        for publication in taken:
            self._publications[publication.ae_title] = publication
            self._earlier.pop(publication.ae_title, None)

    def _pinned(
        self, owner: bytes, publication: Publication, new: Mapping[str, Binding]
    ) -> Binding:
        """The binding of a title once `owner` publishes it; `new` are not yet kept."""
        title = publication.ae_title
        binding = new.get(title) or self._bindings.get(title)
        if binding is None:
            if len(self._bindings.keys() | new.keys()) >= MAXIMUM_TITLES:
                raise Refused(409, f"more than {MAXIMUM_TITLES} AE titles")
            return Binding(owner, publication.serial)
        if owner == binding.identity:
            if publication.serial < binding.serial:
                raise IdentityError(f"publication of {title!r} is older than one seen before")
            # Back with its owner: whoever claimed it meanwhile has lost the claim.
            return Binding(owner, publication.serial)
        if owner == binding.claimant and publication.serial < binding.claimant_serial:
            raise IdentityError(f"publication of {title!r} is older than one seen before")
        if owner != binding.claimant:
            log.warning(
                "AE title published by another hospital than before",
                ae_title=title,
                was=fingerprint(binding.identity),
                claims=fingerprint(owner),
            )
        return attrs.evolve(binding, claimant=owner, claimant_serial=publication.serial)

    async def _bind(self, bindings: Mapping[str, Binding]) -> None:
        if not bindings:
            return
        rows = [(title, *attrs.astuple(binding)) for title, binding in bindings.items()]

        def write(connection: apsw.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO binding"
                " (ae_title, identity, serial, claimant, claimant_serial) VALUES (?, ?, ?, ?, ?)",
                rows,
            )

        await self._database.run(write)
        self._bindings.update(bindings)


def _shown(name: str) -> str:
    """A peer's name as the Bridge gives it, without what could disguise a line of a terminal."""
    return "".join(character if character.isprintable() else "�" for character in name)


def _read(connection: apsw.Connection) -> dict[str, Binding]:
    rows: Iterable[Any] = connection.execute(
        "SELECT ae_title, identity, serial, claimant, claimant_serial FROM binding"
    )
    return {
        title: Binding(identity, serial, claimant, claimant_serial)
        for title, identity, serial, claimant, claimant_serial in rows
    }
