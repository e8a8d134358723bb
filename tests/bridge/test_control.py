"""The Unix socket: what people and scripts may ask, and answers as they are described."""

import json

import pytest
import trio

from relay.invitation import Invitation

from .conftest import PATIENCE, Bridge, Router, connected
from .schemas import conforms, operations_of


async def described(bridge: Bridge):
    return await bridge.get("/v1/openapi.json")


async def test_everything_is_described_and_answers_so(bridge: Bridge) -> None:
    north, south = await bridge.enrol("North"), await bridge.enrol("South")
    publish = (south.publication("PACS"),)
    grants = ((north.id, "PACS", ("store",)),)
    async with (
        connected(bridge, south, publish=publish, grants=grants),
        connected(bridge, north) as caller,
    ):
        message = north.opening(south, "PACS")
        await caller.client.send(message)
        with trio.fail_after(PATIENCE):
            while not (await bridge.get("/v1/sessions")):
                await trio.sleep(0.01)  # nobody is told of a session that is only open
        document = await described(bridge)
        tried = set()

        async def ask(method: str, path: str, at: str | None = None, **body) -> object:
            answer = await bridge.control.request(method, at or path, timeout=20, **body)
            conforms(document, method, path, answer)
            assert answer.is_success, answer.text
            tried.add((method, path))
            return answer.json() if answer.content else None

        await ask("POST", "/v1/invitations", json={"name": "West"})
        rows = await ask("GET", "/v1/invitations")
        assert [row["state"] for row in rows].count("used") == 2
        rows = await ask("GET", "/v1/routers")
        assert [(r["name"], r["connected"], r["ae_titles"]) for r in rows] == [
            ("North", True, []),
            ("South", True, ["PACS"]),
        ]
        [row] = await ask("GET", "/v1/publications")
        assert (row["ae_title"], row["name"], row["services"]) == (
            "PACS",
            "South",
            ["echo", "store"],
        )
        [row] = await ask("GET", "/v1/grants")
        assert row["grantee"] == north.identity.fingerprint
        [row] = await ask("GET", "/v1/sessions")
        assert row["session"] == message.session.hex()
        status = await ask("GET", "/v1/status")
        assert (status["routers"], status["connected"], status["sessions"]) == (2, 2, 1)
        assert (status["store"], status["failing_stores"]) == ("disk", [])
        settings = {"bucket": "b-1", "region": "r", "access_key": "a", "secret_key": "s"}
        cloud = {"name": "cloud", "kind": "s3", "settings": settings}
        await ask("POST", "/v1/providers", json=cloud)
        rows = await ask("GET", "/v1/providers")
        assert [(row["name"], row["kind"], row["place"], row["sessions"]) for row in rows] == [
            ("disk", "disk", 1, 1),
            ("cloud", "s3", 0, 0),
        ]
        await ask("POST", "/v1/providers/use", json={"names": ["disk"]})
        answer = await ask("DELETE", "/v1/providers/{name}", "/v1/providers/cloud")
        assert answer == {"sessions": 0}
        answer = await ask("POST", "/v1/providers/{name}/check", "/v1/providers/disk/check")
        assert all(finding["ok"] for finding in answer["findings"])
        await ask("GET", "/v1/openapi.json")
        fingerprint = north.identity.fingerprint
        await ask(
            "POST",
            "/v1/routers/{fingerprint}/revoke",
            f"/v1/routers/{fingerprint}/revoke",
        )
        assert tried == operations_of(document)


