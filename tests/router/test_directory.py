"""The directory: what the Bridge says is checked, and a title stays with whom it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.database import Database
from relay.errors import AssociationRejected, DatabaseError, Refused
from relay.identity import Identity
from relay.router import directory as module
from relay.router.directory import Directory, Standing
from relay.router.node import Node, unix_time
from relay.router.peers import Trust
from relay.signalling import messages
from tests.router.fakes import hospital, listing, publication, router_row

NOW = unix_time()


def reason(directory: Directory, title: str) -> tuple[int, int, int]:
    with pytest.raises(AssociationRejected) as caught:
        directory.resolve(title, NOW)
    return (caught.value.result, caught.value.source, caught.value.reason)


async def test_a_published_title_leads_to_its_owner(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        assert reason(directory, "PACS") == (1, 1, 7)
        await directory.take(listing(north, publications=[publication(north, "PACS", "store")]))
        route = directory.resolve("PACS", NOW)
        assert route.peer.identity == north.identity.public
        assert route.key.key_id in north.keyring.pairs
        assert route.services == {"store"}
        assert directory.owner("PACS") == north.identity.public
        gone = messages.Directory(False, (), (), (), ("PACS",))
        await directory.take(gone)
        assert reason(directory, "PACS") == (1, 1, 7)


async def test_a_snapshot_forgets_what_was_before(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        await directory.take(listing(north, publications=[publication(north, "A", "store")]))
        await directory.take(listing(whole=False, publications=[publication(north, "B", "store")]))
        assert [row["ae_title"] for row in directory.to_json()] == ["A", "B"]
        await directory.take(listing(north))
        assert list(directory.to_json()) == []


async def test_a_snapshot_that_is_coming_in_hides_nothing(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        await directory.take(listing(north, publications=[publication(north, "PACS", "store")]))
        for _ in range(2):  # the second one because the first was cut short
            await directory.take(listing(north))
            assert directory.resolve("PACS", NOW).services == {"store"}
            assert directory.owner("PACS") == north.identity.public
        now = publication(north, "PACS", "echo", serial=2)
        await directory.take(listing(whole=False, publications=[now]))
        assert directory.resolve("PACS", NOW).services == {"echo"}


async def test_a_title_that_is_not_shown_again_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLING", 0.0)
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        await directory.take(listing(north, publications=[publication(north, "PACS", "store")]))
        for _ in range(2):
            await directory.take(listing(north))
            assert reason(directory, "PACS") == (1, 1, 7)
            assert directory.owner("PACS") is None


async def test_after_a_start_a_known_title_is_only_not_there_yet(tmp_path: Path) -> None:
    async with hospital(tmp_path / "north") as north:
        ours = publication(north, "PACS", "store")
        async with hospital(tmp_path / "me") as me:
            await me.joined().directory.take(listing(north, publications=[ours]))
        async with hospital(tmp_path / "me") as me:
            directory = me.joined().directory
            assert reason(directory, "PACS") == (2, 3, 1)
            assert reason(directory, "NEVER SEEN") == (1, 1, 7)
            await directory.take(listing(north))
            assert reason(directory, "PACS") == (2, 3, 1)
            gone = messages.Directory(False, (), (), (), ("PACS",))
            await directory.take(gone)
            assert reason(directory, "PACS") == (1, 1, 7)


def row(node: Node, *titles: str) -> Any:
    """A node as it is listed."""
    published = tuple((title, ("echo", "store")) for title in titles)
    return node.identity.public, node.contact.name, published


def listed(*rows: Any, whole: bool = True) -> messages.Listing:
    return messages.Listing(whole, rows)


async def test_what_is_only_listed_is_shown_and_refused(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        await directory.take(listed(row(me, "OURS"), row(north, "PACS")))
        await directory.take(listing())
        shown = {line["ae_title"]: line for line in directory.to_json()}
        assert shown["OURS"]["own"]
        assert shown["PACS"]["services"] == ["echo", "store"]
        assert shown["PACS"]["name"] == north.contact.name
        assert not shown["PACS"]["connected"]
        assert not shown["PACS"]["signed"]
        assert directory.listed_owner("PACS") == north.identity.public
        assert directory.signed_owner("PACS") is None
        assert [peer["enrolled"] for peer in directory.peers_json()] == [True]
        directory.take_present([north.identity.public])
        assert [line["connected"] for line in directory.to_json()] == [True, True]
        assert [peer["connected"] for peer in directory.peers_json()] == [True]
        # Enough to refuse, and never to send upon: it is the Bridge's word alone.
        assert directory.owner("PACS") == north.identity.public
        assert directory.is_published("PACS")
        assert not directory.is_shown("PACS")
        assert not directory.is_reachable("PACS")
        assert reason(directory, "PACS") == (1, 1, 3)
        with pytest.raises(AssociationRejected, match="granted this Router nothing of PACS: ask"):
            directory.resolve("PACS", NOW)
        rows = ((north.identity.public, "PACS", ("store",)),)
        await directory.take(messages.Granted(rows, 0))
        assert directory.granted("PACS") == set()
        assert not directory.permits("PACS", north.identity.public)
        # The owner's own word comes.
        await directory.take(listing(north, publications=[publication(north, "PACS", "store")]))
        assert directory.resolve("PACS", NOW).services == {"store"}
        assert directory.granted("PACS") == {"store"}
        assert directory.is_reachable("PACS")


async def test_a_new_listing_replaces_the_old_once_the_rows_behind_it_are_there(
    tmp_path: Path,
) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        await directory.take(listed(row(north, "A", "B")))
        assert not directory.is_published("A")
        await directory.take(listing())
        await directory.take(listed())
        await directory.take(listed(row(north, "B"), whole=False))
        assert directory.is_published("A")  # what is coming in hides nothing
        await directory.take(listing())
        assert [line["ae_title"] for line in directory.to_json()] == ["B"]
        # A row replaces what was said of that Router before.
        await directory.take(listed(row(north, "C"), whole=False))
        assert [line["ae_title"] for line in directory.to_json()] == ["C"]
        gone = messages.Directory(False, (), (), (north.identity.public,), ("C",))
        await directory.take(gone)
        assert list(directory.to_json()) == []
        assert [peer["enrolled"] for peer in directory.peers_json()] == [False]


async def test_a_title_listed_twice_leaves_with_its_last_owner(tmp_path: Path) -> None:
    """A hostile Bridge gains nothing by it, and breaks nothing."""
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        await directory.take(listed(row(me, "A"), row(north, "A")))
        await directory.take(listing())
        assert [line["own"] for line in directory.to_json()] == [False]
        await directory.take(listed(row(me), whole=False))
        assert directory.owner("A") == north.identity.public
        await directory.take(listed(row(north), whole=False))
        assert directory.owner("A") is None
        assert reason(directory, "A") == (1, 1, 7)


async def test_a_title_that_another_is_listed_with_stays_with_whom_it_was(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path / "me") as me,
        hospital(tmp_path / "north") as north,
        hospital(tmp_path / "thief") as thief,
    ):
        directory = me.joined().directory
        await directory.take(listing(north, publications=[publication(north, "PACS", "store")]))
        await directory.take(listed(row(thief, "PACS"), whole=False))
        assert directory.owner("PACS") == north.identity.public
        assert directory.resolve("PACS", NOW).peer.identity == north.identity.public
        assert directory.permits("PACS", north.identity.public)


async def test_no_more_titles_are_listed_than_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_LISTED_TITLES", 2)
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        await directory.take(listed(row(north, "A", "B"), row(me, "C")))
        await directory.take(listing())
        assert [line["ae_title"] for line in directory.to_json()] == ["A", "B"]
        await directory.take(listed(row(me, "C"), whole=False))
        await directory.take(listed(row(north, "A"), whole=False))
        await directory.take(listed(row(me, "D"), whole=False))
        assert [line["ae_title"] for line in directory.to_json()] == ["A", "D"]


async def test_who_waits_for_news_is_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with hospital(tmp_path / "me") as me, trio.open_nursery() as nursery:
        directory = me.joined().directory
        await directory.take(listing())
        nursery.start_soon(directory.wait_news)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        await directory.take(listing())


async def test_a_full_disk_loses_only_what_must_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        known = publication(north, "KNOWN", "store")
        await directory.take(listing(north, publications=[known]))

        async def full(self: object, fn: object) -> None:
            raise DatabaseError("disk full")

        monkeypatch.setattr(Database, "run", full)
        stranger = (bytes(Identity.from_seed(bytes(32)).public), "Stranger", b"", True)
        shown = (publication(north, "NEW", "store"), known)
        message = messages.Directory(True, (stranger, router_row(north)), shown, (), ())
        await directory.take(message)
        assert [row["ae_title"] for row in directory.to_json()] == ["KNOWN"]
        assert [peer["enrolled"] for peer in directory.peers_json()] == [True]


async def test_what_one_message_brings_is_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that publishes hundreds of titles without end keeps nobody else from the disk."""
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory, run, written = me.joined().directory, Database.run, []

        async def count(self: Database, fn: Callable[[apsw.Connection], object]) -> object:
            written.append(fn)
            return await run(self, fn)

        monkeypatch.setattr(Database, "run", count)
        for serial in (1, 2):
            titles = [publication(north, f"P{n}", "store", serial=serial) for n in range(60)]
            await directory.take(listing(whole=False, publications=titles))
        assert len(written) == 2
        assert len(list(directory.to_json())) == 60
        assert directory.owner("P7") == north.identity.public


