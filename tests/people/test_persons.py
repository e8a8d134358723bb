"""Persons: kept, changed, and never without an administrator who can sign in."""

import pytest

from relay.database import Database
from relay.errors import Refused
from relay.people import persons as module
from relay.people.persons import Persons
from relay.people.roles import Role


async def test_they_are_kept(database: Database) -> None:
    persons = await Persons.load(database)
    await persons.add("Bob", Role.VIEWER, None, 7)
    await persons.add("ada", Role.ADMINISTRATOR, "hash", 8)
    for held in (persons, await Persons.load(database)):
        assert [person.to_json() for person in held] == [
            {"name": "ada", "role": "administrator", "created": 8, "has_password": True},
            {"name": "Bob", "role": "viewer", "created": 7, "has_password": False},
        ]
    assert "hash" not in repr(list(persons))
    assert persons.get("BOB ").name == "Bob"
    with pytest.raises(Refused, match="no person 'Carol'"):
        persons.get("Carol")


async def test_names_that_look_alike_are_one(database: Database) -> None:
    persons = await Persons.load(database)
    await persons.add("Ada", Role.VIEWER, None, 0)
    for name in ("Ada", "ADA", " ada"):
        with pytest.raises(Refused) as refused:
            await persons.add(name, Role.VIEWER, None, 0)
        assert refused.value.status == 409


async def test_the_last_administrator_who_can_sign_in_stays(database: Database) -> None:
    persons = await Persons.load(database)
    await persons.add("Ada", Role.ADMINISTRATOR, "hash", 0)
    await persons.add("Bob", Role.ADMINISTRATOR, None, 0)
    for act in (persons.remove("Ada"), persons.change_role("Ada", Role.OPERATOR)):
        with pytest.raises(Refused, match="last administrator") as refused:
            await act
        assert refused.value.status == 409
    await persons.change_password("Bob", "hash")
    await persons.change_role("Ada", Role.OPERATOR)
    await persons.remove("Ada")
    assert [person.name for person in await Persons.load(database)] == ["Bob"]


async def test_there_are_not_too_many(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAXIMUM_PERSONS", 2)
    persons = await Persons.load(database)
    await persons.add("a", Role.VIEWER, None, 0)
    await persons.add("b", Role.VIEWER, None, 0)
    with pytest.raises(Refused, match="remove one first"):
        await persons.add("c", Role.VIEWER, None, 0)


async def test_what_the_database_refuses_has_not_happened(database: Database) -> None:
    persons = await Persons.load(database)
    await persons.add("Ada", Role.ADMINISTRATOR, "hash", 0)
    await persons.add("Bob", Role.VIEWER, None, 0)
    await database.run(lambda db: db.execute("DROP TABLE person").get)
    for act in (
        persons.add("Carol", Role.VIEWER, None, 0),
        persons.change_role("Bob", Role.OPERATOR),
        persons.remove("Bob"),
    ):
        with pytest.raises(Exception, match="person"):
            await act
    assert [(person.name, person.role) for person in persons] == [
        ("Ada", Role.ADMINISTRATOR),
        ("Bob", Role.VIEWER),
    ]
