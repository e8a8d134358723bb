"""`relay token`: what is asked of the Router, and what people are told."""

import json

from tests.cli.conftest import FakeProcess

VIEWER = {"name": "viewer", "device": "WS", "created": 1_780_300_000}
SCRIPT = {"name": "night script", "device": None, "created": 1_780_300_000}
SECRET = "relay_AAAAAAAAAAAAAAAAAAAAAA"


def test_a_token_is_made_and_shown_once(router: FakeProcess) -> None:
    made = {"name": "viewer", "device": "WS", "token": SECRET}
    router.will("POST", "/v1/tokens", made)
    result = router.relay("token", "add", "viewer", "--device", "WS")
    assert result.exit_code == 0
    assert router.asked[-1][2] == {"name": "viewer", "device": "WS"}
    assert "the token viewer, which calls as WS; it is not shown again:" in result.stdout
    assert result.stdout.splitlines()[-1].strip() == SECRET
    shown = router.relay("token", "add", "viewer", "--json").stdout
    assert json.loads(shown) == made
    assert router.asked[-1][2] == {"name": "viewer"}


def test_one_without_a_device_calls_as_the_router(router: FakeProcess) -> None:
    router.will("POST", "/v1/tokens", {"name": "night script", "device": None, "token": SECRET})
    result = router.relay("token", "add", "night script")
    assert "calls as the Router;" in result.stdout


def test_tokens_are_listed(router: FakeProcess) -> None:
    router.will("GET", "/v1/tokens", [VIEWER, SCRIPT])
    shown = router.relay("token", "list").stdout
    for words in ("viewer", "WS", "night script", "the Router", "2026-"):
        assert words in shown
    assert json.loads(router.relay("token", "list", "--json").stdout) == [VIEWER, SCRIPT]
    router.will("GET", "/v1/tokens", [])
    assert "relay token add NAME" in router.relay("token", "list").stdout


def test_a_token_is_removed(router: FakeProcess) -> None:
    router.will("DELETE", "/v1/tokens/night%20script", {})
    result = router.relay("token", "remove", "night script")
    assert result.stdout == "night script is no longer a token\n"
    router.will("DELETE", "/v1/tokens/viewer", {"error": "no token 'viewer'"}, status=404)
    result = router.relay("token", "remove", "viewer")
    assert (result.exit_code, result.stderr) == (1, "relay: no token 'viewer'\n")
