"""Object stores by REST: kinds with their settings, and a try of what is not yet set up."""

import json

import pytest

from relay.providers import Finding, registry
from relay.providers.settings import Form, Setting, takes

from .conftest import Bridge
from .schemas import conforms
from .stores import FakeKind


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> FakeKind:
    kind = FakeKind()
    monkeypatch.setattr(registry, "BUILT_IN", {**registry.BUILT_IN, "fake": kind})
    return kind


async def test_kinds_say_their_settings(bridge: Bridge, monkeypatch) -> None:
    @takes(Setting("shelf", "Which shelf.", Form.TEXT, required=True))
    def shelf(host, settings):
        raise AssertionError("nobody opens it")

    bare = FakeKind()
    monkeypatch.setattr(registry, "BUILT_IN", {"fake": bare, "shelf": shelf})
    rows = {row["kind"]: row for row in await bridge.get("/v1/providers/kinds")}
    assert rows["shelf"]["settings"] == [
        {
            "name": "shelf",
            "words": "Which shelf.",
            "form": "text",
            "default": None,
            "required": True,
            "choices": [],
            "seldom": False,
            "label": "Shelf",
        }
    ]
    assert rows["fake"]["settings"] is None
    assert rows["fake"]["available"]


async def test_a_kind_whose_package_does_not_load_is_named(bridge: Bridge, monkeypatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    broken = EntryPoints([EntryPoint("tape", "no_such_module:open", registry.ENTRY_POINT_GROUP)])
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: broken.select(**wanted))
    rows = {row["kind"]: row for row in await bridge.get("/v1/providers/kinds")}
    assert not rows["tape"]["available"]
    assert "tape does not load" in rows["tape"]["words"]


async def test_a_try_keeps_nothing(bridge: Bridge, kind: FakeKind, logs) -> None:
    store = {"name": "cloud", "kind": "fake", "settings": {"called": "x", "token": "hunter2"}}
    answer = await bridge.control.post("/v1/providers/try", json=store)
    conforms(await bridge.get("/v1/openapi.json"), "POST", "/v1/providers/try", answer)
    assert answer.json() == {"findings": []}
    assert not kind.opened["x"].open
    assert [row["name"] for row in await bridge.get("/v1/providers")] == ["disk"]
    assert "hunter2" not in json.dumps(str(logs)) + answer.text


async def test_a_try_tells_what_it_finds(bridge: Bridge, kind: FakeKind, monkeypatch) -> None:
    async def check(self) -> list[Finding]:
        return [Finding("PUT of a new object", False, "the store answered 403")]

    monkeypatch.setattr("tests.bridge.stores.FakeProvider.check", check)
    store = {"name": "cloud", "kind": "fake", "settings": {"called": "x"}}
    answer = await bridge.control.post("/v1/providers/try", json=store)
    assert answer.json()["findings"] == [
        {"what": "PUT of a new object", "ok": False, "advice": "the store answered 403"}
    ]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": "a", "kind": "fake", "settings": {"secret": "bad"}}, 400, "does not fit"),
        ({"name": "A b", "kind": "fake"}, 400, "name: expected"),
        ({"name": "disk", "kind": "fake"}, 409, "there is an object store disk"),
        ({"name": "b", "kind": "disk"}, 409, "only one"),
        ({"name": "a", "kind": "floppy"}, 400, "no provider of kind"),
        ({"name": "a", "kind": "fake", "keep": "it"}, 400, "keep: unknown"),
    ],
)
async def test_a_try_is_refused_as_adding_is(
    bridge: Bridge, kind: FakeKind, body, status: int, words: str
) -> None:
    document = await bridge.get("/v1/openapi.json")
    for path in ("/v1/providers/try", "/v1/providers"):
        answer = await bridge.control.post(path, json=body)
        conforms(document, "POST", path, answer)
        assert (answer.status_code, words in answer.json()["error"]) == (status, True)
    assert [row["name"] for row in await bridge.get("/v1/providers")] == ["disk"]


async def test_what_a_strangers_code_raises_is_not_shown(bridge: Bridge, kind: FakeKind) -> None:
    kind.refuses = RuntimeError("a secret")
    answer = await bridge.control.post("/v1/providers/try", json={"name": "a", "kind": "fake"})
    assert (answer.status_code, "secret" in answer.text) == (400, False)
    assert "RuntimeError" in answer.text


async def test_a_reference_is_taken_on_the_bridges_own_machine(
    bridge: Bridge, kind: FakeKind, monkeypatch
) -> None:
    monkeypatch.setenv("RELAY_TEST_KEY", "hunter2")
    store = {"name": "cloud", "kind": "fake", "settings": {"called": "env:RELAY_TEST_KEY"}}
    assert (await bridge.control.post("/v1/providers", json=store)).status_code == 201