async def test_what_does_not_hold_is_left_out(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        good = publication(north, "GOOD", "store")
        flipped = good[:-1] + bytes([good[-1] ^ 1])
        identity, name, statement, connected = router_row(north)
        await directory.take(
            messages.Directory(
                True,
                ((identity, name, statement[:-1] + b"x", connected),),
                (flipped, b"nonsense", good),
                (),
                (),
            )
        )
        assert [row["ae_title"] for row in directory.to_json()] == ["GOOD"]
        assert reason(directory, "GOOD") == (2, 3, 1)  # no key that holds


async def test_a_stolen_title_carries_nothing_until_a_person_accepts(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path / "me") as me,
        hospital(tmp_path / "north") as north,
        hospital(tmp_path / "south") as south,
    ):
        ours = publication(north, "PACS", "store", serial=5)
        theirs = publication(south, "PACS", "store", serial=9)
        directory = me.joined().directory
        await directory.take(listing(north, south, publications=[ours]))
        await directory.take(listing(north, south, publications=[theirs]))
        assert reason(directory, "PACS") == (1, 1, 3)
        assert not directory.permits("PACS", north.identity.public)
        thief = me.joined().peers.by_fingerprint(south.identity.fingerprint)
        assert directory.standing(thief) is Standing.CHANGED
    # it is still so after a restart
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "south") as south:
        directory = me.joined().directory
        await directory.take(listing(south, publications=[theirs]))
        assert reason(directory, "PACS") == (1, 1, 3)
        _, titles = await me.accept_peer(south.identity.fingerprint)
        assert titles == ["PACS"]
        assert directory.resolve("PACS", NOW).peer.identity == south.identity.public
        with pytest.raises(Refused, match="claims no"):
            await me.accept_peer(south.identity.fingerprint)


