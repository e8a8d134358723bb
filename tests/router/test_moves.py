"""The register of C-MOVEs: what is let in, told apart, waited for, and forgotten."""

from typing import Any, cast

import pytest
import trio
import trio.testing

from relay.router import moves as module
from relay.router.moves import (
    ABANDONED_WAIT,
    MAXIMUM_DESTINATIONS,
    MAXIMUM_MOVES,
    MAXIMUM_NAMED,
    SETTLE_WAIT,
    HeldMove,
    Kept,
    MoveRegister,
)
from tests.router.fakes import CT, IMPLICIT, JPEG, MR, proposal

PEER, OTHER = b"p" * 32, b"o" * 32


def held(
    destination: str = "WS",
    seen_message_id: int = 1,
    *,
    holder: str = "PACS",
    requestor: str = "WS",
    via_router: bool = True,
) -> HeldMove:
    return HeldMove(
        holder=holder,
        requestor=requestor,
        message_id=7,
        destination=destination,
        seen_requestor=requestor,
        seen_message_id=seen_message_id,
        via_router=via_router,
    )


# --- asked ----------------------------------------------------------------------------------------


def test_a_peer_is_expected_while_it_was_asked_and_only_it_and_only_there() -> None:
    moves = MoveRegister()
    assert not moves.expects(PEER, "WS")
    first, second = moves.ask(PEER, "WS"), moves.ask(PEER, "WS")
    assert moves.expects(PEER, "WS")
    assert not moves.expects(OTHER, "WS")
    assert not moves.expects(PEER, "WS2")
    moves.end(first)
    assert moves.expects(PEER, "WS")
    moves.abandon(second)
    assert not moves.expects(PEER, "WS")
    moves.end(first)
    moves.abandon(second)
    assert len(moves) == 0


# --- held -----------------------------------------------------------------------------------------


async def test_a_move_is_found_by_what_its_holder_calls_it() -> None:
    moves = MoveRegister()
    first, second, direct = held("WS", 1), held("WS2", 2), held("WS3", 3, via_router=False)
    for move in (first, second, direct):
        assert moves.hold(move)
    assert moves.find("PACS", "WS", 1) is first
    assert moves.find("PACS", "WS", 2) is second
    assert moves.find("PACS", "WS", 3) is direct
    assert moves.destinations("PACS") == ["WS", "WS2"]
    # By way of the Router the Message ID was chosen to tell; some holders name themselves.
    assert moves.find("PACS", "PACS", 2) is second
    for holder, requestor, number in (
        ("PACS2", "WS", 1),
        ("PACS", "WS2", 3),
        ("PACS", "WS", 4),
        ("PACS", "WS", None),
        ("PACS", "", 3),
    ):
        assert moves.find(holder, requestor, number) is None
    moves.end(direct)
    moves.end(first)
    moves.end(first)
    assert moves.find("PACS", "WS", 1) is None
    assert moves.destinations("PACS") == ["WS2"]
    assert len(moves) == 1


async def test_message_ids_tell_all_moves_of_a_holder_apart() -> None:
    moves = MoveRegister()
    given = []
    for _ in range(MAXIMUM_MOVES):
        number = moves.message_id("PACS")
        assert moves.hold(held("WS", number))
        given.append(number)
    assert len(set(given)) == MAXIMUM_MOVES
    assert all(0x8000 <= number <= 0xFFFE for number in given)


async def test_a_message_id_in_use_is_not_given_again_when_all_were_used() -> None:
    moves = MoveRegister()
    lasting = moves.message_id("PACS")
    moves.hold(held("WS", lasting))
    others = {moves.message_id("PACS") for _ in range(0x10000)}
    assert others == set(range(0x8000, 0xFFFF)) - {lasting}


async def test_a_holder_has_a_limit_of_moves_of_its_own() -> None:
    moves = MoveRegister()
    for _ in range(MAXIMUM_MOVES):
        assert moves.hold(held(via_router=False))
    last = held(via_router=False)
    assert not moves.hold(last)
    assert moves.hold(held(holder="PACS2", via_router=False))
    moves.end(next(m for m in [moves.find("PACS", "WS", 1)] if m is not None))
    assert moves.hold(last)


def test_the_message_ids_of_another_run_are_others() -> None:
    assert len({MoveRegister().message_id("PACS") for _ in range(8)}) > 1


@pytest.mark.parametrize(
    ("number", "over"), [(None, False), (1, False), (0x7FFF, False), (0x8000, True), (0xFFFE, True)]
)
def test_a_message_id_that_was_chosen_here_is_of_a_move_that_is_over(
    number: int | None, over: bool
) -> None:
    assert MoveRegister().is_over(number) is over


