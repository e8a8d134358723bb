"""What is held: which pairs it takes, which transfer syntax is chosen, and that it is kept."""

from pathlib import Path

import attrs
import pytest

from relay.database import open_database
from relay.dicom.pdu import PresentationContext
from relay.router.pairs import Pairs
from relay.router.queue.held import Held, read, write
from relay.router.schema import MIGRATIONS
from tests.router.fakes import CT, IMPLICIT, JPEG, MR

HELD = Held(
    peer=b"n" * 32,
    serial=7,
    expires=1000,
    split=2,
    window=4,
    commitment=True,
    pairs=Pairs.of([(CT, IMPLICIT), (CT, JPEG), (MR, IMPLICIT)]),
    refused=Pairs.of([(CT, JPEG), (MR, IMPLICIT)]),
)


def test_what_was_refused_is_not_taken() -> None:
    assert HELD.takes(CT, IMPLICIT)
    assert not HELD.takes(CT, JPEG)
    assert not HELD.takes(MR, JPEG)
    assert HELD.takes_class(CT)
    assert not HELD.takes_class(MR)
    assert not HELD.takes_class("1.2.3")


@pytest.mark.parametrize(
    ("sop_class", "proposed", "chosen"),
    [
        (CT, (IMPLICIT, "1.2"), IMPLICIT),
        (CT, ("1.2", JPEG, IMPLICIT), IMPLICIT),
        (CT, (JPEG,), None),
        (MR, (IMPLICIT,), None),
        ("1.2.3", (IMPLICIT,), None),
    ],
)
def test_the_first_that_is_taken_is_chosen(
    sop_class: str, proposed: tuple[str, ...], chosen: str | None
) -> None:
    assert HELD.choose(PresentationContext(1, sop_class, proposed)) == chosen


def test_what_was_refused_stands_until_a_later_serial_has_it() -> None:
    said = attrs.evolve(HELD, refused=Pairs())
    assert said.after(None) == said
    assert said.after(HELD) == HELD
    later = attrs.evolve(said, serial=8, pairs=Pairs.of([(CT, IMPLICIT), (CT, JPEG)]))
    assert later.after(HELD).refused == Pairs.of([(MR, IMPLICIT)])
    assert attrs.evolve(said, peer=b"s" * 32).after(HELD).refused == Pairs()


async def test_rows_are_kept(tmp_path: Path) -> None:
    other = Held(b"s" * 32, 1, 2, 1, 0, False, Pairs())
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        await database.run(lambda c: write(c, ("PACS", "CT1"), other))
        await database.run(lambda c: write(c, ("PACS", "CT1"), HELD))
        await database.run(lambda c: write(c, ("PACS", "CT2"), other))
        assert dict(await database.run(read)) == {("PACS", "CT1"): HELD, ("PACS", "CT2"): other}
