"""Writes docs/rest.md's part between the markers, from the tables that the processes serve from.

    python -m scripts.rest_reference

tests/test_reference.py compares, so that the document cannot fall behind.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import groupby
from pathlib import Path
from typing import Any

from relay.audit.operations import audit_operations
from relay.bridge import api as network
from relay.bridge import control as bridge
from relay.bridge.health import bridge_health
from relay.bridge.scrape import metrics_operation
from relay.pages.api import people_operations
from relay.router import api as router
from relay.router.dicomweb.api import token_operations
from relay.router.health import router_health
from relay.web.operations import JSON, Operation, Schema

DOCUMENT = Path(__file__).parent.parent / "docs/rest.md"
BEGIN, END = "<!-- made by scripts/rest_reference.py: begin -->", "<!-- end -->"

# Of a line in a fenced block, so that nothing is to be scrolled for.
_WIDTH = 96

# Served without sign-in.
HEALTH = ("/healthz", "/readyz")

_SIMPLE = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
    "object": "{…}",
}


class _Unmade:
    """Stands for what operations work on: a table of them only needs to be made, not to work."""

    def __getattr__(self, name: str) -> "_Unmade":
        return self


def router_operations() -> list[Operation]:
    """What a Router serves on its Unix socket and its pages' port."""
    nothing: Any = _Unmade()
    more = [
        *token_operations(nothing, nothing),
        *people_operations(nothing, ""),
        *audit_operations(nothing),
        *router_health(nothing),
    ]
    return router.control_operations(nothing, nothing, nothing, more)


def bridge_operations() -> list[Operation]:
    """What a Bridge serves on its Unix socket and to people at its url."""
    nothing: Any = _Unmade()
    more = [
        *people_operations(nothing, ""),
        *audit_operations(nothing),
        *bridge_health(nothing, nothing),
        metrics_operation(nothing),
    ]
    return bridge.control_operations(nothing, more)


def network_operations() -> list[Operation]:
    """What a Bridge serves to Routers at its url."""
    nothing: Any = _Unmade()
    health = bridge_health(nothing, nothing)
    return network.network_operations(enrol=nothing, inquire=nothing, health=health, store=nothing)


def render() -> str:
    """The made part of the document."""
    parts = [
        "## A Router",
        *_groups(router_operations(), roles=True),
        "## A Bridge, for people",
        *_groups(bridge_operations(), roles=True),
        "## A Bridge, for Routers",
        "On its network port, to anybody: an enrolment proves that it knows an invitation, a blob's"
        " URL\nis signed, and the WebSocket `/v1/signal` proves an identity"
        " ([PROTOCOL.md](../relay/tunnel/PROTOCOL.md)).",
        *_groups(network_operations(), roles=False),
    ]
    return "\n\n".join(parts)


def written(text: str) -> str:
    """`text`, the document, with its made part as it should be."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{render()}\n\n{END}{tail}"


def _groups(operations: Sequence[Operation], *, roles: bool) -> Iterator[str]:
    def subject(operation: Operation) -> str:
        parts = operation.template.strip("/").split("/")
        return parts[1].partition(".")[0] if parts[0] == "v1" else ""

    ordered = sorted(
        operations, key=lambda operation: (subject(operation) == "", subject(operation))
    )
    for name, group in groupby(ordered, subject):
        yield f"### {name}" if name else "### Beside /v1"
        yield from (_operation(operation, roles=roles) for operation in group)


def _operation(operation: Operation, *, roles: bool) -> str:
    needs = "anybody" if operation.path in HEALTH else operation.needs.value
    role = f" · {needs}" if roles else ""
    lines = []
    if operation.body is not None:
        lines += _block("body", in_words(operation.body), operation.body_media)
    answer = in_words(operation.answer) if operation.answer is not None else "nothing"
    lines += _block(str(operation.status), answer, operation.media)
    block = "\n".join(lines)
    refusals = ", ".join(f"{status} {HTTPStatus(status).phrase}" for status in operation.refusals)
    refused = f"\n\nRefused: {refusals}." if refusals else ""
    return (
        f"#### `{operation.method} {operation.template}`{role}\n\n{operation.summary}{refused}\n\n"
        f"```\n{block}\n```"
    )


def _block(label: str, words: str, media: str) -> list[str]:
    if media != JSON:
        words = media
    return textwrap.wrap(
        words,
        _WIDTH,
        initial_indent=f"{label:5}",
        subsequent_indent=" " * 5,
        break_long_words=False,
        break_on_hyphens=False,
    )


def in_words(schema: Schema) -> str:
    """A JSON schema as people write it: `{name: text, limit?: integer}`."""
    if "enum" in schema:
        return " | ".join("null" if value is None else f'"{value}"' for value in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(in_words(one) for one in schema[several])
    kind = schema["type"]
    if isinstance(kind, list):
        return " or ".join(in_words({**schema, "type": one}) for one in kind)
    if kind == "array":
        return f"[{in_words(schema['items'])}, …]" if "items" in schema else "[…]"
    if kind == "object":
        return _object(schema)
    return _SIMPLE[kind]


def _object(schema: Schema) -> str:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    required = schema.get("required", ())
    fields = [
        f"{name}{'' if name in required else '?'}: {in_words(value)}"
        for name, value in properties.items()
    ]
    others = schema.get("additionalProperties")
    if isinstance(others, Mapping):
        fields.append(f"any name: {in_words(others)}")
    return f"{{{', '.join(fields)}}}" if fields else _SIMPLE["object"]


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
