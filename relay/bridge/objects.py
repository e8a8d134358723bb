"""The names of a session's objects in its store: derived, so that a restarted Bridge knows them."""

import hashlib
import hmac
from collections.abc import Iterator

import attrs

from relay.signalling.messages import Direction


@attrs.frozen(slots=True)
class EndedSession:
    """A session that is over and whose objects are to be swept; times are Unix seconds."""

    id: bytes
    provider: str
    name_key: bytes = attrs.field(repr=False)
    slots: tuple[int, int]
    ended: int
    created: int

    def object_names(self) -> Iterator[str]:
        """The name of every object that it may have put."""
        return object_names(self.name_key, self.slots)


def object_name(name_key: bytes, direction: Direction, slot: int) -> str:
    """The name of a slot's object: random to whoever has not the session's name key."""
    message = bytes([direction]) + slot.to_bytes(8, "big")
    digest = hmac.digest(name_key, message, hashlib.sha256).hex()
    return f"{digest[:2]}/{digest[2:]}"


def object_names(name_key: bytes, slots: tuple[int, int]) -> Iterator[str]:
    """The names of all slots up to these counts."""
    for direction, count in zip(Direction, slots, strict=True):
        for slot in range(count):
            yield object_name(name_key, direction, slot)
