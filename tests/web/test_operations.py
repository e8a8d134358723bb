"""One row makes the route and its description, so that they agree."""

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay.web.operations import (
    COUNT,
    ERROR,
    TEXT,
    Operation,
    listed,
    record,
    rest_app,
    with_document,
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
