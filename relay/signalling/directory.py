"""The Listing, Directory and Granted messages for what there is, each small enough to send."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from relay.signalling.limits import MAXIMUM_DIRECTORY_BYTES
from relay.signalling.messages import (
    MAXIMUM_DIRECTORY_PART,
    MAXIMUM_GRANTED,
    MAXIMUM_LISTED,
    MAXIMUM_SERVICES,
    Directory,
    Granted,
    Listing,
)

# identity of the owner, published AE title, services
GrantedRow = tuple[bytes, str, tuple[str, ...]]

# identity, name, HPKE key statement (b"": none yet), connected
ConnectedRow = tuple[bytes, str, bytes, bool]

# identity, name, and each published AE title with its services
ListedRow = tuple[bytes, str, tuple[tuple[str, tuple[str, ...]], ...]]

# What one row takes beside its bytes: msgpack's headers, rounded up.
_OVERHEAD = 16


def directory_parts(
    *,
    whole: bool,
    routers: Sequence[ConnectedRow] = (),
    publications: Sequence[bytes] = (),
    gone_routers: Sequence[bytes] = (),
    gone_titles: Sequence[str] = (),
) -> Iterator[Directory]:
    """All of it, in as many messages as it takes; with `whole` the first begins a snapshot.

    Names longer than a message may hold are cut: they are for people to read.
    """
    lists: list[list[Any]] = [[], [], [], []]
    size = 0
    begins = whole
    for index, row, row_size in _rows(routers, publications, gone_routers, gone_titles):
        if len(lists[index]) == MAXIMUM_DIRECTORY_PART or size + row_size > MAXIMUM_DIRECTORY_BYTES:
            yield Directory(begins, *map(tuple, lists))
            begins, lists, size = False, [[], [], [], []], 0
        lists[index].append(row)
        size += row_size
    if begins or any(lists):
        yield Directory(begins, *map(tuple, lists))


def listing_parts(*, whole: bool, routers: Sequence[ListedRow]) -> Iterator[Listing]:
    """All of `routers`, in as many messages as it takes; with `whole` the first begins anew.

    A Router whose AE titles fill a message by themselves is listed with as many as fit: the others
    can be sought.
    """
    rows: list[ListedRow] = []
    size = 0
    begins = whole
    for identity, name, published in routers:
        row, row_size = _listed(identity, name[:64], published)
        if len(rows) == MAXIMUM_LISTED or size + row_size > MAXIMUM_DIRECTORY_BYTES:
            yield Listing(begins, tuple(rows))
            begins, rows, size = False, [], 0
        rows.append(row)
        size += row_size
    if begins or rows:
        yield Listing(begins, tuple(rows))


def _listed(
    identity: bytes, name: str, published: Sequence[tuple[str, tuple[str, ...]]]
) -> tuple[ListedRow, int]:
    """A row that fits a message, and its size in bytes at most."""
    size = len(identity) + 4 * len(name) + _OVERHEAD
    taken = []
    for title, services in published:
        services = services[:MAXIMUM_SERVICES]
        more = sum(len(text.encode()) + 2 for text in (title, *services)) + _OVERHEAD
        if size + more > MAXIMUM_DIRECTORY_BYTES:
            break
        taken.append((title, services))
        size += more
    return (identity, name, tuple(taken)), size


def granted_message(rows: Sequence[GrantedRow]) -> Granted:
    """All of `rows`, or as many as one message holds, with the number of the others."""
    taken: list[GrantedRow] = []
    size = 0
    for owner, title, services in _by_turns(rows):
        services = services[:MAXIMUM_SERVICES]
        size += len(owner) + sum(len(text.encode()) + 2 for text in (title, *services)) + _OVERHEAD
        if len(taken) == MAXIMUM_GRANTED or size > MAXIMUM_DIRECTORY_BYTES:
            break
        taken.append((owner, title, services))
    return Granted(tuple(taken), len(rows) - len(taken))


def _by_turns(rows: Sequence[GrantedRow]) -> list[GrantedRow]:
    """A row of each owner, then the next of each: who grants much leaves room for the others."""
    before: Counter[bytes] = Counter()
    turns = []
    for row in rows:
        turns.append((before[row[0]], row))
        before[row[0]] += 1
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])]


def _rows(
    routers: Sequence[ConnectedRow],
    publications: Sequence[bytes],
    gone_routers: Sequence[bytes],
    gone_titles: Sequence[str],
) -> Iterator[tuple[int, Any, int]]:
    for identity, name, statement, connected in routers:
        row = (identity, name[:64], statement, connected)
        yield 0, row, len(identity) + 4 * len(name[:64]) + len(statement) + _OVERHEAD
    for index, rows in ((1, publications), (2, gone_routers), (3, gone_titles)):
        for item in rows:
            yield index, item, len(item) + _OVERHEAD
