"""The people that may sign in: in memory and in the database."""

from collections.abc import Iterator
from typing import Any, Final

import apsw
import attrs

from relay.database import Database
from relay.errors import Refused
from relay.people.names import check_name, key_of
from relay.people.roles import Role

# More people than a hospital's PACS team has; a bound on what is in memory.
MAXIMUM_PERSONS: Final = 256


@attrs.frozen(slots=True)
class Person:
    """`password` is the hash, None until one was chosen; `created` is in Unix seconds."""

    name: str
    role: Role
    password: str | None = attrs.field(repr=False)
    created: int

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "role": self.role.value,
            "created": self.created,
            "has_password": self.password is not None,
        }


class Persons:
    """All persons. Made by `load`."""

    def __init__(self, database: Database, persons: list[Person]) -> None:
        self._database = database
        self._persons = {key_of(person.name): person for person in persons}

    @classmethod
    async def load(cls, database: Database) -> "Persons":
        return cls(database, await database.run(_read))

    def __iter__(self) -> Iterator[Person]:
        return iter(sorted(self._persons.values(), key=lambda person: key_of(person.name)))

    def __len__(self) -> int:
        return len(self._persons)

    def find(self, name: str) -> Person | None:
        return self._persons.get(key_of(name))

    def get(self, name: str) -> Person:
        """Raises Refused (404) where there is nobody of that name."""
        person = self.find(name)
        if person is None:
            raise Refused(404, f"no person {name!r}; `relay person list` shows them all")
        return person

    async def add(self, name: str, role: Role, password: str | None, now: int) -> Person:
        """Raises Refused: 400 for what is no name, 409 for one that there is, or for too many."""
        name = check_name(name)
        if self.find(name) is not None:
            raise Refused(409, f"there is a person {name!r} already")
        if len(self._persons) >= MAXIMUM_PERSONS:
            raise Refused(409, f"there are {MAXIMUM_PERSONS} people: remove one first")
        person = Person(name, role, password, now)
        self._persons[key_of(name)] = person  # at once: another of this name is refused meanwhile
        try:
            await self._change(
                "INSERT INTO person (name, role, password, created) VALUES (?, ?, ?, ?)",
                *(person.name, person.role.value, person.password, person.created),
            )
        except BaseException:
            self._persons.pop(key_of(name), None)
            raise
        return person

    async def change_role(self, name: str, role: Role) -> Person:
        """Raises Refused: 404, or 409 for the last administrator."""
        person = self.get(name)
        if role is not Role.ADMINISTRATOR:
            self._check_not_last(person)
        return await self._replace(attrs.evolve(person, role=role))

    async def change_password(self, name: str, password: str) -> Person:
        """`password` is its hash. Raises Refused (404)."""
        return await self._replace(attrs.evolve(self.get(name), password=password))

    async def remove(self, name: str) -> Person:
        """Forget a person with all sign-ins and links. Raises Refused: 404, or 409 for the last
        administrator."""
        person = self.get(name)
        self._check_not_last(person)
        del self._persons[key_of(name)]  # at once: nobody signs in by it any more

        def forget(connection: apsw.Connection) -> None:
            for statement in (
                "DELETE FROM sign_in WHERE person = ?",
                "DELETE FROM one_time_link WHERE person = ?",
                "DELETE FROM person WHERE name = ?",
            ):
                connection.execute(statement, (person.name,))

        try:
            await self._database.run(forget)
        except Exception:
            self._persons.setdefault(key_of(name), person)
            raise
        return person

    def _check_not_last(self, person: Person) -> None:
        others = (p for p in self if p.role is Role.ADMINISTRATOR and p.name != person.name)
        if person.role is Role.ADMINISTRATOR and not any(p.password is not None for p in others):
            raise Refused(
                409,
                f"{person.name} is the last administrator who can sign in:"
                " make somebody else one first",
            )

    async def _replace(self, person: Person) -> Person:
        before = self._persons[key_of(person.name)]
        self._persons[key_of(person.name)] = person
        try:
            await self._change(
                "UPDATE person SET role = ?, password = ? WHERE name = ?",
                *(person.role.value, person.password, person.name),
            )
        except Exception:
            self._persons[key_of(person.name)] = before
            raise
        return person

    async def _change(self, statement: str, *values: str | int | None) -> None:
        await self._database.run(lambda connection: connection.execute(statement, values).get)


def _read(connection: apsw.Connection) -> list[Person]:
    rows = connection.execute("SELECT name, role, password, created FROM person")
    return [Person(name, Role(role), *others) for name, role, *others in rows]
