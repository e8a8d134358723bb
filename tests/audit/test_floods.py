"""What happens again and again is counted; what is new is told."""

from pathlib import Path

import trio

from relay.audit.audit import open_audit
from relay.audit.events import Instances
from relay.audit.floods import MAXIMUM_DIFFERENT, WINDOW, Floods
from relay.audit.happenings import sign_in
from tests.audit.samples import CT, SOURCE, TRANSFER, alert


async def test_the_like_of_a_moment_ago_is_counted(autojump_clock: trio.testing.MockClock) -> None:
    floods = Floods()
    assert floods.take(alert("no grant"))
    assert not floods.take(alert("no grant"))
    assert not floods.take(alert("no grant"))
    assert floods.take(alert("another cause"))
    assert list(floods.over()) == []
    await trio.sleep(WINDOW)
    (told,) = floods.over()
    assert told.why == "2 more like this one in 60 s"
    assert told.subjects == alert("no grant").subjects
    assert list(floods.over()) == []
    assert floods.due is None
    assert floods.take(alert("no grant"))


async def test_who_varies_what_he_does_is_counted_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    floods = Floods()
    told = sum(floods.take(alert(f"AE title {n}")) for n in range(10_000))
    assert told == MAXIMUM_DIFFERENT + 1
    await trio.sleep(WINDOW)
    counts = [event.why for event in floods.over()]
    left = 10_000 - told
    assert counts == [f"{left} more of several kinds, of which this is the first, in 60 s"]


async def test_who_tries_passwords_hides_no_alert() -> None:
    floods = Floods()
    told = sum(floods.take(sign_in(f"name {n}", "a", refused="wrong")) for n in range(1000))
    assert told == MAXIMUM_DIFFERENT + 1
    assert floods.take(alert("no grant"))


async def test_transfers_that_failed_are_never_counted_together(tmp_path: Path) -> None:
    async with open_audit(tmp_path, lambda: SOURCE) as audit:
        for number in range(100):
            audit.record(TRANSFER.ended(f"1.{number}", [Instances(CT, 1)], "A700H"))
        assert audit.statistics().recorded == 100


async def test_at_the_end_all_is_told() -> None:
    floods = Floods()
    assert floods.take(alert("no grant"))
    assert not floods.take(alert("no grant"))
    assert len(list(floods.over(all=True))) == 1
