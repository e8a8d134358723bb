"""One row makes the route and its description, so that they agree."""

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from relay.people.roles import Role
from relay.people.who import Who
from relay.web.operations import (
    COUNT,
    ERROR,
    TEXT,
    Operation,
    guarded_app,
    listed,
    record,
    rest_app,
    with_document,
    with_public_document,
)


async def things(request: Request) -> Response:
    return JSONResponse([{"name": request.path_params["name"], "size": 1}])


async def remove(request: Request) -> Response:
    return Response(status_code=204)


OPERATIONS = with_document(
    "Things",
    "1",
    [
        Operation(
            "GET",
            "/v1/things/{name:path}",
            things,
            "The things.",
            answer=listed(record(name=TEXT, size=COUNT)),
            refusals=(404,),
        ),
        Operation("DELETE", "/v1/things/{name:path}", remove, "Remove one.", status=204),
        Operation("POST", "/v1/things", remove, "Make one.", body=record(name=TEXT)),
    ],
)


async def test_document() -> None:
    mounted = Route("/other", remove, methods=["PUT"])
    transport = httpx.ASGITransport(rest_app(OPERATIONS, mounted))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        document = (await client.get("/v1/openapi.json")).json()
        assert (await client.get("/v1/things/a/b")).json() == [{"name": "a/b", "size": 1}]
        assert (await client.delete("/v1/things/a/b")).status_code == 204
        assert (await client.put("/other")).status_code == 204
        unknown = await client.get("/v1/nothing")
        assert (unknown.status_code, unknown.json()) == (404, {"error": "Not Found"})
    assert document["openapi"] == "3.1.0"
    assert document["info"] == {"title": "Things", "version": "1"}
    assert set(document["paths"]) == {"/v1/things/{name}", "/v1/things", "/v1/openapi.json"}
    one = document["paths"]["/v1/things/{name}"]
    assert set(one) == {"get", "delete"}
    assert one["get"]["parameters"] == [
        {"name": "name", "in": "path", "required": True, "schema": TEXT}
    ]
    answer = one["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["items"]["required"] == ["name", "size"]
    assert one["get"]["responses"]["404"]["content"]["application/json"]["schema"] == ERROR
    assert "content" not in one["delete"]["responses"]["204"]
    body = document["paths"]["/v1/things"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"]["properties"] == {"name": TEXT}


def test_what_is_public_needs_no_role() -> None:
    [public, private] = OPERATIONS[:2]
    described = with_public_document("Things", "1", [public], [private])
    assert [operation.path for operation in described] == [public.path, "/v1/openapi.json"]


async def test_the_public_document_shows_what_is_beside() -> None:
    public, *private = OPERATIONS
    app = rest_app(with_public_document("Things", "1", [public], private))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        paths = (await client.get("/v1/openapi.json")).json()["paths"]
    assert "x-relay-role" not in paths["/v1/things/{name}"]["get"]
    assert paths["/v1/things/{name}"]["delete"]["x-relay-role"] == "administrator"
    assert paths["/v1/things"]["post"]["x-relay-role"] == "administrator"
    assert "x-relay-role" not in paths["/v1/openapi.json"]["get"]


async def test_a_guarded_app_is_for_roles() -> None:
    who: list[Who | None] = [None]
    operations = [*OPERATIONS, Operation("POST", "/v1/try", remove, "Try.", role=Role.OPERATOR)]
    guarded = guarded_app(operations)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if who[0] is not None:
            scope["relay.who"] = who[0]
        await guarded(scope, receive, send)

    calls = [("GET", "/v1/things/a"), ("POST", "/v1/try"), ("DELETE", "/v1/things/a")]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        for role, statuses in (
            (None, [401, 401, 401]),
            (Role.VIEWER, [200, 403, 403]),
            (Role.OPERATOR, [200, 204, 403]),
            (Role.ADMINISTRATOR, [200, 204, 204]),
        ):
            who[0] = Who("ada", role) if role is not None else None
            answers = [await client.request(method, path) for method, path in calls]
            assert [answer.status_code for answer in answers] == statuses
        who[0] = Who("ada", Role.VIEWER)
        refused = (await client.delete("/v1/things/a")).json()["error"]
    assert refused == (
        "this needs the role administrator, and you are viewer: ask an administrator"
    )
