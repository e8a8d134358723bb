"""A REST operation as one row: its route and its entry in the OpenAPI document."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from relay.errors import Refused
from relay.people.roles import Role
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


# All numbers of so many digits are some of SQLite's integers, and so is the next one.
_DIGITS = 18


class _Whole(Convertor[int]):
    """`{name:whole}`: a number as a database has them; of more digits, one that nothing has.
    Starlette's own `int` fails of some thousands of digits."""

    regex = "[0-9]+"

    def convert(self, value: str) -> int:
        return int(value) if len(value) <= _DIGITS else 10**_DIGITS

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("whole", _Whole())


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

    `refusals` are the statuses that its `{"error": "..."}` may come with. `role` is what it needs
    of who asks, where that is not what `needs` says of its method; `on_refused` is told of whoever
    has too little of one, and in which words.
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
    role: Role | None = None
    on_refused: Callable[[Request, str], None] | None = None

    @property
    def route(self) -> Route:
        return Route(self.path, self.handler, methods=[self.method])

    @property
    def needs(self) -> Role:
        """The role that may do it: everybody looks, administrators change."""
        if self.role is not None:
            return self.role
        return Role.VIEWER if self.method == "GET" else Role.ADMINISTRATOR

    @property
    def guarded(self) -> Route:
        """The route for whom `scope["relay.who"]` names, as far as that role goes."""

        async def handle(request: Request) -> Response:
            who = request.scope.get("relay.who")
            if who is None:
                raise Refused(401, "sign in, or give an API token: `relay person token add NAME`")
            if not who.role.covers(self.needs):
                words = _too_little(who.role, self.needs)
                if self.on_refused is not None:
                    self.on_refused(request, words)
                raise Refused(403, words)
            return await self.handler(request)

        return Route(self.path, handle, methods=[self.method])

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it, without Starlette's converters."""
        return re.sub(r"{(\w+):\w+}", r"{\1}", self.path)

    def describe_guarded(self) -> dict[str, Any]:
        """The Operation Object, which also says what role it needs."""
        return {"x-relay-role": self.needs.value, **self.describe()}

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


def document(
    title: str,
    version: str,
    operations: Sequence[Operation],
    public: Sequence[Operation] = (),
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these operations, and of the `public` ones, which need no role.

    What both have is described as public.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = paths.setdefault(operation.template, {})
        path[operation.method.lower()] = operation.describe_guarded()
    for operation in public:
        path = paths.setdefault(operation.template, {})
        path[operation.method.lower()] = operation.describe()
    return {"openapi": "3.1.0", "info": {"title": title, "version": version}, "paths": paths}


def with_document(title: str, version: str, operations: Sequence[Operation]) -> list[Operation]:
    """These operations and `GET /v1/openapi.json`, which describes them and itself."""

    def describe(complete: Sequence[Operation]) -> dict[str, Any]:
        return document(title, version, complete)

    return _with_document(operations, describe)


def with_public_document(
    title: str, version: str, public: Sequence[Operation], beside: Sequence[Operation] = ()
) -> list[Operation]:
    """These operations, which anybody may ask for, and `GET /v1/openapi.json`, which describes
    them, itself, and those for people that are served `beside` them."""

    def describe(complete: Sequence[Operation]) -> dict[str, Any]:
        return document(title, version, beside, complete)

    return _with_document(public, describe)


def _with_document(
    operations: Sequence[Operation], describe: Callable[[Sequence[Operation]], dict[str, Any]]
) -> list[Operation]:
    async def serve(request: Request) -> Response:
        return JSONResponse(described)

    itself = Operation(
        "GET", "/v1/openapi.json", serve, "This document.", answer={"type": "object"}
    )
    complete = [*operations, itself]
    described = describe(complete)
    return complete


def rest_app(operations: Sequence[Operation], *others: BaseRoute) -> Starlette:
    """The ASGI app of these operations, which refuses in the one form, and of `others`."""
    return Starlette(
        routes=[*(operation.route for operation in operations), *others],
        exception_handlers=EXCEPTION_HANDLERS,
    )


def guarded_app(operations: Sequence[Operation]) -> Starlette:
    """As `rest_app`, for people and programs of some role: 401 without one, 403 where it does not
    go so far. Who asks is in `scope["relay.who"]`, which only Relay itself can set."""
    app = Starlette(
        routes=[operation.guarded for operation in operations],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = False  # a redirect is made of what the client says of itself
    return app


def _too_little(has: Role, needed: Role) -> str:
    return f"this needs the role {needed.value}, and you are {has.value}: ask an administrator"
