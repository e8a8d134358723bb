"""Who publishes which AE title: what the Bridge says, checked, and pinned.

The Bridge passes on publications that their owners have signed. The first owner of a title is
pinned, durably; when another identity publishes it later, the title carries nothing until a person
accepts the change (DESIGN §3). The Bridge can hide titles and misroute, never bind them anew.

What concerns this Router (whom it grants anything, who grants it anything, whom it sought) comes
signed, in Directory; of all the others there is a listing, which is the Bridge's word alone. That
is enough to show people what there is, as not signed, and to refuse; nothing is ever sent upon it.
Only the name of a C-MOVE's destination passes by it to the peer that is asked, whose Router lets
nothing go there but by its own directory.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
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
from relay.router.refusals import NOT_PUBLISHED, NOTHING_GRANTED
from relay.signalling import messages

log = structlog.get_logger()

# What a hostile Bridge can make us remember: each peer with some titles.
MAXIMUM_TITLES = 16384

# What it can make us list, for as long as we are connected: a hundred bytes each.
MAXIMUM_LISTED_TITLES = 65536

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
class _Listed:
    """A Router as the Bridge lists it: its titles, with their services."""

    name: str
    titles: Mapping[str, frozenset[str]]


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
        # All Routers, and who is listed with a title; what comes in of a new listing until the
        # snapshot behind it begins; and who was connected when a person last looked.
        self._listed: dict[bytes, _Listed] = {}
        self._claimed: dict[str, bytes] = {}
        self._coming: dict[bytes, _Listed] | None = None
        self._present: frozenset[bytes] = frozenset()
        self.looked_at = -inf  # by trio's clock
        self._news = trio.Event()
        # By owner and title.
        self._granted: dict[tuple[bytes, str], frozenset[str]] = {}
        self.knows_grants = False  # since this process began
        self.grants_told = 0  # how often the Bridge has said what is granted
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

    async def take(self, message: messages.Listing | messages.Directory | messages.Granted) -> None:
        """Take in what the Bridge says. What does not hold is left out and logged."""
        match message:
            case messages.Granted():
                self._take_granted(message)
            case messages.Listing():
                await self._take_listing(message)
            case messages.Directory():
                await self._take_directory(message)
        self._news.set()

    def take_present(self, identities: Iterable[bytes]) -> None:
        """Who is connected now, as the Bridge says."""
        self._present = frozenset(identities)

    async def wait_news(self) -> None:
        """Return once something more was taken in."""
        if self._news.is_set():
            self._news = trio.Event()
        await self._news.wait()

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
        if publication is None and self._claimed.get(title, self._own) != self._own:
            raise rejected(
                CALLING_AE_TITLE_NOT_RECOGNIZED,
                f"{self._listed[self._claimed[title]].name} {NOTHING_GRANTED} {title}: ask with"
                f" `relay grant ask {title} --services …`",
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
        """Whose `title` is, if it is published and undisputed.

        Of what does not concern this Router it is the Bridge's word, enough to refuse upon.
        """
        if self._published(title) is None:
            return self._claimed.get(title)
        return self._bound(title)

    def signed_owner(self, title: str) -> bytes | None:
        """Whose `title` is by its owner's own word, if that is here and undisputed."""
        return self._bound(title)

    def listed_owner(self, title: str) -> bytes | None:
        """Whose `title` is by the Bridge's word alone, as people are shown it."""
        return self._claimed.get(title)

    def is_published(self, title: str) -> bool:
        """Whether anybody publishes `title`, disputed or not."""
        return title in self._claimed or self._published(title) is not None

    def is_shown(self, title: str) -> bool:
        """Whether its owner's own word for `title` is here, and not only the Bridge's."""
        return title in self._publications

    def is_reachable(self, title: str) -> bool:
        """Whether the Router that owns `title` is connected, as the Bridge says."""
        owner = self._bound(title)
        return owner is not None and self._connected.get(owner, False)

    def granted(self, title: str) -> frozenset[str]:
        """What the owner of `title` grants us of it, as the Bridge says.

        To show people, and to refuse early what cannot be: the owner's Router decides.
        """
        owner = self._bound(title)
        return self._granted.get((owner, title), frozenset()) if owner else frozenset()

    def granted_titles(self, service: str) -> Iterator[tuple[str, Peer, frozenset[str]]]:
        """Each title of which `service` is granted us, with its owner and all that is.

        By the Bridge's word, as `granted`; also what its owner's own word is not here for yet, or
        whose Router is away. Not what is disputed, nor what is of a peer that is not trusted.
        """
        for (owner, title), words in sorted(self._granted.items()):
            peer = self._peers.get(owner)
            if service not in words or peer is None or not self._peers.trusted(owner):
                continue
            binding = self._bindings.get(title)
            undisputed = binding is None or (binding.identity, binding.claimant) == (owner, None)
            if undisputed and owner != self._own:
                yield title, peer, words

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
        claims = defaultdict[bytes | None, list[str]](list)
        for title, binding in sorted(self._bindings.items()):
            claims[binding.claimant].append(title)
        for peer in self._peers:
            yield {
                "fingerprint": peer.fingerprint,
                "name": peer.name,
                "verified": peer.verified,
                "state": self.standing(peer).value,
                "connected": self._is_connected(peer.identity),
                "enrolled": peer.identity in self._connected or peer.identity in self._listed,
                "claims": claims[peer.identity],
            }

    def to_json(self) -> Iterator[dict[str, Any]]:
        """All published titles, for people; `signed` where it is not the Bridge's word alone."""
        for title in sorted(self._publications.keys() | self._claimed.keys()):
            publication, binding = self._publications.get(title), self._bindings.get(title)
            if publication is not None and binding is not None:
                said, owner, claimant = publication.services, binding.identity, binding.claimant
                signed = True
            else:
                signed = False
                owner, claimant = self._claimed[title], None
                said = tuple(self._listed[owner].titles[title])
            peer = self._peers.get(owner)
            own = owner == self._own
            yield {
                "ae_title": title,
                "services": list(services.ordered(said)),
                "granted": list(services.ordered(self.granted(title))),
                "peer": fingerprint(owner),
                "name": peer.name if peer else "",
                "own": own,
                "signed": signed,
                "connected": own or self._is_connected(owner),
                "claimed_by": fingerprint(claimant) if claimant else None,
            }

    def _is_connected(self, identity: bytes) -> bool:
        return self._connected.get(identity, identity in self._present)

    def _bound(self, title: str) -> bytes | None:
        """Whose `title` is by its owner's word, if that is undisputed."""
        binding = self._bindings.get(title)
        if self._published(title) is None or binding is None or binding.claimant is not None:
            return None
        return binding.identity

    async def _take_directory(self, message: messages.Directory) -> None:
        if message.whole:
            self._begin_snapshot()
        for identity, name, statement, connected in message.routers:
            if identity != self._own:
                await self._take_router(identity, name, statement, connected)
        await self._take_publications(message.publications)
        for identity in message.gone_routers:
            self._connected.pop(identity, None)
            self._list(identity, None)
        for title in message.gone_titles:
            self._publications.pop(title, None)
            self._earlier.pop(title, None)
        if message.whole:
            # Behind the rows: what concerns us is never taken for what is only listed.
            self._begin_listing()

    async def _take_listing(self, message: messages.Listing) -> None:
        if message.whole:
            self._coming = {}
        known = self._listed if self._coming is None else self._coming
        room = MAXIMUM_LISTED_TITLES - sum(len(listed.titles) for listed in known.values())
        for identity, name, published in message.routers:
            if identity != self._own and not await self._meet(identity, name):
                continue
            if (before := known.get(identity)) is not None:
                room += len(before.titles)
            titles = {title: _words(said) for title, said in published}
            if len(titles) > room:
                log.warning("too many AE titles are listed", peer=fingerprint(identity))
                titles.clear()
            room -= len(titles)
            self._list(identity, _Listed(_shown(name), titles))

    def _begin_listing(self) -> None:
        """What came in of a new listing holds from here on."""
        if self._coming is None:
            return
        coming, self._coming = self._coming, None
        self._listed.clear()
        self._claimed.clear()
        for identity, listed in coming.items():
            self._list(identity, listed)

    def _list(self, identity: bytes, listed: _Listed | None) -> None:
        """Take that into the listing in place of what was said of `identity`."""
        if self._coming is not None:
            if listed is None:
                self._coming.pop(identity, None)
            else:
                self._coming[identity] = listed
            return
        before = self._listed.pop(identity, None)
        for title in before.titles if before is not None else ():
            if self._claimed.get(title) == identity:
                del self._claimed[title]
        if listed is not None:
            self._listed[identity] = listed
            self._claimed.update(dict.fromkeys(listed.titles, identity))

    def _take_granted(self, message: messages.Granted) -> None:
        self._granted = {(owner, title): frozenset(words) for owner, title, words in message.rows}
        self.knows_grants = True
        self.grants_told += 1
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
        if not await self._meet(identity, name):
            return
        self._connected[identity] = connected
        try:
            if statement:
                await self._peers.take_key(identity, statement, self._network)
        except RelayError as error:  # a full disk too: the next row may need no writing
            log.warning("directory entry refused", peer=fingerprint(identity), why=str(error))

    async def _meet(self, identity: bytes, name: str) -> bool:
        """Know the peer; False, and logged, if it cannot be kept."""
        try:
            await self._peers.meet(identity, _shown(name))
        except RelayError as error:
            log.warning("directory entry refused", peer=fingerprint(identity), why=str(error))
            return False
        return True

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


# Far more than differ in a network: hospitals publish in a dozen ways.
@lru_cache(maxsize=256)
def _words(said: tuple[str, ...]) -> frozenset[str]:
    """One set for all titles that say the same."""
    return frozenset(said)


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
