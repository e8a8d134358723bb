"""The people's part of both modes' REST: persons, their links, and API tokens."""

from typing import Any
from urllib.parse import quote

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay.errors import Refused
from relay.pages.door import LINK_PATH
from relay.people.links import LIFE
from relay.people.people import People
from relay.people.roles import Role
from relay.web.answers import read_json
from relay.web.operations import (
    COUNT,
    FLAG,
    TEXT,
    Operation,
    Schema,
    listed,
    options,
    record,
)

_OR_NULL: Schema = {"type": ["integer", "null"]}
_ROLE: Schema = {"type": "string", "enum": [role.value for role in Role]}
_PERSON = record(name=TEXT, role=_ROLE, created=COUNT, has_password=FLAG, signed_in=COUNT)
_LINK = record(name=TEXT, code=TEXT, link=TEXT, expires=COUNT)
_ADDED = options(
    name=TEXT,
    role=_ROLE,
    created=COUNT,
    has_password=FLAG,
    code=TEXT,
    link=TEXT,
    expires=COUNT,
)
_TOKEN = record(name=TEXT, role=_ROLE, created=COUNT, used=_OR_NULL)


@attrs.frozen(slots=True)
class _Routes:
    people: People
    origin: str

    async def show(self, request: Request) -> Response:
        return JSONResponse(
            [
                person.to_json() | {"signed_in": len(list(self.people.sign_ins.of(person.name)))}
                for person in self.people.persons
            ]
        )

    async def add(self, request: Request) -> Response:
        body = await _read(request, "name", "role", "password", "link")
        if body.get("link"):
            self._check_served()
        password = body.get("password")
        if password is not None and not isinstance(password, str):
            raise Refused(400, "password is a text")
        person = await self.people.add(_text(body, "name"), _role(body), password)
        link = await self._link(person.name) if body.get("link") else {}
        return JSONResponse(person.to_json() | link, 201)

    async def change_role(self, request: Request) -> Response:
        body = await _read(request, "role")
        await self.people.change_role(request.path_params["name"], _role(body))
        return JSONResponse({})

    async def set_password(self, request: Request) -> Response:
        body = await _read(request, "password")
        await self.people.set_password(request.path_params["name"], _text(body, "password"))
        return JSONResponse({})

    async def link(self, request: Request) -> Response:
        self._check_served()
        name = self.people.persons.get(request.path_params["name"]).name
        return JSONResponse({"name": name, **await self._link(name)}, 201)

    async def first_link(self, request: Request) -> Response:
        self._check_served()
        return JSONResponse({"name": "", **self._shown(self.people.first_code())}, 201)

    async def remove(self, request: Request) -> Response:
        await self.people.remove(request.path_params["name"])
        return JSONResponse({})

    async def show_tokens(self, request: Request) -> Response:
        return JSONResponse([token.to_json() for token in self.people.tokens])

    async def add_token(self, request: Request) -> Response:
        body = await _read(request, "name", "role")
        role = _role(body)
        secret = await self.people.tokens.add(_text(body, "name"), role)
        return JSONResponse({"name": body["name"], "role": role.value, "token": secret}, 201)

    async def remove_token(self, request: Request) -> Response:
        await self.people.tokens.remove(request.path_params["name"])
        return JSONResponse({})

    def _check_served(self) -> None:
        """Raises Refused (409) where a link would lead nowhere."""
        if not self.origin:
            raise Refused(
                409,
                "the pages are not served: set `listen` of the table [router.pages], and start"
                " the Router again",
            )

    async def _link(self, name: str) -> dict[str, Any]:
        return self._shown(await self.people.link_code(name))

    def _shown(self, code: str) -> dict[str, Any]:
        return {
            "code": code,
            "link": link_to(self.origin, code),
            "expires": int(self.people.clock()) + LIFE,
        }


def link_to(origin: str, code: str) -> str:
    """The one-time link of this code."""
    return f"{origin}{LINK_PATH}?code={quote(code)}"


async def _read(request: Request, *known: str) -> dict[str, Any]:
    body = await read_json(request)
    if unknown := body.keys() - set(known):
        raise Refused(400, f"unknown field {min(unknown)!r}; expected {', '.join(known)}")
    return body


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(400, f"{name} is missing")
    return value


def _role(body: dict[str, Any]) -> Role:
    try:
        return Role(body.get("role"))
    except ValueError:
        names = ", ".join(role.value for role in Role)
        raise Refused(400, f"role is one of {names}") from None


def people_operations(people: People, origin: str) -> list[Operation]:
    """The operations on `people`; `origin` is where links lead to, as `https://host`."""
    do = _Routes(people, origin)
    one, token = "/v1/people/{name:path}", "/v1/api-tokens/{name:path}"
    needs = Role.ADMINISTRATOR
    return [
        Operation(
            "GET",
            "/v1/people",
            do.show,
            "Who may sign in to the pages.",
            listed(_PERSON),
            role=needs,
        ),
        Operation(
            "POST",
            "/v1/people",
            do.add,
            "Add a person; `link` also makes a one-time link, by which to choose a password.",
            _ADDED,
            status=201,
            body=options(name=TEXT, role=_ROLE, password=TEXT, link=FLAG),
            refusals=(400, 409, 503),
        ),
        Operation(
            "POST",
            one + "/role",
            do.change_role,
            "Change a person's role, who is signed out.",
            options(),
            body=record(role=_ROLE),
            refusals=(400, 404, 409),
        ),
        Operation(
            "POST",
            one + "/password",
            do.set_password,
            "Give a person another password, and sign them out.",
            options(),
            body=record(password=TEXT),
            refusals=(400, 404, 503),
        ),
        Operation(
            "POST",
            one + "/link",
            do.link,
            "Make a one-time link by which a person chooses a password; the one before is void.",
            _LINK,
            status=201,
            refusals=(404,),
        ),
        Operation(
            "DELETE",
            one,
            do.remove,
            "Remove a person, but for the last administrator.",
            options(),
            refusals=(404, 409),
        ),
        Operation(
            "POST",
            "/v1/first-link",
            do.first_link,
            "Make the first administrator's one-time link, where nobody can sign in yet.",
            _LINK,
            status=201,
            refusals=(409,),
        ),
        Operation(
            "GET",
            "/v1/api-tokens",
            do.show_tokens,
            "The API tokens; no token itself.",
            listed(_TOKEN),
            role=needs,
        ),
        Operation(
            "POST",
            "/v1/api-tokens",
            do.add_token,
            "Make an API token, which is told this once.",
            record(name=TEXT, role=_ROLE, token=TEXT),
            status=201,
            body=record(name=TEXT, role=_ROLE),
            refusals=(400, 409),
        ),
        Operation(
            "DELETE",
            token,
            do.remove_token,
            "Forget an API token.",
            options(),
            refusals=(404,),
        ),
    ]
