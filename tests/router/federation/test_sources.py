"""Whom the federation asks: ours, what is granted, what is away; and what is known of them."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from relay.errors import AssociationAborted
from relay.router.aliases import Alias
from relay.router.devices import Device
from relay.router.federation import sources as module
from relay.router.federation.settings import FederationSettings
from relay.router.federation.sources import NETWORK, Description, Source, Sources
from relay.router.node import Node
from relay.signalling import messages
from relay.tunnel.notes import Knowledge
from tests.router.fakes import hospital, listing, publication

WS = Device("WS", "192.0.2.1", federation=True)
PACS = Device("PACS", "192.0.2.2", published="NORTH_PACS", federation=True, issuer="NORTH")


def granted(*rows: tuple[Node, str, tuple[str, ...]]) -> messages.Granted:
    return messages.Granted(
        tuple((owner.identity.public, title, services) for owner, title, services in rows), 0
    )


async def shown(me: Node, south: Node, *titles: str) -> None:
    published = [publication(south, title, "query", "retrieve") for title in titles]
    await me.joined().directory.take(listing(south, publications=published))


def titles(sources: Sources, caller: Device | None = None) -> list[str]:
    return [source.title for source in sources.of(caller)]


async def test_ours_that_are_to_be_asked_but_never_the_caller_itself(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me", enrolled=False) as me:
        for device in (PACS, WS, Device("CT", "192.0.2.3")):
            await me.put_device(device)
        sources = Sources(me, FederationSettings())
        assert sources.of(WS) == [Source("PACS", "NORTH_PACS", "RELAY", PACS, True)]
        assert titles(sources) == ["PACS", "WS"]


async def test_ours_come_first_then_what_is_granted_by_title(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "south") as south:
        await me.put_device(attrs.evolve(PACS, ae_title="ZPACS"))
        await me.put_alias(Alias("ASOUTH", "SOUTH_PACS"))
        await shown(me, south, "SOUTH_PACS", "SOUTH_VNA", "SOUTH_CT")
        await me.joined().directory.take(
            granted(
                (south, "SOUTH_VNA", ("query",)),
                (south, "SOUTH_PACS", ("echo", "query", "retrieve")),
                (south, "SOUTH_CT", ("retrieve", "store")),
            )
        )
        ours, *others = Sources(me, FederationSettings()).of(WS)
        assert ours.title == "ZPACS"
        assert ours.hospital == "Hospital RELAY"
        name = south.contact.name
        assert others == [
            Source("ASOUTH", "SOUTH_PACS", name, None, True),
            Source("SOUTH_VNA", "SOUTH_VNA", name, None, False),
        ]


async def test_who_is_away_is_asked_and_who_is_disputed_is_not(tmp_path: Path) -> None:
    async with (
        hospital(tmp_path / "me") as me,
        hospital(tmp_path / "south") as south,
        hospital(tmp_path / "east") as east,
    ):
        directory = me.joined().directory
        await shown(me, south, "PACS_1", "PACS_2")
        await directory.take(granted((south, "PACS_1", ("query",)), (south, "PACS_2", ("query",))))
        away = messages.Directory(
            False, ((south.identity.public, "South", b"", False),), (), (), ()
        )
        await directory.take(away)
        sources = Sources(me, FederationSettings())
        assert titles(sources) == ["PACS_1", "PACS_2"]
        claim = listing(east, whole=False, publications=[publication(east, "PACS_1", "query")])
        await directory.take(claim)
        assert titles(sources) == ["PACS_2"]


@pytest.mark.parametrize("what", ["federation", "federation's alias", "means another here", "ours"])
async def test_titles_that_nobody_here_can_call(tmp_path: Path, what: str) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "south") as south:
        title = "FEDERATION" if what.startswith("federation") else "PACS"
        owner = me if what == "ours" else south
        if what == "federation's alias":
            await me.put_alias(Alias("SOUTH", "FEDERATION"))
        if what == "means another here":
            await me.put_device(Device("PACS", "192.0.2.2", published="OURS"))
        await shown(me, owner, title)
        await me.joined().directory.take(granted((owner, title, ("query",))))
        assert titles(Sources(me, FederationSettings())) == []


async def test_of_a_network_that_is_not_known_yet_something_may_be_missing(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        sources = Sources(me, FederationSettings())
        [unknown] = sources.of(None)
        assert (unknown.title, unknown.known) == (NETWORK, False)
        assert await sources.describe(unknown, None) == Description()
        await me.joined().directory.take(granted())
        assert sources.of(None) == []


async def test_what_is_granted_but_not_signed_here_yet_is_asked(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "south") as south:
        await me.joined().directory.take(listing(south))
        await me.joined().directory.take(granted((south, "PACS", ("query",))))
        assert titles(Sources(me, FederationSettings())) == ["PACS"]


async def test_what_is_not_granted_to_a_caller_is_left_out_for_a_while(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "south") as south:
        await shown(me, south, "PACS")
        await me.joined().directory.take(granted((south, "PACS", ("query",))))
        sources = Sources(me, FederationSettings())
        [source] = sources.of(WS)
        sources.not_granted(WS, source)
        assert titles(sources, WS) == []
        assert titles(sources) == ["PACS"]
        await trio.sleep(module.NOT_GRANTED_LIFE)
        assert titles(sources, WS) == ["PACS"]


async def test_news_of_grants_are_heard_at_once(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "south") as south:
        await shown(me, south, "PACS", "VNA")
        await me.joined().directory.take(granted((south, "PACS", ("query",))))
        sources = Sources(me, FederationSettings())
        [source] = sources.of(WS)
        sources.not_granted(WS, source)
        await shown(me, south, "PACS", "VNA")  # that is no news of grants
        assert titles(sources, WS) == []
        both = granted((south, "PACS", ("query",)), (south, "VNA", ("query",)))
        await me.joined().directory.take(both)
        assert titles(sources, WS) == ["PACS", "VNA"]
        sources.not_granted(WS, source)
        assert titles(sources, WS) == ["VNA"]


async def test_what_is_remembered_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_NOT_GRANTED", 2)
    monkeypatch.setattr(module, "MAXIMUM_DESCRIPTIONS", 2)
    asked = Asked(monkeypatch)
    async with hospital(tmp_path / "me") as me:
        sources = Sources(me, FederationSettings())
        for title in ("A", "B", "C"):
            source = Source(title, title, "South", None, True)
            sources.not_granted(WS, source)
            await sources.describe(source, WS)
        assert len(sources._not_granted) == len(sources._described) == 2
        await sources.describe(Source("C", "C", "South", None, True), WS)
        assert [title for title, _ in asked.calls] == ["A", "B", "C"]


# --- descriptions ---------------------------------------------------------------------------------


SOUTH = Source("PACS", "SOUTH_PACS", "South", None, True)


class Asked:
    """What takes the place of a knowledge session."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        self.takes = 0.0
        self.error: Exception | None = None
        monkeypatch.setattr(module.asking, "describe", self.describe)

    async def describe(self, node: Node, called: str, calling: str, deadline: float) -> Any:
        self.calls.append((called, calling))
        await trio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return Knowledge(
            serial=1,
            lifetime=1,
            split=1,
            groups=(),
            commitment=False,
            window=0,
            issuer="SOUTH",
            character_set="ISO_IR 100",
        )


