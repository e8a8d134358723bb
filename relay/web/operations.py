"""A REST operation as one row: its route and its entry in the OpenAPI document."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from relay.web.answers import EXCEPTION_HANDLERS

Schema = Mapping[str, Any]
Handler = Callable[[Request], Awaitable[Response]]

JSON = "application/json"
BYTES = "application/octet-stream"

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
BINARY: Schema = {"type": "string", "format": "binary"}


def listed(of: Schema) -> Schema:
    """An array of these."""
    return {"type": "array", "items": of}


def record(**properties: Schema) -> Schema:
    """An object with exactly these properties, all of them always there."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def options(**properties: Schema) -> Schema:
    """An object with some of these properties."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


ERROR = record(error=TEXT)
FINDING = record(what=TEXT, ok=FLAG, advice=TEXT)


@attrs.frozen(slots=True)
class Operation:
    """One method of one path. `answer` is the schema of the body, None where there is none.

    `refusals` are the statuses that its `{"error": "..."}` may come with.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answer: Schema | None = None
    status: int = 200
    media: str = JSON
    body: Schema | None = None
    body_media: str = JSON
    refusals: Sequence[int] = ()

    @property
    def route(self) -> Route:
        return Route(self.path, self.handler, methods=[self.method])

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it, without Starlette's converters."""
        return re.sub(r"{(\w+):\w+}", r"{\1}", self.path)

    def describe(self) -> dict[str, Any]:
        """The Operation Object."""
        responses: dict[str, Any] = {str(self.status): {"description": "Done."}}
        if self.answer is not None:
            responses[str(self.status)]["content"] = {self.media: {"schema": self.answer}}
        for status in self.refusals:
            responses[str(status)] = {
                "description": "Refused.",
                "content": {JSON: {"schema": ERROR}},
            }
        described: dict[str, Any] = {"summary": self.summary, "responses": responses}
        names = re.findall(r"{(\w+)", self.path)
        if names:
            described["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": TEXT} for name in names
            ]
        if self.body is not None:
            described["requestBody"] = {
                "required": True,
                "content": {self.body_media: {"schema": self.body}},
            }
        return described


def document(title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these operations."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = paths.setdefault(operation.template, {})
        path[operation.method.lower()] = operation.describe()
    return {"openapi": "3.1.0", "info": {"title": title, "version": version}, "paths": paths}


def with_document(title: str, version: str, operations: Sequence[Operation]) -> list[Operation]:
    """These operations and `GET /v1/openapi.json`, which describes them and itself."""

    async def serve(request: Request) -> Response:
        return JSONResponse(described)

    itself = Operation(
        "GET", "/v1/openapi.json", serve, "This document.", answer={"type": "object"}
    )
    complete = [*operations, itself]
    described = document(title, version, complete)
    return complete


def rest_app(operations: Sequence[Operation], *others: BaseRoute) -> Starlette:
    """The ASGI app of these operations, which refuses in the one form, and of `others`."""
    return Starlette(
        routes=[*(operation.route for operation in operations), *others],
        exception_handlers=EXCEPTION_HANDLERS,
    )
