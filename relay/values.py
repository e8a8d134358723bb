"""How one value of `relay.toml` is read: the kinds of value, and what each expects, in words."""

import os
import re
from collections.abc import Callable
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs

from relay import bandwidth

# A secret is a line: a larger file is something else given by mistake, and not read to find out.
MAXIMUM_SECRET = 16 * 1024


@attrs.frozen(slots=True)
class Address:
    """A host and port to listen on; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it. A name is taken for one of others, but for one."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@attrs.frozen(slots=True, repr=False)
class Secret:
    """A value that must not be printed; `reveal` is for the one place that needs it.

    `source` is where it was read, env:NAME or file: and the whole path; empty: nowhere else.
    """

    _value: str
    source: str = attrs.field(default="", eq=False)

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"


E = TypeVar("E", bound=Enum)


class Expectation(ValueError):
    """What was expected, in words of its own."""


@attrs.frozen(slots=True)
class Kind:
    """A type of value: what is expected, in words, and how it is read.

    `read` is given the value and the folder of the file. It raises ValueError, or Expectation
    where it has better words than `expected`.
    """

    expected: str
    read: Callable[[Any, Path], Any]


@attrs.frozen(slots=True)
class Key:
    """What a key of the schema takes, and how the documentation shows it.

    `default` and `example` are TOML source; the example is the default where it is left out.
    Neither `default` nor `required`: the value is None when it is not given.
    """

    kind: Kind
    words: str
    default: str | None = attrs.field(default=None, kw_only=True)
    example: str = attrs.field(
        default=attrs.Factory(lambda key: key.default or "", takes_self=True), kw_only=True
    )
    required: bool = attrs.field(default=False, kw_only=True)


def number(least: float, most: float, unit: str) -> Kind:
    """A number of `unit`, both bounds included."""

    def read(value: Any, folder: Path) -> float:
        if type(value) not in (int, float) or not least <= value <= most:
            raise ValueError
        return float(value)

    return Kind(f"expected a number of {unit} from {least:g} to {most:g}", read)


def count(least: int, most: int) -> Kind:
    """A whole number, both bounds included."""

    def read(value: Any, folder: Path) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    return Kind(f"expected a whole number from {least} to {most}", read)


_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def size(least: int) -> Kind:
    """Bytes, as a number or with a unit: 1048576, or "1 MiB"."""

    def read(value: Any, folder: Path) -> int:
        if isinstance(value, str):
            match = re.fullmatch(r"(\d{1,15}) ?(B|KiB|MiB|GiB|TiB)", value)
            if match is None:
                raise ValueError
            value = int(match[1]) * _UNITS[match[2]]
        if type(value) is not int or not least <= value < 2**63:
            raise ValueError
        return value

    unit, factor = max(
        ((unit, factor) for unit, factor in _UNITS.items() if least % factor == 0),
        key=lambda row: row[1],
    )
    words = f'such as {least} or "{least // factor} {unit}"'
    return Kind(f"expected a size of at least {least} bytes, {words}", read)


def _flag(value: Any, folder: Path) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _path(value: Any, folder: Path) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return folder / Path(value).expanduser()


def _file(value: Any, folder: Path) -> Path:
    path = _path(value, folder)
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise Expectation(f"{path} cannot be read: {reason(error)}") from error
    return path


def _address(value: Any, folder: Path) -> Address:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(\d{1,5})", _text(value))
    if match is None or int(match[2]) > 65535:
        raise ValueError
    return Address(match[1].strip("[]"), int(match[2]))


def _addresses_or_none(value: Any, folder: Path) -> tuple[Address, ...]:
    rows = value if isinstance(value, list) else [value]
    return tuple(_address(row, folder) for row in rows)


def _addresses(value: Any, folder: Path) -> tuple[Address, ...]:
    if value == []:
        raise ValueError
    return _addresses_or_none(value, folder)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _url(value: Any, folder: Path) -> str:
    parts = urlsplit(_text(value))
    if (
        parts.scheme != "https"
        or not parts.hostname
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or (parts.port is not None and not 0 < parts.port < 65536)
    ):
        raise ValueError
    return f"https://{parts.netloc}"


def _origins(value: Any, folder: Path) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(_url(row, folder) for row in value)


def _pages(value: Any, folder: Path) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(_page(row) for row in value)


def _hosts(value: Any, folder: Path) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(_host(row) for row in value)


def _host(value: Any) -> str:
    """A name or an IPv4 address, or an IPv6 address in brackets; no port."""
    host = _text(value)
    if not re.fullmatch(r"[0-9a-z.-]{1,253}|\[[0-9a-f:.]+\]", host):
        raise ValueError
    return host.strip("[]")


def _page(value: Any) -> str:
    """An origin as browsers serialise it (RFC 6454 §6.1): no path, no default port."""
    origin = _text(value)
    parts = urlsplit(origin)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    if (
        default is None
        or not parts.hostname
        or origin != f"{parts.scheme}://{parts.netloc}".lower()
        or "@" in parts.netloc
        or parts.port in (0, default)
    ):
        raise ValueError
    return origin


def _ae_title(value: Any, folder: Path) -> str:
    # PS3.5 Table 6.2-1: 16 characters of the default repertoire, no backslash, no control
    # characters, not spaces only; leading and trailing spaces do not count.
    title = _text(value).strip(" ")
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", title):
        raise ValueError
    return title


def _ae_title_or_none(value: Any, folder: Path) -> str:
    return "" if value == "" else _ae_title(value, folder)


def _secret(value: Any, folder: Path) -> Secret:
    where, colon, name = _text(value).partition(":")
    if not colon or not name or where not in ("env", "file"):
        raise ValueError
    if where == "env":
        if name not in os.environ:
            raise Expectation(f"environment variable {name} is not set")
        secret, source = os.environ[name].strip(), f"env:{name}"
    else:
        path = _path(name, folder)
        source = f"file:{path}"
        try:
            with path.open("rb") as file:
                secret = file.read(MAXIMUM_SECRET).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Expectation(f"{path} cannot be read: {reason(error)}") from error
    if not secret:
        raise Expectation(f"the secret at {value} is empty")
    return Secret(secret, source)


def _secret_or_plain(value: Any, folder: Path) -> Secret:
    """As env:NAME or file:PATH, or said where anybody who reads the file sees it."""
    given = _text(value).startswith(("env:", "file:"))
    return _secret(value, folder) if given else Secret(value)


def _proxy(value: Any, folder: Path) -> Secret:
    secret = _secret_or_plain(value, folder)
    if "@" in value and not secret.source:
        raise Expectation("a proxy with a password is a secret: expected env:NAME or file:PATH")
    parts = urlsplit(secret.reveal())
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError
    return secret


def _webhook(value: Any, folder: Path) -> Secret:
    secret = _secret_or_plain(value, folder)
    parts = urlsplit(secret.reveal())
    if (
        not re.fullmatch(r"[!-~]+", secret.reveal())
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.port == 0
    ):
        raise ValueError
    if "@" in parts.netloc and not secret.source:
        raise Expectation("a URL with a password is a secret: expected env:NAME or file:PATH")
    return secret


def _bandwidth(value: Any, folder: Path) -> bandwidth.BandwidthLimit:
    if not isinstance(value, list):
        raise ValueError
    rules = [_text(row) for row in value]
    try:
        return bandwidth.parse(rules)
    except ValueError as error:
        raise Expectation(str(error)) from error


def one_of(enum: type[E]) -> Kind:
    """One of the values of an enumeration of texts."""
    names = [member.value for member in enum]
    quoted = ", ".join(f'"{name}"' for name in names)

    def read(value: Any, folder: Path) -> E:
        return enum(value)

    return Kind(f"expected one of {quoted}", read)


FLAG = Kind("expected true or false", _flag)
PATH = Kind("expected a path", _path)
FILE = Kind("expected the path of a file", _file)
ADDRESS = Kind('expected "HOST:PORT"', _address)
ADDRESSES = Kind('expected "HOST:PORT", or a list of them', _addresses)
ADDRESSES_OR_NONE = Kind(
    'expected "HOST:PORT", or a list of them, which may be empty', _addresses_or_none
)
URL = Kind('expected an https URL without a path, such as "https://relay.example.org"', _url)
ORIGINS = Kind('expected a list of https origins, such as ["https://store.example.org"]', _origins)
PAGES = Kind(
    "expected a list of origins in lower case, without a path or a default port, such as"
    ' ["https://viewer.example.org"]',
    _pages,
)
HOSTS = Kind(
    'expected a list of host names in lower case, without a port, such as ["relay.example.org"]',
    _hosts,
)
AE_TITLE = Kind("expected an AE title of 1 to 16 ASCII characters without a backslash", _ae_title)
AE_TITLE_OR_NONE = Kind(
    'expected an AE title of 1 to 16 ASCII characters without a backslash, or "" for none',
    _ae_title_or_none,
)
SECRET = Kind("expected env:NAME or file:PATH", _secret)
PROXY = Kind('expected "http://HOST:PORT", or env:NAME or file:PATH of one', _proxy)
WEBHOOK = Kind("expected an http or https URL, or env:NAME or file:PATH of one", _webhook)
BANDWIDTH = Kind('expected a list of rules, such as ["mon-fri 07:00-18:00 20 Mbit/s"]', _bandwidth)


def reason(error: Exception) -> str:
    """The system's words for an error, without the path that the caller names already."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
