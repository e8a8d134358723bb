import json

import pytest

from tests.cli.conftest import FINGERPRINT, PEER, FakeProcess

TOML = """
[[devices]]
ae_title = "PACS"
host = "10.0.0.2"

[[aliases]]
local = "PACS_S"
published = "SOUTH_PACS"

[[grants]]
peer = "South Hospital"
ae_title = "PACS"
services = ["store"]
"""
DOCUMENT = {
    "devices": [{"ae_title": "PACS", "host": "10.0.0.2"}],
    "aliases": [{"local": "PACS_S", "published": "SOUTH_PACS"}],
    "grants": [{"peer": FINGERPRINT, "ae_title": "PACS", "services": ["store"]}],
}


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_is_applied_and_its_changes_are_shown(router: FakeProcess, suffix: str) -> None:
    router.will("GET", "/v1/peers", [PEER])
    router.will("POST", "/v1/apply", {"changes": ["device PACS added"], "refusals": []})
    file = router.folder / f"hospital{suffix}"
    file.write_text(TOML if suffix == ".toml" else json.dumps(DOCUMENT))
    result = router.relay("apply", str(file))
    assert (result.exit_code, result.stdout) == (0, "device PACS added\n")
    assert router.asked[-1][2] == DOCUMENT
    assert json.loads(router.relay("apply", str(file), "--json").stdout) == ["device PACS added"]


def test_nothing_to_change_is_said(router: FakeProcess) -> None:
    router.will("POST", "/v1/apply", {"changes": [], "refusals": []})
    file = router.folder / "empty.toml"
    file.touch()
    assert router.relay("apply", str(file), "--prune").stdout == "nothing to change\n"
    assert router.asked[-1][2] == {"prune": True}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.toml", "[", "a.toml: "),
        ("a.json", "[]", "expected lists named devices and grants"),
        ("a.json", "{", "Expecting"),
        ("a.toml", "grants = 1", "expected lists"),
        ("a.toml", "#" * (1024 * 1024 + 1), "larger than"),
    ],
)
def test_a_file_that_is_none_was_given_wrongly(
    router: FakeProcess, name: str, content: str, words: str
) -> None:
    (router.folder / name).write_text(content)
    result = router.relay("apply", str(router.folder / name))
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_file_that_is_not_there_is_said(router: FakeProcess) -> None:
    assert "No such file" in router.relay("apply", "/none.toml").stderr


def test_errors_name_the_file_and_the_entry(router: FakeProcess) -> None:
    file = router.folder / "lab.toml"
    file.write_text('[[devices]]\naet = "PACS"\n')
    router.will("POST", "/v1/apply", {"error": "devices[0]: unknown field 'aet'"}, status=400)
    result = router.relay("apply", str(file))
    assert result.exit_code == 1
    assert f"{file}: devices[0]: unknown field 'aet'" in result.stderr
    router.will("POST", "/v1/apply", {"changes": [], "refusals": ["PACS is taken"]})
    result = router.relay("apply", str(file))
    assert (result.exit_code, result.stderr) == (1, "relay: not published: PACS is taken\n")
