"""One device in a search, by the clock: over associations inside this process, with time of its own
that jumps (real ones are in test_searching)."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from relay import scu
from relay.dicom import negotiation
from relay.dicom.negotiation import accepted_contexts
from relay.errors import Outcome, SourceFailed
from relay.router.devices import Device
from relay.router.federation import searching, site
from relay.router.federation.federation import Federation
from relay.router.federation.opening import Opened
from relay.router.federation.searching import HEAD_START, OWN_FIRST, search
from relay.router.federation.settings import FederationSettings, Merging
from relay.router.federation.site import CANCEL_WAIT, GRACE, LONGEST_SEARCH, Said
from relay.router.federation.sources import Description, Source
from relay.router.inner import pair
from tests.router.fakes import hospital
from tests.router.federation.catalogues import Catalogue, asks, study

WAIT = 30.0
ONE, TWO = study("1.1", PatientID="7"), study("1.2", PatientID="7")


@attrs.define(eq=False)
class Sources:
    """Which there are, and what is known of them after `describing` seconds."""

    titles: list[str]
    own: list[str] = attrs.field(factory=list)
    describing: float = 0.0
    left_out: list[str] = attrs.field(factory=list)

    def of(self, caller: object) -> list[Source]:
        return [
            Source(t, t, "there", Device(t, "pacs") if t in self.own else None, True)
            for t in self.titles
        ]

    async def describe(self, source: Source, caller: object) -> Description:
        await trio.sleep(self.describing)
        return Description()

    def not_granted(self, caller: object, source: Source) -> None:
        self.left_out.append(source.title)


@attrs.define
class World:
    federation: Federation
    sources: Sources
    opening: dict[str, float] = attrs.field(factory=dict)  # seconds
    closing: dict[str, float] = attrs.field(factory=dict)
    released: list[str] = attrs.field(factory=list)  # in peace, after `closing` seconds
    failing: dict[str, SourceFailed] = attrs.field(factory=dict)
    begun: dict[str, float] = attrs.field(factory=dict)  # by trio's clock

    async def ask(self, **options: Any) -> tuple[list[tuple[float, int]], list[Said], float]:
        """When how many answers came, what was said, and when all of that was known."""
        began, came = trio.current_time(), []
        async with search(self.federation, None, asks(), **options) as found:
            while some := await found.some():
                came.append((trio.current_time() - began, len(some)))
            known = trio.current_time() - began
            said = found.said
        return came, said, known


@asynccontextmanager
async def world(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    catalogues: dict[str, Catalogue],
    **settings: Any,
) -> AsyncIterator[World]:
    async with hospital(folder, enrolled=False) as node, trio.open_nursery() as nursery:
        sources = Sources(list(catalogues))
        chosen = FederationSettings(site_wait=WAIT, **settings)
        made = World(Federation(node, chosen, sources), sources)  # type: ignore[arg-type]

        @asynccontextmanager
        async def open_source(
            federation: Federation, caller: object, source: Source, proposed: Any
        ) -> AsyncIterator[Opened]:
            made.begun[source.title] = trio.current_time()
            await trio.sleep(made.opening.get(source.title, 0))
            if source.title in made.failing:
                raise made.failing[source.title]
            near, far = pair()
            nursery.start_soon(catalogues[source.title].serve, far)
            request = negotiation.request(source.title, "WS", negotiation.propose(proposed))
            ac = await scu.negotiate(near, request)
            try:
                yield Opened(near, request, ac, accepted_contexts(request, ac))
            finally:
                wait = made.closing.get(source.title, 0)
                with trio.CancelScope(shield=near.over):
                    await trio.sleep(wait)
                    made.released.append(source.title)
                await near.aclose()

        monkeypatch.setattr(site, "open_source", open_source)
        yield made
        nursery.cancel_scope.cancel()


def outcomes(said: list[Said]) -> dict[str, Outcome]:
    return {one.source.title: one.outcome for one in said}


async def test_a_frozen_one_costs_its_own_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    sites = {"A": Catalogue([ONE]), "B": Catalogue([TWO], frozen=True)}
    async with world(tmp_path, monkeypatch, sites) as made:
        made.opening["A"] = 2.0
        # Clearing up after B takes long; nobody waits for that.
        made.closing["B"] = 20.0
        came, said, known = await made.ask(merging=Merging.STREAMED)
        ((at, count),) = came
        assert at == pytest.approx(2.0)
        assert count == 1
        assert outcomes(said) == {"A": Outcome.COMPLETE, "B": Outcome.SLOW}
        assert known == pytest.approx(WAIT + GRACE)
        assert made.federation.states.to_json("B")["last_error"] == "no answer within 30 s"
        came, _, known = await made.ask()
        ((at, count),) = came
        assert at == pytest.approx(WAIT + GRACE)
        assert count == 1


@pytest.mark.parametrize(
    ("merging", "opening", "later"),
    [
        (Merging.STREAMED, OWN_FIRST / 2, OWN_FIRST / 2),
        (Merging.STREAMED, 5.0, OWN_FIRST),
        (Merging.MERGED, 5.0, 0.0),
    ],
)
async def test_the_first_answer_is_our_own_archive_s(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    merging: Merging,
    opening: float,
    later: float,
) -> None:
    """Streamed, others are begun once ours is asked, or takes too long; merged, not known yet, all
    are at once."""
    sites = {"OWN": Catalogue([ONE]), "THERE": Catalogue([TWO])}
    async with world(tmp_path, monkeypatch, sites) as made:
        made.sources.own = ["OWN"]
        made.opening["OWN"] = opening
        _, said, _ = await made.ask(merging=merging)
        assert outcomes(said) == dict.fromkeys(sites, Outcome.COMPLETE)
        assert made.begun["THERE"] - made.begun["OWN"] == pytest.approx(later)


async def test_merged_the_slowest_is_begun_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """All that would be done HEAD_START sooner, and no others, give it that; once that is known."""
    sites = {title: Catalogue([ONE]) for title in ("OWN", "SLOW", "NEXT", "FAST")}
    async with world(tmp_path, monkeypatch, sites) as made:
        made.sources.own = ["OWN"]
        made.opening = {
            "OWN": 0.001,
            "SLOW": 2.0,
            "NEXT": 2.0 - HEAD_START / 2,
            "FAST": 2.0 - 2 * HEAD_START,
        }
        _, _, known = await made.ask()
        assert known == pytest.approx(2.0)
        assert len(set(made.begun.values())) == 1
        at = trio.current_time()
        _, said, known = await made.ask()
        assert outcomes(said) == dict.fromkeys(sites, Outcome.COMPLETE)
        assert known == pytest.approx(2.0)
        begun = {title: begun - at for title, begun in made.begun.items()}
        assert begun == pytest.approx(
            {"SLOW": 0.0, "NEXT": 0.0, "OWN": HEAD_START, "FAST": HEAD_START}
        )


async def test_nobody_is_held_up_for_one_that_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    sites = {"SLOW": Catalogue([ONE]), "FAST": Catalogue([TWO])}
    async with world(tmp_path, monkeypatch, sites) as made:
        made.opening["SLOW"] = 2.0
        await made.ask()
        made.opening["SLOW"] = HEAD_START / 5
        made.failing["SLOW"] = SourceFailed("no", Outcome.UNREACHABLE)
        _, said, known = await made.ask()
        assert outcomes(said) == {"SLOW": Outcome.UNREACHABLE, "FAST": Outcome.COMPLETE}
        assert known == pytest.approx(HEAD_START / 5)


async def test_one_that_is_dead_costs_others_no_more_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    sites = {"DEAD": Catalogue([ONE]), "FAST": Catalogue([TWO])}
    async with world(tmp_path, monkeypatch, sites) as made:
        made.opening["DEAD"] = 2.0
        await made.ask()
        sites["DEAD"].frozen = True
        at = trio.current_time()
        _, said, _ = await made.ask()
        assert outcomes(said) == {"DEAD": Outcome.SLOW, "FAST": Outcome.COMPLETE}
        assert made.begun["FAST"] - at == pytest.approx(HEAD_START)


@pytest.mark.parametrize(
    ("catalogue", "options", "noted"),
    [
        (Catalogue([ONE]), {}, 2.0),
        (Catalogue([ONE], status=0xC000), {}, None),
        (Catalogue([ONE], endless=True), {"maximum": 3}, None),
        (Catalogue([ONE], gone_after=1), {}, None),
    ],
)
async def test_only_who_has_answered_in_full_has_a_pace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    catalogue: Catalogue,
    options: dict[str, int],
    noted: float | None,
) -> None:
    async with world(tmp_path, monkeypatch, {"A": catalogue}) as made:
        made.opening["A"] = 2.0
        await made.ask(**options)
        assert made.federation.paces.of("A", asks().kind) == (noted and pytest.approx(noted))


async def test_one_that_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with world(tmp_path, monkeypatch, {"A": Catalogue([ONE, TWO], silent_after=1)}) as made:
        made.opening["A"] = 2.0
        made.closing["A"] = 20.0
        came, said, known = await made.ask(merging=Merging.STREAMED)
        ((at, count),) = came
        assert at == pytest.approx(2.0)
        assert count == 1
        assert outcomes(said) == {"A": Outcome.SLOW}
        assert known == pytest.approx(2.0 + WAIT)


async def test_the_release_of_what_has_answered_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with world(tmp_path, monkeypatch, {"A": Catalogue([ONE])}) as made:
        made.closing["A"] = 3.0
        came, _, known = await made.ask()
        assert (came, known) == ([(0, 1)], 0)
        assert made.released == ["A"]


async def test_what_a_device_is_like_is_asked_beside_the_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with world(tmp_path, monkeypatch, {"A": Catalogue([ONE])}) as made:
        made.opening["A"], made.sources.describing = 4.0, 3.0
        _, said, known = await made.ask()
        assert outcomes(said) == {"A": Outcome.COMPLETE}
        assert known == pytest.approx(4.0)


async def test_an_endless_drip_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    drip = Catalogue([ONE], endless=True)
    respond: Callable[..., Any] = drip._respond

    async def slowly(*arguments: Any) -> None:
        await trio.sleep(20)
        await respond(*arguments)

    monkeypatch.setattr(Catalogue, "_respond", lambda self, *arguments: slowly(*arguments))
    async with world(tmp_path, monkeypatch, {"A": drip}) as made:
        _, said, known = await made.ask()
        assert outcomes(said) == {"A": Outcome.SLOW}
        assert known <= LONGEST_SEARCH + WAIT


async def test_a_cancel_that_is_not_heeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    deaf = Catalogue([ONE], silent_after=1, heeds_cancel=False)
    async with world(tmp_path, monkeypatch, {"A": deaf}) as made:
        made.closing["A"] = 20.0
        async with search(made.federation, None, asks()) as found:
            await deaf.silent.wait()
            began = trio.current_time()
            found.cancel()
            await trio.sleep(1)
            found.cancel()  # once more: nothing new
            assert not await found.some()
            assert trio.current_time() - began == pytest.approx(CANCEL_WAIT)
            assert outcomes(found.said) == {"A": Outcome.CANCELLED}
    assert deaf.cancels == 1


async def test_one_that_is_not_granted_is_left_out_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with world(tmp_path, monkeypatch, {"A": Catalogue([ONE]), "B": Catalogue()}) as made:
        made.failing["A"] = SourceFailed("no grant", Outcome.NOT_GRANTED)
        _, said, _ = await made.ask()
        assert outcomes(said) == {"A": Outcome.NOT_GRANTED, "B": Outcome.COMPLETE}
        assert made.sources.left_out == ["A"]


async def test_how_often_answers_are_taken_is_no_fault_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(searching, "MAXIMUM_COMING", 1)
    many = Catalogue([study(f"1.{n}", PatientID="7") for n in range(10)])
    async with world(tmp_path, monkeypatch, {"A": many}) as made:
        async with search(made.federation, None, asks(), merging=Merging.STREAMED) as found:
            count = 0
            async for _ in found:
                count += 1
                await trio.sleep(WAIT * 2)
            assert outcomes(found.said) == {"A": Outcome.COMPLETE}
        assert count == 10
