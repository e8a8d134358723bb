"""Peers: met, verified, looked up, and their keys that only get newer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.database import open_database
from relay.errors import IdentityError, Refused
from relay.identity import Identity, KeyStatement
from relay.invitation import Contact
from relay.router.peers import PeerTable, Trust
from relay.router.schema import MIGRATIONS
from relay.tunnel.keys import HPKEKeyPair

NETWORK = bytes(16)
NORTH, SOUTH = Identity.from_seed(b"n" * 32), Identity.from_seed(b"s" * 32)
PUBLIC = HPKEKeyPair.from_seed(bytes(96)).public


@asynccontextmanager
async def table(tmp_path: Path, trust: Trust = Trust.FIRST_USE) -> AsyncIterator[PeerTable]:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        yield await PeerTable.load(database, trust, NETWORK)


def key(serial: int, identity: Identity = NORTH, network: bytes = NETWORK) -> bytes:
    return KeyStatement(network, PUBLIC, serial, 10**10).sign(identity)


async def test_a_peer_is_remembered(tmp_path: Path) -> None:
    async with table(tmp_path) as peers:
        await peers.meet(NORTH.public, "North")
        await peers.take_key(NORTH.public, key(5), NETWORK)
    async with table(tmp_path) as peers:
        peer = peers.get(NORTH.public)
        assert peer is not None
        assert (peer.name, peer.verified) == ("North", False)
        assert peer.key is not None
        assert peer.key.serial == 5
        assert (await peers.meet(NORTH.public, "North Hospital")).name == "North Hospital"


async def test_an_older_key_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    async with table(tmp_path) as peers:
        await peers.meet(NORTH.public, "North")
        await peers.take_key(NORTH.public, key(5), NETWORK)
        await peers.take_key(NORTH.public, key(5), NETWORK)  # the same again is no news
    async with table(tmp_path) as peers:
        with pytest.raises(IdentityError, match="serial 4"):
            await peers.take_key(NORTH.public, key(4), NETWORK)
        await peers.take_key(NORTH.public, key(6), NETWORK)


async def test_only_its_own_key_for_this_network(tmp_path: Path) -> None:
    async with table(tmp_path) as peers:
        await peers.meet(NORTH.public, "North")
        for statement in (key(1, SOUTH), key(1, network=b"x" * 16), b"nonsense"):
            with pytest.raises(IdentityError):
                await peers.take_key(NORTH.public, statement, NETWORK)


async def test_trust(tmp_path: Path) -> None:
    async with table(tmp_path) as peers:
        assert not peers.trusted(NORTH.public)
        await peers.meet(NORTH.public, "North")
        assert peers.trusted(NORTH.public)
    async with table(tmp_path, Trust.CONTACTS) as peers:
        assert not peers.trusted(NORTH.public)
        await peers.verify(Contact(NORTH.public, "The North"))
        assert peers.trusted(NORTH.public)
        # what a person entered stays
        assert (await peers.meet(NORTH.public, "Evil")).name == "The North"


async def test_a_contact_may_be_entered_before_the_network_shows_it(tmp_path: Path) -> None:
    async with table(tmp_path) as peers:
        await peers.verify(Contact(SOUTH.public, "South"))
    async with table(tmp_path) as peers:
        assert [peer.verified for peer in peers] == [True]


async def test_lookup_by_fingerprint(tmp_path: Path) -> None:
    async with table(tmp_path) as peers:
        await peers.meet(NORTH.public, "North")
        full = NORTH.fingerprint
        for words in (full, full.upper(), full.replace("-", ""), full[:14]):
            assert peers.by_fingerprint(words).identity == NORTH.public
        for words, status in ((full[:5], 400), (SOUTH.fingerprint, 404)):
            with pytest.raises(Refused) as caught:
                peers.by_fingerprint(words)
            assert caught.value.status == status


async def test_a_whole_fingerprint_that_was_compared_verifies(tmp_path: Path) -> None:
    async with table(tmp_path) as peers:
        await peers.meet(NORTH.public, "North")
        whole = NORTH.fingerprint
        with pytest.raises(Refused, match="all eight groups"):
            await peers.compared(whole[:-5])
        with pytest.raises(Refused, match="no peer has that fingerprint"):
            await peers.compared(SOUTH.fingerprint)
        assert not any(peer.verified for peer in peers)
        heard = whole.upper().replace("-", " ")
        assert (await peers.compared(heard)).verified
    async with table(tmp_path) as peers:
        assert [peer.verified for peer in peers] == [True]
