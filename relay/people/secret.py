"""Random secrets that people and programs carry, of which only a digest is kept."""

import hashlib
import secrets
from typing import Final

# 256 random bits for what lives long, 128 for a link that lives for a day: nobody guesses one, so
# a fast hash of it is as good as a slow one.
SIZE: Final = 32
LINK_SIZE: Final = 16


def draw(size: int = SIZE) -> str:
    """A new secret of `size` random bytes, in letters that need no escape in a URL or cookie."""
    return secrets.token_urlsafe(size)


def digest(secret: str) -> bytes:
    """What is kept of `secret`."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
