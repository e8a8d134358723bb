"""Passwords: which are taken, and their argon2id hashes (RFC 9106), made without harm to others.

A hash takes a tenth of a second and 64 MiB on purpose. So there are two at once at the most, in
threads of their own, few more wait, and the rest are told to come again: who tries passwords costs
the data's way a core's part, and no memory.
"""

import unicodedata
from collections.abc import Callable
from typing import Final, TypeVar

import argon2
import attrs
from argon2.exceptions import InvalidHashError, VerificationError

from relay.errors import Refused
from relay.workers import Workers

# NIST SP 800-63B §5.1.1.2: length is what counts; there are no rules for what it is made of.
MINIMUM_LENGTH: Final = 12
# Long enough for any sentence; a bound on what is hashed.
MAXIMUM_LENGTH: Final = 256
# ... and of what people reuse under that rule, what is tried first.
_COMMON: Final = frozenset(
    {
        "123456789012",
        "1234567890123",
        "administrator",
        "passwordpassword",
        "password1234",
        "password12345",
        "qwertyuiop12",
        "qwertyuiopas",
        "dicomdicomdicom",
        "relayrelayrelay",
    }
)

T = TypeVar("T")

AT_ONCE: Final = 2
# Who waits behind those: at a tenth of a second each, a second at the most.
WAITING: Final = 8


@attrs.frozen(slots=True)
class Cost:
    """RFC 9106 §4, second recommended option, in one lane: the threads are bounded here."""

    passes: int = 3
    memory: int = 64 * 1024  # KiB
    lanes: int = 1


class Busy(Refused):
    """As many passwords are checked as may be at once; `seconds` from now there is room."""

    def __init__(self) -> None:
        super().__init__(503, "many people sign in just now: try again in a few seconds")
        self.seconds = 3


class Passwords:
    """Makes and checks hashes. `close` ends its threads."""

    def __init__(self, cost: Cost | None = None) -> None:
        cost = cost or Cost()
        self._hasher = argon2.PasswordHasher(
            time_cost=cost.passes, memory_cost=cost.memory, parallelism=cost.lanes
        )
        self._workers = Workers(AT_ONCE)
        self._asked = 0
        self._nobody = ""

    def close(self) -> None:
        self._workers.close()

    async def hash(self, password: str) -> str:
        """The hash to keep. Raises Busy."""
        return await self._run(lambda: self._hasher.hash(_normal(password)))

    async def check(self, kept: str | None, password: str) -> bool:
        """Whether `password` is the one whose hash is `kept`; takes as long where there is none.

        Raises Busy.
        """
        return await self._run(lambda: self._verify(kept, _normal(password)))

    def is_outdated(self, kept: str) -> bool:
        """Whether `kept` was made with another cost than is asked for now."""
        return self._hasher.check_needs_rehash(kept)

    def _verify(self, kept: str | None, password: str) -> bool:
        if not self._nobody:
            self._nobody = self._hasher.hash("nobody's password")
        try:
            self._hasher.verify(kept or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return kept is not None

    def check_room(self) -> None:
        """Raises Busy where as many wait as may."""
        if self._asked >= AT_ONCE + WAITING:
            raise Busy

    async def _run(self, call: Callable[[], T]) -> T:
        self.check_room()
        self._asked += 1
        try:
            return await self._workers.run(call)
        finally:
            self._asked -= 1


def check_new(password: str, name: str) -> None:
    """Raises Refused (400) with words for a password that `name` cannot have."""
    shape = _normal(password).casefold()
    if len(shape) < MINIMUM_LENGTH:
        raise Refused(
            400,
            f"a password has at least {MINIMUM_LENGTH} characters; several words make a good one",
        )
    if len(password) > MAXIMUM_LENGTH:
        raise Refused(400, f"a password has at most {MAXIMUM_LENGTH} characters")
    if name and _normal(name).casefold() in shape and len(shape) < len(name) + MINIMUM_LENGTH:
        raise Refused(400, "the password holds the name itself: choose another")
    if shape in _COMMON or len(set(shape)) < 4:
        raise Refused(400, "that password is one of those that are tried first: choose another")


def _normal(password: str) -> str:
    """As NIST SP 800-63B §5.1.1.2 has it: the same characters, however a keyboard makes them."""
    return unicodedata.normalize("NFKC", password)
