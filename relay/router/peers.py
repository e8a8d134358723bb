"""The other hospitals: who they are, whether a person has compared that, and their keys.

A peer is an identity. It becomes known by the directory or by a contact string, *verified* once a
person entered or compared its contact, and keeps the newest HPKE key that it has signed: a Bridge
cannot bring an older one back (DESIGN §3).
"""

from collections.abc import Iterable, Iterator
from enum import Enum

import apsw
import attrs

from relay.database import Database
from relay.errors import IdentityError, Refused
from relay.identity import KeyStatement, fingerprint
from relay.invitation import Contact
from relay.router.schema import change

# What a hostile Bridge can make us remember. Far more than hospitals in one network.
MAXIMUM_PEERS = 4096

# The shortest beginning of a fingerprint that may stand for it: 60 bits, more than anybody would
# grind an identity for, and few enough to type.
SHORTEST_FINGERPRINT = 12


class Trust(Enum):
    """What a peer that nobody has compared yet may do."""

    FIRST_USE = "first-use"
    CONTACTS = "contacts"


@attrs.frozen(slots=True)
class Peer:
    """One other Router. `key` is its newest HPKE key, None until it has published one."""

    identity: bytes
    name: str
    verified: bool = False
    key: KeyStatement | None = None

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity)


class PeerTable:
    """All known peers, kept in SQLite and looked up in memory. Made by `load`."""

    def __init__(self, database: Database, trust: Trust, rows: Iterable[Peer]) -> None:
        self._database = database
        self._trust = trust
        self._peers = {peer.identity: peer for peer in rows}

    @classmethod
    async def load(cls, database: Database, trust: Trust, network: bytes) -> "PeerTable":
        """The table as the database has it; key statements are checked again."""
        return cls(
            database, trust, await database.run(lambda connection: _read(connection, network))
        )

    def __iter__(self) -> Iterator[Peer]:
        return iter(sorted(self._peers.values(), key=lambda peer: (peer.name, peer.identity)))

    def get(self, identity: bytes) -> Peer | None:
        """The peer of this identity."""
        return self._peers.get(identity)

    def trusted(self, identity: bytes) -> bool:
        """Whether the trust setting lets anything pass between this peer and us."""
        peer = self._peers.get(identity)
        return peer is not None and (peer.verified or self._trust is Trust.FIRST_USE)

    def by_fingerprint(self, words: str) -> Peer:
        """The peer whose fingerprint this is, or begins with; hyphens, blanks and case do not
        matter.

        Raises Refused (404) if there is none, (409) if there are several, (400) if it is too short.
        """
        wanted = _letters(words)
        if len(wanted) < SHORTEST_FINGERPRINT:
            raise Refused(400, f"give at least {SHORTEST_FINGERPRINT} letters of the fingerprint")
        found = [
            peer for peer in self._peers.values() if _letters(peer.fingerprint).startswith(wanted)
        ]
        if not found:
            raise Refused(404, "no peer has that fingerprint; `relay peer list` shows them all")
        if len(found) > 1:
            raise Refused(409, "several peers' fingerprints begin so; give more of it")
        return found[0]

    async def meet(self, identity: bytes, name: str) -> Peer:
        """The directory names this peer. A verified peer keeps the name a person knows it by.

        Raises Refused (409) when the table is full.
        """
        known = self._peers.get(identity)
        if known is None:
            self._check_room()
            return await self._put(Peer(identity, name))
        if known.verified or known.name == name:
            return known
        return await self._put(attrs.evolve(known, name=name))

    async def take_key(self, identity: bytes, statement: bytes, network: bytes) -> None:
        """Keep the HPKE key that `statement` brings, if it is the peer's newest.

        Raises IdentityError if it is not the peer's own statement for this network, or older than
        one that we have seen.
        """
        peer = self._peers[identity]
        owner, key = KeyStatement.open(statement, network)
        if owner != identity:
            raise IdentityError(f"HPKE key of {peer.fingerprint} is signed by another identity")
        if peer.key == key:
            return
        if peer.key is not None and key.serial <= peer.key.serial:
            raise IdentityError(
                f"HPKE key of {peer.fingerprint} has serial {key.serial};"
                f" serial {peer.key.serial} was seen before"
            )
        await self._database.run(
            change(
                "UPDATE peer SET key_statement = ?, key_serial = ? WHERE identity = ?",
                statement,
                key.serial,
                identity,
            )
        )
        self._peers[identity] = attrs.evolve(self._peers[identity], key=key)

    async def verify(self, contact: Contact) -> Peer:
        """A person says that this contact is real, whether or not the network has shown it yet."""
        known = self._peers.get(contact.public)
        if known is None:
            self._check_room()
            known = Peer(contact.public, contact.name)
        return await self._put(attrs.evolve(known, name=contact.name, verified=True))

    async def compared(self, words: str) -> Peer:
        """A person has compared the whole fingerprint of a peer that is known, by telephone.

        Raises Refused as `by_fingerprint` does, and (400) for a part of one: of two identities
        that begin alike a Bridge could show the other.
        """
        peer = self.by_fingerprint(words)
        if len(_letters(words)) < len(_letters(peer.fingerprint)):
            raise Refused(400, "compare the whole fingerprint, all eight groups of four letters")
        return await self._put(attrs.evolve(peer, verified=True))

    def _check_room(self) -> None:
        if len(self._peers) >= MAXIMUM_PEERS:
            raise Refused(409, f"this Router already knows {MAXIMUM_PEERS} peers")

    async def _put(self, peer: Peer) -> Peer:
        await self._database.run(
            change(
                "INSERT INTO peer (identity, name, verified, key_statement, key_serial)"
                " VALUES (?, ?, ?, x'', 0) ON CONFLICT (identity)"
                " DO UPDATE SET name = excluded.name, verified = excluded.verified",
                peer.identity,
                peer.name,
                int(peer.verified),
            )
        )
        self._peers[peer.identity] = peer
        return peer


def _letters(words: str) -> str:
    """A fingerprint as people write it, without what stands between its letters."""
    return "".join(words.replace("-", " ").split()).lower()


def _read(connection: apsw.Connection, network: bytes) -> list[Peer]:
    peers = []
    for identity, name, verified, statement in connection.execute(
        "SELECT identity, name, verified, key_statement FROM peer"
    ):
        key = KeyStatement.open(statement, network)[1] if statement else None
        peers.append(Peer(identity, name, bool(verified), key))
    return peers