async def test_a_title_back_with_its_owner_needs_no_word(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path / "me") as me,
        hospital(tmp_path / "north") as north,
        hospital(tmp_path / "south") as south,
    ):
        directory = me.joined().directory
        ours = publication(north, "PACS", "store", serial=5)
        await directory.take(listing(north, south, publications=[ours]))
        stolen = publication(south, "PACS", "store", serial=9)
        await directory.take(listing(whole=False, publications=[stolen]))
        await directory.take(listing(whole=False, publications=[ours]))
        assert directory.resolve("PACS", NOW).peer.identity == north.identity.public


async def test_an_older_publication_is_refused(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        new = publication(north, "PACS", "echo", serial=5)
        old = publication(north, "PACS", "echo", "store", serial=4)
        await directory.take(listing(north, publications=[new, old]))
        assert directory.resolve("PACS", NOW).services == {"echo"}


async def test_what_the_owner_of_a_title_grants(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path / "me") as me,
        hospital(tmp_path / "north") as north,
        hospital(tmp_path / "south") as south,
    ):
        directory = me.joined().directory
        published = [publication(north, title, "echo", "store") for title in ("PACS", "CT1")]
        await directory.take(listing(north, south, publications=published))
        rows = (
            (north.identity.public, "PACS", ("store",)),
            (south.identity.public, "CT1", ("echo",)),
        )
        await directory.take(messages.Granted(rows, 3))
        assert directory.granted("PACS") == {"store"}
        assert directory.granted("CT1") == frozenset()  # South's word about North's title
        assert [row["granted"] for row in directory.to_json()] == [[], ["store"]]
        assert [row["signed"] for row in directory.to_json()] == [True, True]
        await directory.take(messages.Granted((), 0))
        assert directory.granted("PACS") == frozenset()


