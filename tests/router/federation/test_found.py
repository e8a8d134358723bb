import trio
import trio.testing

from relay.router.devices import Device
from relay.router.federation.found import FOUND_LIFE, Found

WS, OTHER = Device("WS", "127.0.0.1"), Device("OTHER", "127.0.0.1")


async def test_what_several_say_is_united() -> None:
    found = Found()
    found.note(WS, "1.2", ["A"])
    found.note(WS, "1.2", ["B"])
    owners = found.owners(WS, "1.2")
    assert owners.titles == {"A", "B"}
    assert not owners.whole


async def test_what_is_whole_is_all() -> None:
    found = Found()
    found.note(WS, "1.2", ["A", "GONE"])
    found.note(WS, "1.2", ["A"], whole=True)
    assert found.owners(WS, "1.2").titles == {"A"}
    assert found.owners(WS, "1.2").whole
    found.note(WS, "1.2", ["B"])
    assert found.owners(WS, "1.2").titles == {"A", "B"}
    assert found.owners(WS, "1.2").whole


async def test_each_caller_has_its_own() -> None:
    found = Found()
    found.note(WS, "1.2", ["A"])
    found.note(None, "1.2", ["B"])
    assert found.owners(WS, "1.2").titles == {"A"}
    assert found.owners(None, "1.2").titles == {"B"}
    assert not found.owners(OTHER, "1.2").titles
    assert not found.owners(WS, "1.3").titles


async def test_it_expires(autojump_clock: trio.testing.MockClock) -> None:
    found = Found()
    found.note(WS, "1.2", ["A"], whole=True)
    await trio.sleep(FOUND_LIFE - 1)
    assert found.owners(WS, "1.2").whole
    await trio.sleep(2)
    assert not found.owners(WS, "1.2").titles
    assert not found.owners(WS, "1.2").whole
    found.note(WS, "1.2", ["B"])
    assert found.owners(WS, "1.2").titles == {"B"}


async def test_news_of_an_owner_do_not_make_it_last_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A list that is refreshed each minute would otherwise hide for days what comes elsewhere."""
    found = Found()
    found.note(WS, "1.2", ["A"], whole=True)
    await trio.sleep(FOUND_LIFE - 1)
    found.note(WS, "1.2", ["A"])
    await trio.sleep(2)
    assert not found.owners(WS, "1.2").whole


async def test_who_was_not_asked_may_hold_a_part() -> None:
    found = Found()
    found.note(WS, "1.2", ["A"], whole=True, asked=["A", "B"])
    owners = found.owners(WS, "1.2")
    assert owners.are_all_of(["A", "B"])
    assert owners.are_all_of(["B"])
    assert not owners.are_all_of(["A", "B", "NEW"])
    found.note(WS, "1.3", ["A"])
    assert not found.owners(WS, "1.3").are_all_of(["A"])


async def test_it_is_bounded_and_the_oldest_go() -> None:
    found = Found(3)
    for study in ("1", "2", "3"):
        found.note(WS, study, ["A"])
    found.note(WS, "1", ["A"])  # now the newest
    found.note(WS, "4", ["A"])
    assert len(found) == 3
    assert not found.owners(WS, "2").titles
    assert found.owners(WS, "1").titles


async def test_it_forgets() -> None:
    found = Found()
    found.note(WS, "1.2", ["A"], whole=True)
    found.forget(WS, "1.2")
    found.forget(WS, "1.2")
    assert not found.owners(WS, "1.2").titles


async def test_what_has_grown_is_forgotten_for_all_who_asked() -> None:
    found = Found()
    for caller in (WS, None):
        for study in ("1.2", "1.2.3"):
            found.note(caller, study, ["A"], whole=True)
    found.forget_for_all("1.2")
    for caller in (WS, None):
        assert not found.owners(caller, "1.2").titles
        assert found.owners(caller, "1.2.3").titles
