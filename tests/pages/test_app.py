"""One port: health for anybody, the REST by role, pages for the rest."""

from relay.people.roles import Role
from tests.pages.conftest import World


async def test_each_path_has_its_own(world: World) -> None:
    browser = await world.browser()
    assert "Overview" in await browser.get("/")
    for path in ("/v1/things", "/metrics", "/v1/openapi.json", "/healthz"):
        answer = await browser.http.get(path)
        assert answer.headers["content-type"] == "application/json", path
        assert answer.status_code == 200
    refused = await browser.http.get("/v1/nothing")
    assert (refused.status_code, refused.json()) == (404, {"error": "Not Found"})


async def test_the_document_says_which_role_an_operation_needs(world: World) -> None:
    browser = await world.browser(Role.VIEWER)
    paths = (await browser.http.get("/v1/openapi.json")).json()["paths"]
    assert paths["/v1/things"]["get"]["x-relay-role"] == "viewer"
    assert paths["/v1/things"]["post"]["x-relay-role"] == "operator"
    assert paths["/v1/people"]["get"]["x-relay-role"] == "administrator"
    assert paths["/v1/people/{name}"]["delete"]["x-relay-role"] == "administrator"