async def test_a_disputed_title_is_granted_by_nobody(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path / "me") as me,
        hospital(tmp_path / "north") as north,
        hospital(tmp_path / "south") as south,
    ):
        directory = me.joined().directory
        ours, theirs = (publication(owner, "PACS", "store") for owner in (north, south))
        await directory.take(listing(north, south, publications=[ours]))
        await directory.take(messages.Granted(((north.identity.public, "PACS", ("store",)),), 0))
        await directory.take(listing(whole=False, publications=[theirs]))
        assert directory.granted("PACS") == frozenset()
        assert directory.is_published("PACS")


async def test_our_own_titles_are_not_called_through_the_network(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        directory = me.joined().directory
        await directory.take(listing(me, publications=[publication(me, "PACS", "store")]))
        assert reason(directory, "PACS") == (1, 1, 7)
        assert [row["own"] for row in directory.to_json()] == [True]
        assert list(directory.peers_json()) == []


async def test_names_cannot_move_a_terminals_cursor(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        identity, _, statement, connected = router_row(north)
        row = (identity, "North\x1b[2J\n", statement, connected)
        directory = me.joined().directory
        await directory.take(messages.Directory(True, (row,), (), (), ()))
        (peer,) = directory.peers_json()
        assert peer["name"].isprintable()


async def test_what_is_granted_is_listed_by_service_with_whose_it_is(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path / "me") as me,
        hospital(tmp_path / "north") as north,
        hospital(tmp_path / "east") as east,
    ):
        directory = me.joined().directory
        assert not directory.knows_grants
        published = [publication(north, title, "query") for title in ("B", "A", "OURS")]
        await directory.take(listing(north, east, publications=published))
        rows = tuple(
            (owner.identity.public, title, services)
            for owner, title, services in (
                (north, "B", ("query", "retrieve")),
                (north, "A", ("echo",)),
                (north, "NOT_SHOWN_YET", ("query",)),
                (east, "OURS", ("query",)),  # not its own to grant
                (me, "SELF", ("query",)),
            )
        )
        await directory.take(messages.Granted(rows, 0))
        assert directory.knows_grants
        assert sorted(
            (title, peer.identity == north.identity.public, words)
            for title, peer, words in directory.granted_titles("query")
        ) == [("B", True, {"query", "retrieve"}), ("NOT_SHOWN_YET", True, {"query"})]


async def test_nothing_of_a_peer_that_is_not_trusted_is_listed(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path / "me", trust=Trust.CONTACTS) as me,
        hospital(tmp_path / "north") as north,
    ):
        directory = me.joined().directory
        await directory.take(listing(north, publications=[publication(north, "PACS", "query")]))
        row = (north.identity.public, "PACS", ("query",))
        await directory.take(messages.Granted((row,), 0))
        assert list(directory.granted_titles("query")) == []
        await me.verify_peer(north.contact)
        assert [title for title, *_ in directory.granted_titles("query")] == ["PACS"]