async def test_a_holder_has_a_limit_of_destinations_by_way_of_its_router() -> None:
    moves = MoveRegister()
    all_of_them = [held(f"WS{n}") for n in range(MAXIMUM_DESTINATIONS)]
    assert all(moves.hold(move) for move in all_of_them)
    assert not moves.hold(held("ANOTHER"))
    assert moves.hold(held("WS0"))  # one of them again
    assert moves.hold(held("ANOTHER", via_router=False))  # it says by itself where it goes
    assert moves.hold(held("ANOTHER", holder="PACS2"))
    moves.end(all_of_them[-1])
    assert moves.hold(held("ANOTHER"))


async def test_without_an_originator_there_is_one_destination_at_a_time() -> None:
    moves = MoveRegister()
    assert moves.only("PACS") is None  # nothing is outstanding: nothing is learnt
    first, second = held("WS", 1), held("WS2", 2)
    assert moves.hold(first)
    assert moves.hold(second)
    assert moves.only("PACS") is None  # from now on it is known to be such a holder
    moves.end(second)
    assert moves.only("PACS") == "WS"
    assert not moves.hold(held("WS2"))
    assert moves.hold(held("WS"))
    assert moves.hold(held("WS2", holder="PACS2"))
    # It has been taught to say it.
    assert moves.find("PACS", "WS", 1) is first
    assert moves.hold(held("WS2"))


async def test_only_moves_by_way_of_the_router_count_there() -> None:
    moves = MoveRegister()
    assert moves.hold(held("WS", via_router=False))
    assert moves.destinations("PACS") == []
    assert moves.only("PACS") is None


# --- the final response waits ---------------------------------------------------------------------


async def test_a_move_settles_when_the_last_association_that_stores_for_it_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    moves = MoveRegister()
    move, other = held("WS"), held("WS2")
    moves.hold(move)
    moves.hold(other)

    async def store(destination: str, seconds: float) -> None:
        with moves.storing("PACS", destination):
            await trio.sleep(seconds)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store, "WS", 2)
        nursery.start_soon(store, "WS", 5)
        nursery.start_soon(store, "WS2", 100)
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await moves.settle(move)
        assert trio.current_time() - begin == pytest.approx(5)
        await moves.settle(other)  # its holder keeps the association
        assert trio.current_time() - begin == pytest.approx(5 + SETTLE_WAIT)
        nursery.cancel_scope.cancel()
    assert move.storing == other.storing == 0


async def test_nothing_to_wait_for_is_no_wait(autojump_clock: trio.testing.MockClock) -> None:
    moves = MoveRegister()
    move = held("WS")
    with moves.storing("PACS", "WS"):  # began before the move: it is not for it
        moves.hold(move)
        with moves.storing("PACS2", "WS"):  # another holder's
            begin = trio.current_time()
            await moves.settle(move)
            assert trio.current_time() == begin


# --- what a queue has taken -----------------------------------------------------------------------


async def test_an_object_is_of_the_move_that_it_names_or_of_those_to_its_destination() -> None:
    moves = MoveRegister()
    first, second = held("WS", 1, via_router=False), held("WS", 2, via_router=False)
    other, elsewhere = held("WS2", 3, via_router=False), held("WS", 4, holder="PACS2")
    for move in (first, second, other, elsewhere):
        moves.hold(move)
    assert list(moves.stored_for("PACS", "WS", "WS", 2)) == [second]
    assert list(moves.stored_for("PACS", "WS", "WS", 3)) == []  # it names one to elsewhere
    assert list(moves.stored_for("PACS", "WS", "SCANNER", 1)) == []  # a device of its own hospital
    assert list(moves.stored_for("PACS", "WS", None, None)) == [first, second]
    assert list(moves.stored_for("PACS", "WS", "PACS", 77)) == [first, second]
    assert list(moves.stored_for("PACS3", "WS", None, None)) == []


async def test_what_was_taken_is_waited_for_until_each_has_its_end() -> None:
    moves = MoveRegister()
    move = held("WS", via_router=False)
    moves.hold(move)
    assert moves.kept() == []
    for number in range(4):
        moves.keep([move], number, f"1.2.{number}")
    assert moves.kept() == [move.kept]
    move.kept.end(0, delivered=True)
    move.kept.end(1, delivered=True, warning=True)
    move.kept.end(2, delivered=False)
    done = trio.Event()

    async def wait() -> None:
        await move.kept.settle()
        done.set()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set()
            move.kept.end(3, delivered=True)
    assert (move.kept.delivered, move.kept.warned, move.kept.failed) == (2, 1, 1)
    assert (move.kept.taken, move.kept.named) == (4, ["1.2.2"])
    assert moves.kept() == []


async def test_a_move_whose_holder_is_done_stands_in_no_others_way() -> None:
    moves = MoveRegister()
    first, second = held("WS", 0x8001), held("WS2", 0x8002)
    moves.hold(first)
    assert moves.only("PACS") == "WS"  # it does not name them: one destination at a time
    moves.keep([first], 1, "1.2.1")
    assert not moves.hold(second)
    first.stored = True
    assert moves.hold(second)
    assert moves.destinations("PACS") == ["WS2"]
    assert moves.find("PACS", "WS", 0x8001) is None
    assert list(moves.stored_for("PACS", "WS", None, None)) == []
    assert moves.kept() == [first.kept]
    assert len(moves) == 2


