"""The Unix socket: what people and scripts may ask, and answers as they are described."""

import json
import time

import pytest
import trio

from relay.invitation import Invitation
from relay.signalling.messages import End, EndReason

from .conftest import PATIENCE, Bridge, Router, connected, running
from .schemas import conforms, operations_of

# What both modes have is tried where it is made: people, audit, health and metrics.
_SHARED = (
    "/v1/people",
    "/v1/api-tokens",
    "/v1/first-link",
    "/v1/audit",
    "/healthz",
    "/readyz",
    "/metrics",
)


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
        [open_one] = [row["id"] for row in rows if row["name"] == "West"]
        await ask("DELETE", "/v1/invitations/{id}", f"/v1/invitations/{open_one}")
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
        assert (status["store"], status["failing_stores"], status["warnings"]) == ("disk", [], [])
        assert status["space"] > status["stored"] == 0
        settings = {"bucket": "b-1", "region": "r", "access_key": "a", "secret_key": "s"}
        cloud = {"name": "cloud", "kind": "s3", "settings": settings}
        rows = await ask("GET", "/v1/providers/kinds")
        assert [row["kind"] for row in rows] == ["disk", "s3"]
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
        # A region of that name leads nowhere: the finding says so.
        elsewhere = {**cloud, "name": "elsewhere"}
        elsewhere["settings"] = {**settings, "endpoint": "https://127.0.0.1:1"}
        answer = await ask("POST", "/v1/providers/try", json=elsewhere)
        assert not all(finding["ok"] for finding in answer["findings"])
        rates = await ask("GET", "/v1/rates")
        assert len(rates["messages"]) == len(rates["bytes"])
        assert await ask("GET", "/v1/warnings") == []
        await ask("DELETE", "/v1/restoration")
        session = message.session.hex()
        await ask("DELETE", "/v1/sessions/{session}", f"/v1/sessions/{session}")
        assert await bridge.get("/v1/sessions") == []
        await ask("GET", "/v1/openapi.json")
        fingerprint = north.identity.fingerprint
        await ask(
            "POST",
            "/v1/routers/{fingerprint}/revoke",
            f"/v1/routers/{fingerprint}/revoke",
        )
        assert tried == {
            (method, path)
            for method, path in operations_of(document)
            if not path.startswith(_SHARED)
        }


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
        if path in ("/v1/openapi.json", "/healthz", "/readyz"):
            continue
        answer = await bridge.web.request(method, path.replace("{", "").replace("}", ""))
        assert answer.status_code == 404


async def test_an_invitation_taken_back_lets_nobody_in(bridge: Bridge) -> None:
    invitation = await bridge.invite("North")
    path = f"/v1/invitations/{invitation.invitation_id.hex()}"
    assert (await bridge.control.delete(path)).status_code == 204
    router = Router(invitation.network, "North")
    answer = await bridge.web.post("/v1/enrolments", content=router.enrolment(invitation))
    assert answer.status_code == 403
    document = await described(bridge)
    for gone in (path, "/v1/invitations/not-hex"):
        answer = await bridge.control.delete(gone)
        conforms(document, "DELETE", "/v1/invitations/{id}", answer)
        assert answer.status_code == 404
    await bridge.enrol("South")
    [used] = await bridge.get("/v1/invitations")
    answer = await bridge.control.delete(f"/v1/invitations/{used['id']}")
    conforms(document, "DELETE", "/v1/invitations/{id}", answer)
    assert (answer.status_code, "revoke its Router" in answer.json()["error"]) == (409, True)


async def test_a_session_ended_by_a_person_is_over_at_both_ends(bridge: Bridge) -> None:
    north, south = await bridge.enrol("North"), await bridge.enrol("South")
    publish = (south.publication("PACS"),)
    grants = ((north.id, "PACS", ("store",)),)
    async with (
        connected(bridge, south, publish=publish, grants=grants) as callee,
        connected(bridge, north) as caller,
    ):
        message = north.opening(south, "PACS")
        port = caller.client.attach(message.session)
        await caller.client.send(message)
        await callee.heard(lambda heard: bool(heard.opens))
        path = f"/v1/sessions/{message.session.hex()}"
        assert (await bridge.control.delete(path)).status_code == 204
        with trio.fail_after(PATIENCE):
            assert await port.receive() == End(message.session, EndReason.REVOKED)
        answer = await bridge.control.delete(path)
        conforms(await described(bridge), "DELETE", "/v1/sessions/{session}", answer)
        assert answer.status_code == 404


async def test_when_a_router_was_last_seen(data_dir) -> None:
    async with running(data_dir) as bridge:
        north, south = await bridge.enrol("North"), await bridge.enrol("South")
        began = int(time.time())
        async with connected(bridge, north):
            rows = {row["name"]: row for row in await bridge.get("/v1/routers")}
            assert rows["North"]["last_seen"] >= began
            assert rows["South"]["last_seen"] is None
            assert south.identity.fingerprint == rows["South"]["fingerprint"]
            bridge.stopping.set()
            with trio.fail_after(PATIENCE):
                await bridge.stopped.wait()
    async with running(data_dir) as bridge:
        rows = {row["name"]: row for row in await bridge.get("/v1/routers")}
        assert began <= rows["North"]["last_seen"] <= time.time()
        assert rows["South"]["last_seen"] is None
        assert (rows["North"]["connected"], rows["North"]["stored"]) == (False, 0)


async def test_revoked_router_is_listed_as_such(bridge: Bridge) -> None:
    router: Router = await bridge.enrol()
    path = f"/v1/routers/{router.identity.fingerprint}/revoke"
    for _ in range(2):
        assert (await bridge.control.post(path)).status_code == 204
    [row] = await bridge.get("/v1/routers")
    assert row["revoked"]
    assert (await bridge.get("/v1/status"))["routers"] == 0


async def test_the_audit_names_the_hospital_that_is_shut_out(bridge: Bridge) -> None:
    router: Router = await bridge.enrol("North")
    fingerprint = router.identity.fingerprint
    path = f"/v1/routers/{fingerprint}/revoke"
    answer = await bridge.control.post(path, json={"hospital": "South"})
    assert answer.status_code == 204
    expected = f"Revoked the Router of North, {fingerprint}"
    with trio.fail_after(PATIENCE):
        while expected not in (said := await words_of_alerts(bridge)):
            await trio.sleep(0.01)
    assert not any("South" in words for words in said)


async def words_of_alerts(bridge: Bridge) -> list[str]:
    """What the audit says of changes and refusals."""
    entries = (await bridge.get("/v1/audit?kind=alert"))["entries"]
    return [entry["words"] for entry in entries]
