"""One-time links: for a day, for one person, and once."""

from pathlib import Path

import pytest
import trio

from relay.database import Database
from relay.people.links import LIFE, Links
from relay.people.persons import Persons
from relay.people.roles import Role
from tests.people.conftest import Clock


@pytest.fixture
async def links(database: Database, clock: Clock) -> Links:
    persons = await Persons.load(database)
    await persons.add("Ada", Role.VIEWER, None, 0)
    await persons.add("Bob", Role.VIEWER, None, 0)
    return await Links.load(database, clock)


async def test_the_first_holds_for_a_day_until_another_is_made(links: Links, clock: Clock) -> None:
    assert not links.is_first("")
    code = links.make_first()
    assert len(code) >= 22  # 128 bits
    assert links.is_first(code)
    assert not links.is_first(code[:-1])
    clock.now += LIFE
    assert not links.is_first(code)
    another = links.make_first()
    assert links.is_first(another)
    links.forget_first()
    assert not links.is_first(another)


async def test_a_persons_is_used_once(
    links: Links, database: Database, clock: Clock, tmp_path: Path
) -> None:
    ada, bob = await links.make("Ada"), await links.make("Bob")
    again = await Links.load(database, clock)
    assert again.find(ada) == "Ada"
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert ada.encode() not in kept
    assert await links.take(ada) == "Ada"
    assert await links.take(ada) is None
    assert links.find(bob) == "Bob"
    assert (await Links.load(database, clock)).find(ada) is None


async def test_of_two_who_come_at_once_one_gets_it(links: Links) -> None:
    code = await links.make("Ada")
    got: list[str | None] = []

    async def take() -> None:
        got.append(await links.take(code))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        nursery.start_soon(take)
    assert sorted(got, key=str) == ["Ada", None]


async def test_it_ends_with_the_day_and_with_a_newer_one(links: Links, clock: Clock) -> None:
    old = await links.make("Ada")
    new = await links.make("Ada")
    assert links.find(old) is None
    clock.now += LIFE - 1
    assert links.find(new) == "Ada"
    clock.now += 1
    assert links.find(new) is None
    assert await links.take(new) is None
