"""Adding a store: a form of the kind's own settings, a check first, and no secret told again."""

import json

import pytest

from relay.people.roles import Role
from relay.providers import Finding, registry
from relay.providers.s3form import S3_SETTINGS
from relay.providers.settings import Form, Setting, takes
from tests.bridge.stores import FakeKind

from .conftest import EVIL, Bridge

SECRET = "hunter2hunter2"


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> FakeKind:
    """A kind that says which settings it takes."""
    kind = FakeKind()
    said = takes(
        Setting("called", "Which tape.", required=True),
        Setting("secret", "What opens it.", Form.SECRET),
        Setting("colour", "Of the tape.", Form.CHOICE, "red", choices=("red", "blue")),
        Setting("slow", "Whether it may be.", Form.FLAG, "true", seldom=True),
    )
    monkeypatch.setattr(
        registry, "BUILT_IN", {**registry.BUILT_IN, "tape": said(lambda *a: kind(*a))}
    )
    return kind


async def settings_of(bridge: Bridge, name: str) -> dict[str, str]:
    text = await bridge.rooms.database.run(
        lambda db: db.execute("SELECT settings FROM provider WHERE name = ?", (name,)).get
    )
    return json.loads(text)


async def test_kinds_are_offered_with_what_they_are(bridge: Bridge) -> None:
    page = await (await bridge.browser()).get("/providers/add")
    assert "/providers/add/s3" in page.links
    assert "/providers/add/fake" in page.links
    assert "/providers/add/disk" not in page.links  # there is one
    assert "Amazon S3, and what speaks its language" in page.text


async def test_a_kind_that_does_not_load_says_so(bridge: Bridge, monkeypatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    broken = EntryPoints([EntryPoint("reel", "no_such_module:open", registry.ENTRY_POINT_GROUP)])
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: broken.select(**wanted))
    browser = await bridge.browser()
    page = await browser.get("/providers/add")
    assert "provider reel does not load" in page.text
    assert "/providers/add/reel" not in page.links
    await browser.get("/providers/add/reel", 404)
    await browser.get("/providers/add/floppy", 404)


async def test_s3_has_a_field_for_each_setting(bridge: Bridge) -> None:
    page = await (await bridge.browser()).get("/providers/add/s3")
    for setting in S3_SETTINGS:
        assert f'name="set-{setting.name}"' in page.html
        kind = 'type="password"' if setting.form is Form.SECRET else ""
        assert kind in page.html.partition(f'name="set-{setting.name}"')[2].split(">")[0]
        assert " ".join(setting.words.split()) in page.text
    assert "CA file" in page.text


async def test_one_that_passes_is_set_up(bridge: Bridge, tape: FakeKind, logs) -> None:
    browser = await bridge.browser()
    fields = {"set-called": "x", "set-secret": SECRET, "set-colour": "", "set-slow": "false"}
    page = await browser.post("/providers/add/tape", name="cloud", **fields)
    assert "cloud passed its check and is set up." in page.text
    assert page.headings == ["Providers"]
    assert await settings_of(bridge, "cloud") == {"called": "x", "secret": SECRET, "slow": "false"}
    for path in ("/", "/providers", "/audit"):
        assert SECRET not in (await browser.get(path)).html
    assert SECRET not in str(logs)


async def test_one_that_does_not_is_not_kept(
    bridge: Bridge, tape: FakeKind, monkeypatch, logs
) -> None:
    found = [Finding("versioning is off", False, "suspend it"), Finding("PUT", True)]

    async def check(self) -> list[Finding]:
        return found

    monkeypatch.setattr("tests.bridge.stores.FakeProvider.check", check)
    browser = await bridge.browser()
    fields = {"set-called": "x", "set-secret": SECRET, "set-colour": "blue", "set-slow": "false"}
    page = await browser.post("/providers/add/tape", 409, name="cloud", **fields)
    assert "Fails versioning is off" in page.text
    assert "suspend it" in page.text
    assert "nothing is kept" in page.alert
    assert SECRET not in page.html
    assert "Type it again" in page.text
    assert page.fields["name"] == "cloud"
    assert (page.fields["set-called"], page.fields["set-secret"]) == ("x", "")
    assert (page.fields["set-colour"], page.fields["set-slow"]) == ("blue", "false")
    assert '<details class="more" open>' in page.html  # what was typed is seen
    assert not tape.opened["x"].open
    assert "cloud" not in (await browser.get("/providers")).text
    assert SECRET not in str(logs)


@pytest.mark.parametrize(
    ("name", "fields", "status", "words"),
    [
        ("disk", {"set-called": "x"}, 409, "there is an object store disk"),
        (EVIL, {"set-called": EVIL}, 400, "name: expected 1 to 32"),
        ("cloud", {"set-secret": "bad"}, 400, "secret: does not fit"),
        ("cloud", {"set-secret": "file:/etc/shadow"}, 403, "on the Bridge's own machine alone"),
        ("cloud", {"set-called": " env:HOME"}, 403, "on the Bridge's own machine alone"),
    ],
)
async def test_what_is_refused_stands_in_the_form_still(
    bridge: Bridge, tape: FakeKind, name: str, fields: dict[str, str], status: int, words: str
) -> None:
    page = await (await bridge.browser()).post(
        "/providers/add/tape", status, name=name, **{"set-called": "y", **fields}
    )
    assert words in page.alert
    assert page.fields["name"].split() == name.split()
    assert page.fields["set-called"].split() == {"set-called": "y", **fields}["set-called"].split()
    assert page.fields["set-secret"] == ""
    assert f'value="{fields.get("set-secret", EVIL)}"' not in page.html


async def test_a_kind_without_a_form_takes_lines(bridge: Bridge) -> None:
    browser = await bridge.browser()
    page = await browser.get("/providers/add/fake")
    assert "One KEY=VALUE a line" in page.text
    lines = f"called=x\n\n secret = {SECRET} \ncolour=a=b"
    page = await browser.post("/providers/add/fake", name="cloud", lines=lines)
    assert "cloud passed its check" in page.text
    assert await settings_of(bridge, "cloud") == {"called": "x", "secret": SECRET, "colour": "a=b"}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (f"called=x\n{SECRET}", "line 2 of the settings: expected KEY=VALUE"),
        (f"={SECRET}", "line 1 of the settings: expected KEY=VALUE"),
        (f"called=x\ncalled={SECRET}", "line 2 of the settings: called came before"),
        (f"secret=bad\ncalled={SECRET}", "secret: does not fit"),
    ],
)
async def test_lines_that_are_refused_are_shown_without_their_values(
    bridge: Bridge, lines: str, words: str
) -> None:
    browser = await bridge.browser()
    page = await browser.post("/providers/add/fake", 400, name="cloud", lines=lines)
    assert words in page.alert
    assert SECRET not in page.html
    assert all(line.endswith("=") for line in page.fields["lines"].split())


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
async def test_only_administrators_add(bridge: Bridge, tape: FakeKind, role: Role) -> None:
    browser = await bridge.browser(role)
    for path in ("/providers/add", "/providers/add/tape"):
        assert "needs the role administrator" in (await browser.get(path, 403)).text
    fields = {"set-called": "x"}
    page = await browser.post("/providers/add/tape", 403, name="cloud", **fields)
    assert "needs the role administrator" in page.alert
    assert tape.opened == {}