async def test_invitation_holds_what_a_router_needs(bridge: Bridge) -> None:
    answer = await bridge.control.post("/v1/invitations", json={"name": "N", "lifetime": 3600})
    invitation = Invitation.parse(answer.json()["invitation"])
    assert invitation.expires == answer.json()["expires"]
    # The code is told once.
    listed = json.dumps(await bridge.get("/v1/invitations"))
    assert invitation.code.hex() not in listed
    assert answer.json()["invitation"] not in listed


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "name: expected"),
        ({"name": 7}, "name: expected"),
        ({"name": ""}, "printable"),
        ({"name": "N", "lifetime": "1h"}, "whole number"),
        ({"name": "N", "lifetime": True}, "whole number"),
        ({"name": "N", "lifetime": 1}, "lifetime: expected"),
        ({"name": "N", "lifespan": 1}, "lifespan: unknown"),
        ([], "not a JSON object"),
    ],
)
async def test_asked_wrongly(bridge: Bridge, body, words: str) -> None:
    answer = await bridge.control.post("/v1/invitations", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    conforms(await described(bridge), "POST", "/v1/invitations", answer)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("", {}, "name: expected"),
        ("", {"name": "a"}, "kind: expected"),
        ("", {"name": "a", "kind": "s3", "settings": ["bucket"]}, "settings: expected"),
        ("", {"name": "a", "kind": "s3", "settings": {"bucket": 1}}, "bucket: expected text"),
        ("", {"name": "a", "kind": "s3", "colour": "red"}, "colour: unknown"),
        ("", {"name": "a", "kind": "s3"}, "bucket: is needed"),
        ("", {"name": "a", "kind": "floppy"}, "no provider of kind 'floppy'"),
        ("/use", {}, "names: expected"),
        ("/use", {"names": "disk"}, "names: expected"),
        ("/use", {"names": [7]}, "names: expected"),
        ("/use", {"names": []}, "names: expected"),
        ("/use", {"names": ["disk"], "now": True}, "now: unknown"),
    ],
)
async def test_stores_asked_wrongly(bridge: Bridge, path: str, body, words: str) -> None:
    answer = await bridge.control.post(f"/v1/providers{path}", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    conforms(await described(bridge), "POST", f"/v1/providers{path}", answer)


async def test_a_stores_secret_is_told_by_nothing(bridge: Bridge, data_dir, logs) -> None:
    settings = {"bucket": "b-1", "region": "r", "access_key": "AKID", "secret_key": "hunter2"}
    store = {"name": "cloud", "kind": "s3", "settings": settings}
    assert (await bridge.control.post("/v1/providers", json=store)).status_code == 201
    again = await bridge.control.post("/v1/providers", json=store)
    assert again.status_code == 409
    wrong = {**store, "name": "other", "settings": {**settings, "region": "!"}}
    refused = await bridge.control.post("/v1/providers", json=wrong)
    listed = await bridge.control.get("/v1/providers")
    status = await bridge.control.get("/v1/status")
    said = "".join(answer.text for answer in (again, refused, listed, status)) + str(logs)
    assert "cloud" in said
    assert "hunter2" not in said
    assert "AKID" not in said


async def test_not_found(bridge: Bridge) -> None:
    document = await described(bridge)
    answer = await bridge.control.post("/v1/routers/aaaa-bbbb/revoke")
    conforms(document, "POST", "/v1/routers/{fingerprint}/revoke", answer)
    assert answer.status_code == 404
    answer = await bridge.control.post("/v1/providers/floppy/check")
    conforms(document, "POST", "/v1/providers/{name}/check", answer)
    assert answer.json()["error"] == "no object store 'floppy'; there is: disk"
    answer = await bridge.control.delete("/v1/providers/floppy")
    conforms(document, "DELETE", "/v1/providers/{name}", answer)
    assert answer.status_code == 404
    answer = await bridge.control.delete("/v1/providers/disk")
    conforms(document, "DELETE", "/v1/providers/{name}", answer)
    assert (answer.status_code, "only" in answer.json()["error"]) == (409, True)
    assert (await bridge.control.get("/v1/nothing")).json() == {"error": "Not Found"}


async def test_people_have_no_business_on_the_network_port(bridge: Bridge) -> None:
    for method, path in operations_of(await described(bridge)):
        if path == "/v1/openapi.json":
            continue
        answer = await bridge.web.request(method, path.replace("{", "").replace("}", ""))
        assert answer.status_code == 404


async def test_revoked_router_is_listed_as_such(bridge: Bridge) -> None:
    router: Router = await bridge.enrol()
    path = f"/v1/routers/{router.identity.fingerprint}/revoke"
    for _ in range(2):
        assert (await bridge.control.post(path)).status_code == 204
    [row] = await bridge.get("/v1/routers")
    assert row["revoked"]
    assert (await bridge.get("/v1/status"))["routers"] == 0
