"""Object names: the one alphabet that every store takes."""

import re

from relay.errors import ProviderError

# Long enough for a prefix and a hash; every cloud takes more.
MAXIMUM_NAME = 200

# Parts of [a-z0-9._-], none of which begins with a dot, so that none is "." or "..".
_NAME = re.compile(r"[a-z0-9_-][a-z0-9._-]*(?:/[a-z0-9_-][a-z0-9._-]*)*")


def is_object_name(name: str) -> bool:
    """Whether `name` may name an object."""
    return len(name) <= MAXIMUM_NAME and _NAME.fullmatch(name) is not None


def check_object_name(name: str) -> None:
    """Raise ProviderError if `name` may not name an object."""
    if not is_object_name(name):
        raise ProviderError("object name outside of [a-z0-9/._-]", permanent=True)
