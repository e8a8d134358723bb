"""What relay.toml has this process run with, for people to look at: a row for each key.

Secrets are not told, only where they are kept.
"""

import tomllib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from relay import config as schema
from relay.bandwidth import BandwidthLimit
from relay.config import Config
from relay.values import Key, Secret

_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def rows(config: Config) -> list[dict[str, Any]]:
    """The keys of `config`'s table and of those below it, in the example's order.

    `value` and `default` are as a person writes them, None where there is nothing.
    """
    mode = config.mode
    found = list(_rows(mode.value, schema.keys(mode), config))
    for name, table in schema.tables(mode).items():
        found += _rows(f"{mode.value}.{name}", schema.keys_of(table), getattr(config, name))
    return found


def _rows(table: str, keys: dict[str, Key], values: object) -> Iterator[dict[str, Any]]:
    for name, key in keys.items():
        value = getattr(values, name)
        given = not _is_default(key, value)
        yield {
            "table": table,
            "key": name,
            "value": _text(value, key) if given else _plain(key.default),
            "default": _plain(key.default),
            "given": given,
            "secret": isinstance(value, Secret),
            "words": key.words,
        }


def _is_default(key: Key, value: object) -> bool:
    if key.default is None:
        return value is None
    return bool(key.kind.read(_toml(key.default), Path.cwd()) == value)


def _toml(source: str) -> Any:
    return tomllib.loads(f"value = {source}")["value"]


def _plain(source: str | None) -> str | None:
    """A default as a person reads it: without TOML's quotes; None for an empty one."""
    if source is None:
        return None
    value = _toml(source)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    return value or None if isinstance(value, str) else source


def _text(value: object, key: Key) -> str | None:
    match value:
        case None:
            return None
        case Secret(source=source):
            return source or "set, and not shown"
        case bool():
            return "true" if value else "false"
        case Enum():
            return str(value.value)
        case BandwidthLimit():
            return "; ".join(rule.text for rule in value.rules) or None
        case tuple() | list():
            return ", ".join(map(str, value)) or None
        case int() if (key.default or "").startswith('"'):
            return _size(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value) or None


def _size(number: int) -> str:
    for unit, factor in _UNITS:
        if number >= factor and not number % factor:
            return f"{number // factor} {unit}"
    return f"{number} bytes"
