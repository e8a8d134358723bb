"""Whether an object more is accepted."""

import errno
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from relay.errors import SpoolBroken, SpoolError, SpoolFull
from relay.spool.files import Files
from relay.spool.space import LOOK, Space


class Disk(Files):
    """A disk with so much free."""

    left = 1000

    def free(self) -> int:
        return self.left


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_the_spool_holds_its_maximum_and_no_byte_more(disk: Disk) -> None:
    space = Space(disk, maximum=100, reserve=0)
    space.take(60)
    space.take(40)
    space.check()
    with pytest.raises(SpoolFull, match="holds 100 bytes of at most 100"):
        space.take(1)
    assert space.used == 100
    space.give_back(60)
    space.take(1)
    assert space.used == 41


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_reserve_stays_free(disk: Disk) -> None:
    clock = Clock()
    space = Space(disk, maximum=10_000, reserve=400, clock=clock)
    with pytest.raises(SpoolFull, match="1000 bytes are free on the spool's disk, 400 must stay"):
        space.take(601)
    space.take(600)
    for left, enough in ((399, False), (400, True)):
        clock.now += LOOK
        disk.left = left
        if enough:
            space.check()
        else:
            with pytest.raises(SpoolFull):
                space.check()


def test_between_two_looks_at_the_disk_what_is_taken_counts_as_written(disk: Disk) -> None:
    clock = Clock()
    space = Space(disk, maximum=10_000, reserve=0, clock=clock)
    space.take(900)
    with pytest.raises(SpoolFull):
        space.take(101)
    assert space.free() == 100
    clock.now += LOOK
    disk.left = 150
    space.take(101)


def test_a_broken_spool_takes_nothing_and_says_the_first_cause(disk: Disk) -> None:
    space = Space(disk, maximum=100, reserve=0)
    assert str(space.break_off("one")) == "one"
    assert str(space.break_off("two")) == "one"
    for refused in (space.check, space.check_disk, lambda: space.take(1)):
        with pytest.raises(SpoolBroken, match="one"):
            refused()
    assert space.used == 0


def test_a_spool_that_is_held_off_takes_nothing_until_it_goes_on(
    disk: Disk, logs: list[MutableMapping[str, Any]]
) -> None:
    space = Space(disk, maximum=100, reserve=0)
    for why in ("one", "two"):
        space.hold_off(why)
        for refused in (space.check, space.check_disk, lambda: space.take(1)):
            with pytest.raises(SpoolFull, match=why):
                refused()
    assert [line["why"] for line in logs] == ["one"]  # said once
    space.go_on()
    space.take(1)
    space.hold_off("again")
    assert [line["why"] for line in logs] == ["one", "again"]
    space.break_off("worse")
    space.go_on()
    with pytest.raises(SpoolBroken, match="worse"):
        space.check()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EIO, SpoolBroken),
        (errno.ENOSPC, SpoolBroken),
        (errno.EMFILE, SpoolFull),
        (errno.ENFILE, SpoolFull),
    ],
)
def test_a_sync_that_failed_breaks_and_one_that_never_was_does_not(
    disk: Disk, number: int, kind: type[SpoolError]
) -> None:
    space = Space(disk, maximum=100, reserve=0)
    error = space.unsynced("a folder", OSError(number, "words"))
    assert type(error) is kind
    assert str(error) == "a folder: words"
    assert bool(space.broken) is (kind is SpoolBroken)
