"""What a person asks of the Bridge: who publishes a title, and who is connected."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.errors import Refused, SignallingError
from relay.router import seeking
from relay.router.asks import Ask
from relay.router.directory import Directory
from relay.router.node import Node
from relay.signalling import messages
from relay.signalling.messages import Done, Look, Message, Present, Seek
from relay.signalling.requests import Reply
from tests.router.fakes import hospital, listing, publication


@attrs.define
class Client:
    """The Bridge's answers, and what it was asked; `answer` may raise."""

    answer: Callable[[Message], Reply]
    connected: bool = True
    asked: list[Message] = attrs.field(factory=list)

    async def request(
        self, build: Callable[[int], Message], deadline: float | None = None
    ) -> Reply:
        await trio.lowlevel.checkpoint()
        self.asked.append(build(7))
        return self.answer(self.asked[-1])


@attrs.define
class Side:
    """The network's side."""

    directory: Directory
    client: Client


@asynccontextmanager
async def side(folder: Path, answer: Callable[[Message], Reply]) -> AsyncIterator[Side]:
    async with hospital(folder / "me") as me:
        yield Side(me.joined().directory, Client(answer))


def done(message: Message) -> Reply:
    assert isinstance(message, Seek)
    return Done(message.request, ())


async def test_who_publishes_a_title_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeking, "SEEKING", 1000.0)
    async with side(tmp_path, done) as network, hospital(tmp_path / "north") as north:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(seeking.seek, network, "PACS")
                await wait_all_tasks_blocked()
                await network.directory.take(listing(whole=False))  # news of something else
                await wait_all_tasks_blocked()
                assert nursery.child_tasks
                shown = publication(north, "PACS", "store")
                await network.directory.take(listing(north, whole=False, publications=[shown]))
        assert network.client.asked == [Seek(7, "PACS")]
        await seeking.seek(network, "PACS")  # it is here: nobody is asked
        assert len(network.client.asked) == 1


async def test_nobody_publishes_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with side(tmp_path, lambda _: Done(7, ("'PACS' is not published",))) as network:
        await seeking.seek(network, "PACS")
        assert trio.current_time() == 0


async def test_what_is_never_shown_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The Bridge says done, and what it showed did not hold."""
    async with side(tmp_path, done) as network:
        await seeking.seek(network, "PACS")
        assert trio.current_time() == pytest.approx(seeking.SEEKING)


def no_answer(_: Message) -> Reply:
    raise SignallingError("no answer")


async def test_a_bridge_that_does_not_answer(tmp_path: Path) -> None:
    async with side(tmp_path, no_answer) as network:
        await seeking.seek(network, "PACS")
        await seeking.look(network)
        assert network.client.asked == [Seek(7, "PACS"), Look(7)]


async def test_who_is_connected_is_looked_up_now_and_then(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with hospital(tmp_path / "north") as north:
        present: tuple[bytes, ...] = (north.identity.public,)
        async with side(tmp_path, lambda _: Present(7, present)) as network:
            rows = ((north.identity.public, "North", ()),)
            await network.directory.take(messages.Listing(True, rows))
            await network.directory.take(listing())

            async def connected() -> bool:
                await seeking.look(network)
                (peer,) = network.directory.peers_json()
                return bool(peer["connected"])

            assert await connected()
            present = ()
            assert await connected()  # asked a moment ago
            await trio.sleep(seeking.LOOK_AGAIN)
            assert not await connected()
            await trio.sleep(seeking.LOOK_AGAIN)
            network.client.connected = False
            assert not await connected()
            assert network.client.asked == [Look(7), Look(7)]


async def test_a_refused_look_leaves_what_was_known(tmp_path: Path) -> None:
    async with side(tmp_path, lambda _: Done(7, ("too many",))) as network:
        await seeking.look(network)
        assert list(network.directory.peers_json()) == []


async def test_an_ask_does_not_go_to_another_than_was_listed(tmp_path: Path) -> None:
    """The listing is the Bridge's word: it may name whom people trust for what is another's."""
    async with (
        hospital(tmp_path / "me") as me,
        hospital(tmp_path / "north") as north,
        hospital(tmp_path / "other") as other,
    ):
        directory = me.joined().directory

        class Bridge(Client):
            async def request(
                self, build: Callable[[int], Message], deadline: float | None = None
            ) -> Reply:
                if isinstance(message := build(1), Seek):
                    shown = publication(other, message.ae_title, "store")
                    await directory.take(listing(other, whole=False, publications=[shown]))
                self.asked.append(message)
                return Done(1, ())

        bridge = Bridge(done)
        me.joined().client = bridge  # type: ignore[assignment]
        rows = ((north.identity.public, "North", (("PACS", ("store",)),)),)
        await directory.take(messages.Listing(True, rows))
        await directory.take(listing(north))
        with pytest.raises(Refused) as caught:
            await ask(me, "PACS")
        assert caught.value.status == 409
        for node in (north, other):
            assert node.identity.fingerprint in str(caught.value)
        assert [type(message) for message in bridge.asked] == [Seek]


async def test_an_ask_seeks_whom_it_is_for(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory

        class Bridge(Client):
            async def request(
                self, build: Callable[[int], Message], deadline: float | None = None
            ) -> Reply:
                if isinstance(message := build(1), Seek):
                    shown = publication(north, message.ae_title, "store")
                    await directory.take(listing(north, whole=False, publications=[shown]))
                self.asked.append(message)
                return Done(1, ())

        bridge = Bridge(done)
        me.joined().client = bridge  # type: ignore[assignment]
        await ask(me, "PACS")
        assert [type(message) for message in bridge.asked] == [Seek, messages.Ask]


async def ask(node: Node, title: str) -> None:
    await node.ask(Ask(node.identity.public, title, frozenset({"store"})))


async def test_an_ask_for_what_is_not_there(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        me.joined().client = Client(lambda _: Done(7, ("none",)))  # type: ignore[assignment]
        with pytest.raises(Refused, match="is not published"):
            await ask(me, "PACS")
