"""What people do to a Router, and what comes of it."""

from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from relay.errors import DatabaseError, Refused
from relay.identity import KeyStatement
from relay.invitation import Contact
from relay.router.aliases import Alias
from relay.router.asks import Ask
from relay.router.devices import Device
from relay.router.grants import Grant, GrantTable
from relay.router.keyring import Keyring
from relay.router.live import LiveAssociation, Side
from relay.router.node import Node, unix_time
from relay.signalling import messages
from tests.router.fakes import NETWORK, hospital, listing, publication

STORE = frozenset({"store"})


def told(node: Node, kind: type[messages.Message]) -> list[messages.Message]:
    return [message for message in node.joined().client.told if isinstance(message, kind)]


async def test_unenrolled_it_says_what_to_do(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me", enrolled=False) as me:
        await me.put_device(Device("PACS", "192.0.2.1", services=STORE))
        with pytest.raises(Refused, match="relay enroll"):
            await me.verify_peer(Contact(b"n" * 32, "North"))


async def test_a_device_cannot_be_the_router(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me", "RELAY") as me:
        me.listening = [("0.0.0.0", 11112)]
        with pytest.raises(Refused, match="own AE title"):
            await me.put_device(Device("RELAY", "192.0.2.1"))
        with pytest.raises(Refused, match="this Router itself"):
            await me.put_device(Device("PACS", "localhost", 11112))


async def test_only_what_is_published_can_be_granted(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        await me.put_device(Device("WS", "192.0.2.1"))
        await me.put_device(Device("PACS", "192.0.2.2", services=STORE))
        for title, words in (("WS", "no published device"), ("NONE", "no published device")):
            with pytest.raises(Refused, match=words):
                await me.add_grant(Grant(b"n" * 32, title, STORE))
        with pytest.raises(Refused, match="does not publish query"):
            await me.add_grant(Grant(b"n" * 32, "PACS", frozenset({"query", "store"})))
        grant = await me.add_grant(Grant(b"n" * 32, "PACS", STORE))
        assert told(me, messages.Grants)[-1].rows == ((b"n" * 32, "PACS", ("store",)),)
        await me.remove_grant(grant.id)
        assert told(me, messages.Grants)[-1].rows == ()


async def test_what_is_unpublished_later_is_granted_no_more(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        device = Device("PACS", "192.0.2.2", services=STORE | {"echo"})
        await me.put_device(device)
        await me.add_grant(Grant(b"n" * 32, "PACS", STORE | {"echo"}))
        narrower = attrs.evolve(device, services=frozenset({"echo"}))
        await me.put_device(narrower)
        assert me.permission(b"n" * 32, narrower, "WS").services == {"echo"}


async def test_what_was_changed_before_a_failure_is_told_too(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:

        async def half_of_it() -> None:
            async with me.together():
                await me.put_device(Device("PACS", "192.0.2.2", services=STORE))
                await me.add_grant(Grant(b"n" * 32, "NONE", STORE))

        with pytest.raises(Refused):
            await half_of_it()
        (publish,) = told(me, messages.Publish)
        assert len(publish.statements) == 1


async def test_what_changes_while_the_router_connects_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection counts as one once everything is published; until then nothing goes out."""
    async with hospital(tmp_path / "me") as me:
        client = me.joined().client

        async def request(build: object) -> messages.Message:
            client.told.append(messages.decode(messages.encode(build(1))))
            if isinstance(client.told[-1], messages.Grants) and me.devices.get("PACS") is None:
                await me.put_device(Device("PACS", "192.0.2.2", services=STORE))
            return messages.Done(1, ())

        monkeypatch.setattr(client, "request", request)
        monkeypatch.setattr(client, "connected", False)
        await me.publish()
        assert [len(message.statements) for message in told(me, messages.Publish)] == [0, 1]


def statement(message: messages.Message) -> KeyStatement:
    assert isinstance(message, messages.PublishKey)
    return KeyStatement.open(message.statement, NETWORK)[1]


async def test_a_key_of_a_wrong_clock_is_not_published(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        await me.keyring.renew(0)  # a machine without a clock of its own, just started
        await me.publish()
        (key,) = told(me, messages.PublishKey)
        assert statement(key).expires > unix_time()


async def test_a_full_disk_leaves_the_key_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: object, now: int) -> None:
        raise DatabaseError("disk full")

    async with hospital(tmp_path / "me") as me:
        monkeypatch.setattr(Keyring, "due", lambda self, now: True)
        monkeypatch.setattr(Keyring, "renew", full)
        assert not await me.renew_key()
        await me.publish()
        assert len(told(me, messages.PublishKey)) == 1


async def test_a_request_for_a_grant_travels_sealed_and_becomes_one(tmp_path: Path) -> None:
    async with hospital(tmp_path / "a") as a, hospital(tmp_path / "b") as b:
        await b.put_device(Device("PACS", "192.0.2.2", services=STORE))
        await a.joined().directory.take(listing(b, publications=[publication(b, "PACS", "store")]))
        await b.joined().directory.take(listing(a))
        secret = "patient of Dr. Canary"
        await a.ask(Ask(a.identity.public, "PACS", STORE, frozenset({"WS"}), secret))
        (sent,) = told(a, messages.Ask)
        assert isinstance(sent, messages.Ask)
        assert sent.router == b.identity.public
        assert secret.encode() not in sent.sealed
        await b.take_ask(attrs.evolve(sent, router=a.identity.public))
        (ask,) = await b.asks.all()
        assert ask.note == secret
        grant = await b.accept_ask(ask.id)
        assert (grant.grantee, grant.services, grant.calling) == (
            a.identity.public,
            STORE,
            {"WS"},
        )
        assert await b.asks.all() == []


async def test_asks_that_do_not_hold_are_dropped(tmp_path: Path) -> None:
    async with hospital(tmp_path / "a") as a, hospital(tmp_path / "b") as b:
        await b.take_ask(messages.Ask(1, a.identity.public, b"nonsense"))  # unknown
        await b.joined().directory.take(listing(a))
        await b.take_ask(messages.Ask(1, a.identity.public, b"nonsense"))
        assert await b.asks.all() == []


async def test_asking_for_what_nobody_publishes(tmp_path: Path) -> None:
    async with hospital(tmp_path / "a") as a, hospital(tmp_path / "b") as b:
        ask = Ask(a.identity.public, "PACS", STORE)
        with pytest.raises(Refused, match="not published"):
            await a.ask(ask)
        await a.joined().directory.take(listing(b, publications=[publication(b, "PACS", "store")]))
        a.joined().client.refusals = ("that Router is not connected",)
        with pytest.raises(Refused, match="not connected"):
            await a.ask(ask)
        a.joined().client.connected = False
        with pytest.raises(Refused, match="not sent"):
            await a.ask(ask)


async def test_one_cannot_verify_oneself(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        with pytest.raises(Refused, match="own contact"):
            await me.verify_peer(me.contact)


async def test_what_is_granted_of_a_device_goes_with_it(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        await me.put_device(Device("PACS", "192.0.2.2", services=STORE))
        grant = await me.add_grant(Grant(b"n" * 32, "PACS", STORE))
        assert await me.remove_device("PACS") == [grant]
        assert list(me.grants) == []


async def test_what_the_bridge_does_not_publish_is_known(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        words = "PACS is published by South already"
        me.joined().client.refusals = (f"{words}: do something", "CT1: serial 1 is older than 2")
        await me.put_device(Device("PACS", "192.0.2.2", services=STORE))
        await me.put_device(Device("PACS_HR", "192.0.2.3"))  # what Hospital RELAY would get
        assert [me.title_refusal(device) for device in me.devices] == [
            f"{words}: publish it under another title with"
            " `relay device add PACS 192.0.2.2 --as PACS_B`",
            None,
        ]
        assert me.title_refusal(Device("PAC", "192.0.2.2", services=STORE)) is None
        ct = Device("CT 1", "192.0.2.2", published="CT1", services=STORE)
        assert me.title_refusal(ct) == "CT1: serial 1 is older than 2"
        quoted = attrs.evolve(ct, published="PACS")
        assert "`relay device add 'CT 1' 192.0.2.2 --as" in str(me.title_refusal(quoted))


async def test_what_is_granted_of_a_device_goes_with_its_published_title(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        device = Device("PACS", "192.0.2.2", services=STORE)
        await me.put_device(device)
        grant = await me.add_grant(Grant(b"n" * 32, "PACS", STORE))
        other = attrs.evolve(device, published="PACS_B")
        await me.put_device(other)
        assert list(me.grants) == [attrs.evolve(grant, ae_title="PACS_B")]
        assert list(await GrantTable.load(me.database)) == list(me.grants)
        assert told(me, messages.Grants)[-1].rows == ((b"n" * 32, "PACS_B", ("store",)),)
        assert me.permission(b"n" * 32, other, "WS").services == STORE
        # Whoever is called so later is open to nobody.
        ct = Device("CT1", "192.0.2.3", published="PACS_C", services=STORE)
        await me.put_device(ct)
        assert not me.permission(b"n" * 32, ct, "WS").services


async def test_a_grant_that_is_made_as_its_device_goes_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whatever is called so later would be open to that hospital."""
    async with hospital(tmp_path / "me") as me:
        await me.put_device(Device("PACS", "192.0.2.2", services=STORE))
        add, adding, removing = me.grants.add, trio.Event(), trio.Event()

        async def slow(grant: Grant) -> Grant:
            adding.set()
            await removing.wait()
            await trio.testing.wait_all_tasks_blocked(0.05)
            return await add(grant)

        monkeypatch.setattr(me.grants, "add", slow)
        with trio.fail_after(5):
            async with trio.open_nursery() as both:
                both.start_soon(me.add_grant, Grant(b"n" * 32, "PACS", STORE))
                await adding.wait()
                removing.set()
                await me.remove_device("PACS")
        assert list(me.grants) == []


async def test_a_device_whose_removal_fails_half_way_can_be_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hospital(tmp_path / "me") as me:
        await me.put_device(Device("PACS", "192.0.2.2", services=STORE))
        await me.add_grant(Grant(b"n" * 32, "PACS", STORE))

        async def fail(ae_title: str) -> None:
            raise DatabaseError("full")

        def still_permitted() -> bool:
            return bool(list(me.grants))

        entry = LiveAssociation("1", Side.CALLEE, "PACS", "WS", "PACS", "peer", still_permitted)
        with monkeypatch.context() as disk, me.live.hold(entry):
            disk.setattr(me.devices, "remove", fail)
            with pytest.raises(DatabaseError):
                await me.remove_device("PACS")
            assert entry.revoked  # what was taken away has ended all the same
        await me.remove_device("PACS")
        assert me.devices.get("PACS") is None


async def test_a_change_of_aliases_ends_what_went_by_them(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:

        def still_permitted() -> bool:
            return me.aliases.published_of("PACS_A") == "PACS"

        await me.put_alias(Alias("PACS_A", "PACS"))
        entry = LiveAssociation("1", Side.CALLER, "WS", "WS", "PACS", "peer", still_permitted)
        with me.live.hold(entry):
            await me.put_alias(Alias("CT_A", "CT"))
            assert not entry.revoked
            await me.remove_alias("PACS_A")
            assert entry.revoked


async def test_only_what_is_published_can_be_asked_for(tmp_path: Path) -> None:
    async with hospital(tmp_path / "a") as a, hospital(tmp_path / "b") as b:
        await a.joined().directory.take(listing(b, publications=[publication(b, "PACS", "store")]))
        with pytest.raises(Refused, match="does not publish query; it publishes store"):
            await a.ask(Ask(a.identity.public, "PACS", frozenset({"query"})))
