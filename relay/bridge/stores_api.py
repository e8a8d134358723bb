"""REST for the object stores that are set up: looked at, tried, added, put in order, removed."""

from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay.bridge.schemas import FINDINGS, KIND, PROVIDER, REMOVED, TEXTS
from relay.bridge.stores import Stores
from relay.errors import Refused, RelayError
from relay.people.roles import Role
from relay.people.who import CONSOLE
from relay.providers.registry import kinds, settings_of
from relay.providers.settings import REFERENCES
from relay.web.answers import only, read_json
from relay.web.operations import TEXT, Operation, listed, options

_STORE = {**options(name=TEXT, kind=TEXT, settings=TEXTS), "required": ["name", "kind"]}


@attrs.frozen(slots=True)
class StoreRoutes:
    """The operations below, on `stores`."""

    stores: Stores

    async def list_providers(self, request: Request) -> Response:
        return JSONResponse(await self.stores.describe())

    async def provider_kinds(self, request: Request) -> Response:
        return JSONResponse([_kind(kind) for kind in kinds()])

    async def add_provider(self, request: Request) -> Response:
        await self.stores.add(*await _read_store(request))
        return Response(status_code=201)

    async def try_provider(self, request: Request) -> Response:
        findings = await self.stores.try_out(*await _read_store(request))
        return JSONResponse({"findings": [attrs.asdict(finding) for finding in findings]})

    async def use_providers(self, request: Request) -> Response:
        body = await read_json(request)
        names = body.get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Refused(400, "names: expected a list of object stores' names")
        only(body, "names")
        await self.stores.use(names)
        return Response(status_code=204)

    async def remove_provider(self, request: Request) -> Response:
        return JSONResponse({"sessions": await self.stores.remove(request.path_params["name"])})

    async def check_provider(self, request: Request) -> Response:
        findings = await self.stores.check(request.path_params["name"])
        return JSONResponse({"findings": [attrs.asdict(finding) for finding in findings]})


async def _read_store(request: Request) -> tuple[str, str, dict[str, str]]:
    """The name, kind and settings of a store that is to be. Raises Refused."""
    body = await read_json(request)
    name, kind, settings = body.get("name"), body.get("kind"), body.get("settings", {})
    if not isinstance(name, str):
        raise Refused(400, "name: expected the name that the object store is to have")
    if not isinstance(kind, str):
        raise Refused(400, "kind: expected a kind of object store, such as s3")
    if not isinstance(settings, dict):
        raise Refused(400, "settings: expected an object of names and texts")
    only(body, "name", "kind", "settings")
    if not request.scope.get("relay.who", CONSOLE).console:
        _check_no_references(settings)
    return name, kind, settings


def _check_no_references(settings: dict[str, Any]) -> None:
    """Raise Refused (403) for a secret that is to be read on this machine.

    Who sits at another one could name any file that this process may read, its own identity among
    them, and have it sent to a store of their own as if it were a key.
    """
    for key, value in settings.items():
        if isinstance(value, str) and value.strip().startswith(REFERENCES):
            raise Refused(
                403,
                f"{key}: env:NAME and file:PATH are taken on the Bridge's own machine alone, by"
                " `relay provider add`: give the key itself, or set the store up there",
            )


def _kind(kind: str) -> dict[str, Any]:
    """A kind of store, and what a form for it asks; not available if its package does not load."""
    try:
        settings = settings_of(kind)
    except RelayError as error:
        return {"kind": kind, "settings": None, "available": False, "words": str(error)}
    rows = None
    if settings is not None:
        rows = [
            {**attrs.asdict(setting), "form": setting.form.value, "label": setting.called}
            for setting in settings
        ]
    return {"kind": kind, "settings": rows, "available": True, "words": ""}


def store_operations(stores: Stores) -> list[Operation]:
    """The operations on object stores."""
    do = StoreRoutes(stores)
    return [
        Operation(
            "GET",
            "/v1/providers",
            do.list_providers,
            "The object stores that are set up.",
            answer=listed(PROVIDER),
        ),
        Operation(
            "GET",
            "/v1/providers/kinds",
            do.provider_kinds,
            "The kinds of object store that can be set up, and the settings of each.",
            answer=listed(KIND),
        ),
        Operation(
            "POST",
            "/v1/providers",
            do.add_provider,
            "Set up another object store; it is not yet in use.",
            status=201,
            body=_STORE,
            refusals=(400, 409, 413, 415, 503),
        ),
        Operation(
            "POST",
            "/v1/providers/try",
            do.try_provider,
            "Check an object store before it is set up; nothing of it is kept.",
            answer=FINDINGS,
            body=_STORE,
            refusals=(400, 409, 413, 415, 503, 504),
        ),
        Operation(
            "POST",
            "/v1/providers/use",
            do.use_providers,
            "Use these for new sessions, in this order; one that was not in use is checked.",
            status=204,
            body={**options(names=listed(TEXT)), "required": ["names"]},
            refusals=(400, 404, 409, 413, 415, 504),
        ),
        Operation(
            "DELETE",
            "/v1/providers/{name}",
            do.remove_provider,
            "Use it for no new session, and let go of it once no session rests on it.",
            answer=REMOVED,
            refusals=(404, 409),
        ),
        Operation(
            "POST",
            "/v1/providers/{name}/check",
            do.check_provider,
            "Put, get and delete a probe object.",
            answer=FINDINGS,
            refusals=(404, 503, 504),
            role=Role.OPERATOR,
        ),
    ]
