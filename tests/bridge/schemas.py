"""Checks answers against an OpenAPI document, as far as Relay's documents go."""

from typing import Any

import httpx


def operations_of(document: dict[str, Any]) -> set[tuple[str, str]]:
    """(method, path) of all that the document describes."""
    return {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }


def conforms(document: dict[str, Any], method: str, path: str, answer: httpx.Response) -> None:
    """Fail unless the answer's status is described, and its body fits the schema."""
    responses = document["paths"][path][method.lower()]["responses"]
    assert str(answer.status_code) in responses, (method, path, answer.status_code, answer.text)
    content = responses[str(answer.status_code)].get("content")
    if content is None:
        assert answer.content == b""
        return
    [(media, body)] = content.items()
    assert answer.headers["content-type"].split(";")[0] == media
    if media == "application/json":
        fits(answer.json(), body["schema"], f"{method} {path}")


_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def fits(value: Any, schema: dict[str, Any], where: str) -> None:
    named = schema["type"]
    types = tuple(_TYPES[name] for name in ([named] if isinstance(named, str) else named))
    assert isinstance(value, types), (where, value)
    assert not isinstance(value, bool) or bool in types, (where, value)
    if isinstance(value, list):
        for number, item in enumerate(value):
            fits(item, schema["items"], f"{where}[{number}]")
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema.get("required", ())) <= set(value), (where, value)
        assert set(value) <= set(schema["properties"]), (where, value)
        for name, item in value.items():
            fits(item, schema["properties"][name], f"{where}.{name}")