async def test_of_ours_we_know(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        source = Source("PACS", "NORTH_PACS", "North", PACS, True)
        sources = Sources(me, FederationSettings())
        assert await sources.describe(source, WS) == Description("NORTH", "")


async def test_another_hospital_is_asked_in_the_callers_name_and_then_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked = Asked(monkeypatch)
    asked.takes = 1
    async with hospital(tmp_path / "me") as me:
        sources = Sources(me, FederationSettings())
        caller = attrs.evolve(WS, published="NORTH_WS")
        said: list[Description] = []

        async def describe() -> None:
            said.append(await sources.describe(SOUTH, caller))

        async with trio.open_nursery() as nursery:  # one asking for all who want to know
            for _ in range(3):
                nursery.start_soon(describe)
        assert said == [Description("SOUTH", "ISO_IR 100")] * 3
        assert asked.calls == [("SOUTH_PACS", "NORTH_WS")]
        await sources.describe(SOUTH, None)
        assert asked.calls[1:] == [("SOUTH_PACS", "RELAY")]
        await trio.sleep(module.DESCRIPTION_LIFE)
        await sources.describe(SOUTH, caller)
        assert len(asked.calls) == 3


async def test_a_device_that_says_nothing_in_time_is_not_waited_for_again_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked = Asked(monkeypatch)
    asked.takes = 1000
    async with hospital(tmp_path / "me") as me:
        sources = Sources(me, FederationSettings())
        start = trio.current_time()
        assert await sources.describe(SOUTH, WS) == Description()
        assert trio.current_time() - start == pytest.approx(module.DESCRIPTION_WAIT)
        asked.takes = 0
        await trio.sleep(55)
        assert await sources.describe(SOUTH, WS) == Description()
        assert len(asked.calls) == 1
        await trio.sleep(5)
        assert await sources.describe(SOUTH, WS) == Description("SOUTH", "ISO_IR 100")


async def test_a_router_that_was_away_for_a_moment_is_asked_with_the_next_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked = Asked(monkeypatch)
    asked.takes = 0.005
    asked.error = AssociationAborted(2, 0, "no connection")
    async with hospital(tmp_path / "me") as me:
        sources = Sources(me, FederationSettings())
        for _ in range(2):  # the second without asking
            assert await sources.describe(SOUTH, WS) == Description()
        assert len(asked.calls) == 1
        asked.error = None
        await trio.sleep(0.1)
        assert await sources.describe(SOUTH, WS) == Description("SOUTH", "ISO_IR 100")


async def test_who_gives_up_a_query_says_nothing_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked = Asked(monkeypatch)
    asked.takes = 2
    async with hospital(tmp_path / "me") as me:
        sources = Sources(me, FederationSettings())
        async with trio.open_nursery() as nursery:

            async def patient() -> None:
                await trio.sleep(0.5)
                assert await sources.describe(SOUTH, WS) == Description("SOUTH", "ISO_IR 100")

            nursery.start_soon(patient)
            with trio.move_on_after(1):
                await sources.describe(SOUTH, WS)
        assert len(asked.calls) == 2


async def test_a_failure_is_learned_by_all_who_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked = Asked(monkeypatch)
    asked.takes = 0.001
    asked.error = AssociationAborted(2, 0, "no connection")
    async with hospital(tmp_path / "me") as me:
        sources = Sources(me, FederationSettings())
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(sources.describe, SOUTH, WS)
        assert len(asked.calls) == 1


async def test_what_is_remembered_of_a_failure_is_how_long_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked = Asked(monkeypatch)
    asked.takes = 1000
    async with hospital(tmp_path / "me") as me:
        sources = Sources(me, FederationSettings())
        async with trio.open_nursery() as nursery:

            async def patient() -> None:
                await trio.sleep(1)
                assert await sources.describe(SOUTH, WS) == Description()

            nursery.start_soon(patient)
            with trio.move_on_after(4):
                await sources.describe(SOUTH, WS)
        # It was asked from 4 to 6 seconds after the beginning.
        asked.takes = 0
        await trio.sleep(2 * module.FAILURE_FACTOR - 1)
        assert await sources.describe(SOUTH, WS) == Description()
        await trio.sleep(1)
        assert await sources.describe(SOUTH, WS) == Description("SOUTH", "ISO_IR 100")
