"""A connection to SQLite whose statements fail where they are told to."""

from typing import Any

import apsw
import attrs


@attrs.define
class Statements:
    """In the place of Database's own connection. `fail` says with what a statement fails, by its
    first word; `done` are those that were asked for."""

    connection: apsw.Connection
    fail: dict[str, Exception] = attrs.field(factory=dict)
    done: list[str] = attrs.field(factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, statement: str, *values: Any) -> Any:
        word = statement.split(maxsplit=1)[0]
        self.done.append(word)
        error = self.fail.get(word)
        if error is None or word == "ROLLBACK":  # which is through, whatever it says
            found = self.connection.execute(statement, *values)
        if error is not None:
            raise error
        return found
