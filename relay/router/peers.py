"""The other hospitals: who they are, whether a person has compared that, and their keys.

A peer is an identity. It becomes known by the directory or by a contact string, *verified* once a
person entered or compared its contact, and keeps the newest HPKE key that it has signed: a Bridge
cannot bring an older one back (DESIGN §3).
"""

import re
from collections.abc import Iterable, Iterator
from enum import Enum

import apsw
import attrs
import trio

from relay.database import Database
from relay.errors import IdentityError, Refused
from relay.identity import KeyStatement, fingerprint
from relay.invitation import Contact
from relay.router.schema import change

# What a hostile Bridge can make us remember. Far more than hospitals in one network.
MAXIMUM_PEERS = 4096

# The shortest beginning of a fingerprint that may stand for it: 60 bits, few enough to type, and so
# many that no two identities begin alike by chance. Somebody with years to try keys in can make one
# that does (relay.identity.fingerprint): so it stands only for the one peer here that has it, what
# is answered has the whole fingerprint, and nobody is verified by less than that.
SHORTEST_FINGERPRINT = 12

FINGERPRINT_LETTERS = 32

# Base32 (RFC 4648 §6) has no others.
_NO_LETTER = re.compile("[^a-z2-7]")


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
        # Held from the look at a peer until it is written: what came between would be undone.
        self._changing = trio.Lock()

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

        Raises Refused (404) if there is none, (409) if there are several, (400) if it is too short,
        or has what no fingerprint has.
        """
        wanted = letters_of(words)
        if len(wanted) < SHORTEST_FINGERPRINT:
            raise Refused(400, f"give at least {SHORTEST_FINGERPRINT} letters of the fingerprint")
        found = [
            peer for peer in self._peers.values() if letters_of(peer.fingerprint).startswith(wanted)
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
        if (same := self._named(identity, name)) is not None:
            return same  # the usual case: what writes nothing waits for nobody
        async with self._changing:
            if (same := self._named(identity, name)) is not None:
                return same
            known = self._peers.get(identity)
            if known is None:
                self._check_room()
                return await self._put(Peer(identity, name))
            return await self._put(attrs.evolve(known, name=name))

    def _named(self, identity: bytes, name: str) -> Peer | None:
        """The peer, if it keeps the name that it has when the directory names it so."""
        known = self._peers.get(identity)
        return known if known is not None and (known.verified or known.name == name) else None

    async def take_key(self, identity: bytes, statement: bytes, network: bytes) -> None:
        """Keep the HPKE key that `statement` brings, if it is the peer's newest.

        Raises IdentityError if it is not the peer's own statement for this network, or older than
        one that we have seen.
        """
        owner, key = KeyStatement.open(statement, network)
        if owner != identity:
            raise IdentityError(
                f"HPKE key of {fingerprint(identity)} is signed by another identity"
            )
        if self._peers[identity].key == key:
            return
        async with self._changing:
            peer = self._peers[identity]
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
            self._peers[identity] = attrs.evolve(peer, key=key)

    async def verify(self, contact: Contact) -> Peer:
        """A person says that this contact is real, whether or not the network has shown it yet."""
        async with self._changing:
            known = self._peers.get(contact.public)
            if known is None:
                self._check_room()
                known = Peer(contact.public, contact.name)
            return await self._put(attrs.evolve(known, name=contact.name, verified=True))

    def heard(self, words: str) -> Peer:
        """The peer whose whole fingerprint this is, as somebody read it out.

        Raises Refused (400) for a part of one, since of two identities that begin alike a Bridge
        could show the other; and (404) with a warning if no peer has it.
        """
        wanted = whole_fingerprint(words)
        for peer in self._peers.values():
            if peer.fingerprint == wanted:
                return peer
        raise nobody_has_it()

    async def compared(self, words: str) -> Peer:
        """A person has compared the whole fingerprint of a peer that is known, by telephone.

        Raises Refused as `heard` does, and (409) if the peer is being called otherwise meanwhile.
        """
        name = self.heard(words).name
        async with self._changing:
            peer = self.heard(words)
            if peer.name != name:
                raise renamed(peer)
            return await self._put(attrs.evolve(peer, verified=True))

    def _check_room(self) -> None:
        if len(self._peers) >= MAXIMUM_PEERS:
            raise Refused(409, f"this Router already knows {MAXIMUM_PEERS} peers")

    async def _put(self, peer: Peer) -> Peer:
        """For who holds `_changing`, and has made `peer` of what was known since then."""
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


def renamed(peer: Peer) -> Refused:
    """That the peer is not called as it was when two people compared its fingerprint."""
    return Refused(409, f"this hospital is called {peer.name} by now: compare it anew")


def nobody_has_it() -> Refused:
    """That no peer has the whole fingerprint that somebody read out: the sign of another identity
    in the place of theirs."""
    return Refused(
        404,
        "no hospital here has this fingerprint. If they read it out from their own page, do not go"
        " on: another identity may stand here in their place. Have it read out again, letter by"
        " letter; if it stays different, grant them nothing, and tell whoever runs the Bridge",
    )


def letters_of(words: str) -> str:
    """A fingerprint as people write it, without what stands between its letters.

    Raises Refused (400) for what no fingerprint has.
    """
    letters = "".join(words.replace("-", " ").split()).lower()
    if found := _NO_LETTER.search(letters):
        raise Refused(
            400,
            f"no fingerprint has {found[0]!r}: it is of the letters a to z and the digits 2 to 7",
        )
    return letters


def whole_fingerprint(words: str) -> str:
    """The fingerprint that somebody read out, as `Peer.fingerprint` is written.

    Raises Refused (400) for a part of one, for more than one, and for what none has.
    """
    letters = letters_of(words)
    if len(letters) != FINGERPRINT_LETTERS:
        raise Refused(
            400,
            "compare the whole fingerprint, all eight groups of four letters:"
            f" this has {len(letters)} letters",
        )
    return "-".join(letters[at : at + 4] for at in range(0, FINGERPRINT_LETTERS, 4))


def _read(connection: apsw.Connection, network: bytes) -> list[Peer]:
    peers = []
    for identity, name, verified, statement in connection.execute(
        "SELECT identity, name, verified, key_statement FROM peer"
    ):
        key = KeyStatement.open(statement, network)[1] if statement else None
        peers.append(Peer(identity, name, bool(verified), key))
    return peers
