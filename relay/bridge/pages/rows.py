"""What the Bridge's pages show of one thing, made of what its REST says."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request

from relay.errors import Refused
from relay.pages.rest import Rest
from relay.people.roles import Role

Row = Mapping[str, Any]

# A title or name that people search for is not longer.
MAXIMUM_SEARCH: Final = 200


def may(request: Request, role: Role) -> bool:
    """Whether whoever asks has this role: what they may not do they are not offered."""
    who = request.scope.get("relay.who")
    return who is not None and who.may(role)


def need(request: Request, role: Role, what: str) -> None:
    """Raise Refused (403) unless whoever asks has this role; `what` is what it is needed for."""
    if not may(request, role):
        raise Refused(
            403, f"{what} needs the role {role.value}: ask somebody who has it, or for that role"
        )


def state_of(router: Row) -> tuple[str, str]:
    """How a Router is doing, in a word, and the tone of it."""
    if router["revoked"]:
        return "revoked", "bad"
    if router["connected"]:
        return "connected", "ok"
    return "away", "warn"


def store_state(store: Row) -> tuple[str, str]:
    """How an object store is doing, in a word, and the tone of it."""
    if store["leaving"]:
        return "leaving", "idle"
    if store["failing"]:
        return "failing", "bad"
    if store["worked"]:
        return "works", "ok"
    return "not checked", "idle"


async def names(rest: Rest) -> dict[str, str]:
    """The hospitals' names by their Routers' fingerprints."""
    return {row["fingerprint"]: row["name"] for row in await rest.get("/v1/routers")}


def with_names(rows: Iterable[Row], known: Mapping[str, str], *fields: str) -> list[dict[str, Any]]:
    """These rows, with the name for each of these fields' fingerprints: as `field`_name.

    Of whom the Bridge does not know, the fingerprint is the name.
    """
    return [
        {**row, **{f"{field}_name": known.get(row[field], row[field]) for field in fields}}
        for row in rows
    ]


def searched(request: Request, name: str = "q") -> str:
    """What is searched for."""
    return request.query_params.get(name, "").strip()[:MAXIMUM_SEARCH]


def matching(rows: Sequence[Row], words: str, *fields: str) -> list[Row]:
    """The rows in which each of the words is in one of these fields, in whatever case."""
    wanted = words.casefold().split()
    return [
        row
        for row in rows
        if all(any(word in _text(row[field]) for field in fields) for word in wanted)
    ]


def _text(value: Any) -> str:
    return (" ".join(value) if isinstance(value, list) else str(value)).casefold()
