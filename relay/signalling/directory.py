"""The Directory messages for what changed, each small enough to send."""

from collections.abc import Iterator, Sequence
from typing import Any

from relay.signalling.limits import MAXIMUM_DIRECTORY_BYTES
from relay.signalling.messages import MAXIMUM_DIRECTORY_PART, Directory

# identity, name, HPKE key statement (b"": none yet), connected
ConnectedRow = tuple[bytes, str, bytes, bool]

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
