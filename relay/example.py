"""A `relay.toml` as Relay writes it: every key with its explanation, from the schema in config."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from relay import config
from relay.config import Mode
from relay.values import Key

# The width of comments, within the 100 columns of all files here.
_WIDTH = 98


def table(mode: Mode, values: Mapping[str, str] = MappingProxyType({})) -> str:
    """A commented table and those below it, every key: those in `values` (TOML source) set, the
    others shown. A key of a table below is said as "pages.listen".

    Required keys that `values` lacks stand with their example, since nothing starts without them.
    """
    lines = [f"[{mode.value}]", *_lines(config.keys(mode), values)]
    for name, schema in config.tables(mode).items():
        lines += [
            "",
            f"[{mode.value}.{name}]",
            *_lines(config.keys_of(schema), _below(name, values)),
        ]
    return "\n".join(lines) + "\n"


def _lines(keys: Mapping[str, Key], values: Mapping[str, str]) -> Iterator[str]:
    for name, key in keys.items():
        yield ""
        yield from textwrap.wrap(
            key.words, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        commented = "" if name in values or key.required else "#"
        yield f"{commented}{name} = {values.get(name, key.example)}"


def _below(table: str, values: Mapping[str, str]) -> dict[str, str]:
    """Those of `values` that are of the table of this name."""
    prefix = table + "."
    return {
        key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)
    }


def text() -> str:
    """The text of relay.toml.example."""
    heading = """\
# Relay's configuration, every key with its default (or an example where there is none).
#
# Only what the process needs to start: devices, grants, peers and providers live in its database
# and are changed with `relay device`, `relay grant`, `relay peer` and `relay provider`.
#
# A relative path counts from this file's folder. A secret is given as "env:NAME" (an environment
# variable) or "file:PATH". Durations are in seconds; sizes in bytes, or as "64 MiB".
#
# `relay init` writes one table of this, filled in. A file needs only the table of its own mode.
"""
    return "\n".join([heading, table(Mode.BRIDGE), table(Mode.ROUTER)])


def quote(words: str) -> str:
    """`words` as a TOML string (TOML's basic strings take JSON's escapes, but not a raw DEL)."""
    return json.dumps(words, ensure_ascii=False).replace("\x7f", "\\u007f")