async def test_a_cancelled_move_does_not_wait() -> None:
    kept = Kept({1: "1.2.1"})
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.settle)
            await trio.testing.wait_all_tasks_blocked()
            kept.cancel()
    assert kept.waiting == {1: "1.2.1"}


async def test_what_is_waited_for_has_a_limit_beyond_which_it_counts_as_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_KEPT", 3)
    moves = MoveRegister()
    first, second = held("WS", 1), held("WS", 2)
    moves.hold(first)
    moves.hold(second)
    for number in range(2):
        moves.keep([first], number, f"1.2.{number}")
    moves.keep([second], 2, "1.2.2")
    moves.keep([second], 3, "1.2.3")
    assert (second.kept.waiting, second.kept.named) == ({2: "1.2.2"}, ["1.2.3"])
    moves.end(first)
    moves.keep([second], 4, "1.2.4")
    assert list(second.kept.waiting) == [2, 4]


def test_only_so_many_of_the_failed_are_named() -> None:
    kept = Kept()
    for number in range(MAXIMUM_NAMED + 5):
        kept.fail(f"1.2.{number}")
    assert (kept.failed, len(kept.named)) == (MAXIMUM_NAMED + 5, MAXIMUM_NAMED)
    assert "1.2.3" not in repr(kept)


# --- the requestor has gone -----------------------------------------------------------------------


async def test_what_a_holder_stores_for_who_has_gone_is_not_taken_for_another_move(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its requestor aborts, and another one asks at once: only time can tell them apart."""
    moves = MoveRegister()
    gone, new = held("WS", 0x8001), held("WS2", 0x8002)
    moves.hold(gone)
    moves.abandon(gone)
    assert len(moves) == 0  # nobody waits for it
    moves.hold(new)
    assert moves.only("PACS") is None
    await trio.sleep(ABANDONED_WAIT + 1)
    assert moves.only("PACS") == "WS2"
    assert moves.destinations("PACS") == ["WS2"]


async def test_a_holder_that_says_nothing_has_to_finish_with_who_has_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    moves = MoveRegister()
    gone = held("WS")
    moves.hold(gone)
    assert moves.only("PACS") == "WS"
    moves.abandon(gone)
    with moves.storing("PACS", "WS"):
        await trio.sleep(10 * ABANDONED_WAIT)
        assert not moves.hold(held("WS2"))  # it stores still
    await trio.sleep(ABANDONED_WAIT - 1)
    assert not moves.hold(held("WS2"))
    await trio.sleep(2)
    assert moves.hold(held("WS2"))


async def test_an_abandoned_move_is_found_by_its_name_and_ends_at_once_if_it_is_direct() -> None:
    moves = MoveRegister()
    via, direct = held("WS", 0x8001), held("WS", 1, via_router=False)
    moves.hold(via)
    moves.hold(direct)
    moves.abandon(via)
    moves.abandon(direct)
    assert moves.find("PACS", "WS", 0x8001) is via
    assert moves.find("PACS", "WS", 1) is None


# --- what holders store in ------------------------------------------------------------------------


def test_only_what_a_holder_proposes_each_time_is_known_of_it() -> None:
    moves = MoveRegister()
    assert moves.stores_in("PACS", CT) == frozenset()
    moves.proposed("PACS", proposal(CT, CT, MR, transfer_syntaxes=[JPEG, IMPLICIT]).contexts)
    moves.proposed("PACS", proposal(CT, transfer_syntaxes=[IMPLICIT]).contexts)
    assert moves.stores_in("PACS", CT) == {IMPLICIT}
    assert moves.stores_in("PACS", MR) == {JPEG, IMPLICIT}
    assert moves.stores_in("OTHER", CT) == frozenset()


def test_a_holder_is_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAXIMUM_CLASSES", 1)
    moves = MoveRegister()
    moves.proposed("PACS", proposal(CT, MR, transfer_syntaxes=[JPEG, IMPLICIT]).contexts)
    moves.proposed("PACS", proposal(MR, CT, transfer_syntaxes=[JPEG]).contexts)
    assert moves.stores_in("PACS", CT) == {JPEG}
    assert moves.stores_in("PACS", MR) == frozenset()


async def test_who_takes_objects_in_this_router_is_known_by_the_destination() -> None:
    moves, receiver = MoveRegister(), cast(Any, object())
    moves.hold(held("WS"))
    mine = held("\\1", 2)
    mine.receiver = receiver
    moves.hold(mine)
    assert moves.destinations("PACS") == ["WS", "\\1"]
    assert moves.receiver("PACS", "\\1") is receiver
    assert moves.receiver("PACS", "WS") is None
    assert moves.receiver("OTHER", "\\1") is None
