"""Peers: met, verified, looked up, and their keys that only get newer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
import trio.testing

from relay.database import open_database
from relay.errors import IdentityError, Refused
from relay.identity import Identity, KeyStatement
from relay.invitation import Contact
from relay.router.peers import Peer, PeerTable, Trust
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
        for words, status in ((full[:5], 400), (full[:-1] + "1", 400), (SOUTH.fingerprint, 404)):
            with pytest.raises(Refused) as caught:
                peers.by_fingerprint(words)
            assert caught.value.status == status


async def test_a_whole_fingerprint_that_was_compared_verifies(tmp_path: Path) -> None:
    async with table(tmp_path) as peers:
        await peers.meet(NORTH.public, "North")
        whole = NORTH.fingerprint
        with pytest.raises(Refused, match="all eight groups"):
            await peers.compared(whole[:-5])
        with pytest.raises(Refused, match="do not go on") as caught:
            await peers.compared(SOUTH.fingerprint)
        assert caught.value.status == 404
        with pytest.raises(Refused, match="no fingerprint has '0'"):
            await peers.compared(whole[:-1] + "0")
        with pytest.raises(Refused, match="this has 33 letters"):
            await peers.compared(whole + "a")
        assert not any(peer.verified for peer in peers)
        heard = whole.upper().replace("-", " ")
        assert (await peers.compared(heard)).verified
    async with table(tmp_path) as peers:
        assert [peer.verified for peer in peers] == [True]


async def test_two_whose_fingerprints_begin_alike_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = NORTH.fingerprint[:-4]
    monkeypatch.setattr(
        "relay.router.peers.fingerprint",
        lambda public: alike + ("aaaa" if public == NORTH.public else "bbbb"),
    )
    async with table(tmp_path) as peers:
        await peers.meet(NORTH.public, "North")
        await peers.meet(SOUTH.public, "South")
        with pytest.raises(Refused, match="give more of it") as caught:
            peers.by_fingerprint(alike)
        assert caught.value.status == 409
        assert (await peers.compared(alike + "bbbb")).name == "South"


# --- at the same time -----------------------------------------------------------------------------


async def beside(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: Callable[[PeerTable], Awaitable[object]],
    second: Callable[[PeerTable], Awaitable[object]],
) -> list[Peer]:
    """North, met and with key 5, after `first`, beside whose writing `second` was asked for.

    As it is in memory, and as it is after a restart; the two have to agree.
    """
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        peers = await PeerTable.load(database, Trust.FIRST_USE, NETWORK)
        await peers.meet(NORTH.public, "North")
        await peers.take_key(NORTH.public, key(5), NETWORK)
        run, in_turn = database.run, trio.StrictFIFOLock()
        reached, written = trio.Event(), trio.Event()

        async def held(fn: Callable[[apsw.Connection], Any]) -> Any:
            async with in_turn:
                reached.set()
                await written.wait()
                return await run(fn)

        monkeypatch.setattr(database, "run", held)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first, peers)
                await reached.wait()
                nursery.start_soon(second, peers)
                await trio.testing.wait_all_tasks_blocked()
                written.set()
        kept = list(peers)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        assert list(await PeerTable.load(database, Trust.FIRST_USE, NETWORK)) == kept
    return kept


async def compare(peers: PeerTable) -> None:
    await peers.compared(NORTH.fingerprint)


async def enter(peers: PeerTable) -> None:
    await peers.verify(Contact(NORTH.public, "The North"))


async def rename(peers: PeerTable) -> None:
    await peers.meet(NORTH.public, "Evil")


async def renew(peers: PeerTable) -> None:
    await peers.take_key(NORTH.public, key(6), NETWORK)


async def compare_in_vain(peers: PeerTable) -> None:
    with pytest.raises(Refused, match="called Evil by now: compare it anew"):
        await peers.compared(NORTH.fingerprint)


async def test_what_a_person_compares_the_directory_does_not_undo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (peer,) = await beside(tmp_path, monkeypatch, compare, rename)
    assert (peer.name, peer.verified) == ("North", True)


async def test_what_a_person_enters_the_directory_does_not_undo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (peer,) = await beside(tmp_path, monkeypatch, enter, rename)
    assert (peer.name, peer.verified) == ("The North", True)


async def test_a_name_that_comes_meanwhile_was_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (peer,) = await beside(tmp_path, monkeypatch, rename, compare_in_vain)
    assert (peer.name, peer.verified) == ("Evil", False)


@pytest.mark.parametrize(("first", "second"), [(rename, renew), (renew, rename)])
async def test_a_newer_key_stays(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: Callable[[PeerTable], Awaitable[None]],
    second: Callable[[PeerTable], Awaitable[None]],
) -> None:
    (peer,) = await beside(tmp_path, monkeypatch, first, second)
    assert peer.key is not None
    assert (peer.name, peer.key.serial) == ("Evil", 6)
