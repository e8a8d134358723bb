"""URLs of stores: whom they speak to, and for what they ask."""

import re
from functools import lru_cache
from typing import NamedTuple

import httpx

PORTS = {"https": 443, "http": 80}

# What is nearly every signed URL: scheme and authority, path and query, with nothing in them that
# means anything else to some other reader. httpx takes 0.1 ms for each, and reads the others.
_PLAIN_URL = re.compile(
    r"(https?://[a-z0-9.-]+(?::[0-9]{1,5})?)(/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)"
)


class Origin(NamedTuple):
    """Whom a URL speaks to; the host in ASCII."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """host:port as HTTP writes it, without the scheme's own port (RFC 9110 §4.2.3)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS.get(self.scheme) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """As configurations name it."""
        return f"{self.scheme}://{self.authority}"


class Target(NamedTuple):
    """What a URL asks for, of whom; `named` if it holds a user name."""

    origin: Origin
    path: str
    named: bool = False


def target_of(url: str) -> Target:
    """What `url` says. Raises httpx.InvalidURL, UnicodeError."""
    if plain := _PLAIN_URL.fullmatch(url):
        return Target(origin_of(plain[1]), plain[2])
    parsed = httpx.URL(url)
    return Target(_origin(parsed), parsed.raw_path.decode("ascii"), bool(parsed.userinfo))


# Stores are few, and named with each request.
@lru_cache(maxsize=64)
def origin_of(url: str) -> Origin:
    """Whom `url` speaks to. Raises httpx.InvalidURL, UnicodeError."""
    return _origin(httpx.URL(url))


def host_of(url: httpx.URL) -> str:
    """The host in ASCII; `url.host` would decode it, and raise where that cannot be."""
    return url.raw_host.decode("ascii").lower()


def _origin(url: httpx.URL) -> Origin:
    return Origin(url.scheme, host_of(url), url.port or PORTS.get(url.scheme, 0))
