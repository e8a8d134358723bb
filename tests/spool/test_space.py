"""Whether an object more is accepted."""

import errno
from pathlib import Path

import pytest

from relay.errors import SpoolBroken, SpoolError, SpoolFull
from relay.spool.files import Files
from relay.spool.space import Space


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


def test_the_reserve_stays_free(disk: Disk) -> None:
    space = Space(disk, maximum=10_000, reserve=400)
    space.take(600)
    with pytest.raises(SpoolFull, match="1000 bytes are free on the spool's disk, 400 must stay"):
        space.take(601)
    disk.left = 399
    with pytest.raises(SpoolFull):
        space.check()
    disk.left = 400
    space.check()


def test_a_broken_spool_takes_nothing_and_says_the_first_cause(disk: Disk) -> None:
    space = Space(disk, maximum=100, reserve=0)
    assert str(space.break_off("one")) == "one"
    assert str(space.break_off("two")) == "one"
    for refused in (space.check, space.check_disk, lambda: space.take(1)):
        with pytest.raises(SpoolBroken, match="one"):
            refused()
    assert space.used == 0


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
