"""`relay person`: what is asked of the process, and what people are told."""

import json

import pytest

from tests.cli.conftest import FakeProcess

ADA = {
    "name": "Ada Lovelace",
    "role": "administrator",
    "created": 1_780_300_000,
    "has_password": True,
    "signed_in": 1,
}
BOB = {**ADA, "name": "Bob", "role": "viewer", "has_password": False, "signed_in": 0}
LINK = {
    "name": "Bob",
    "code": "c",
    "link": "https://relay.example.org/first?code=c",
    "expires": 1_780_300_000,
}
TOKEN = {"name": "prometheus", "role": "viewer", "created": 1_780_300_000, "used": None}


def test_a_person_is_added_by_link(router: FakeProcess) -> None:
    router.will("POST", "/v1/people", {**BOB, **LINK}, status=201)
    result = router.relay("person", "add", "Bob", "--role", "viewer", "--link")
    assert result.exit_code == 0, result.output
    assert router.asked[-1][2] == {"name": "Bob", "role": "viewer", "link": True}
    assert "Bob may sign in, as viewer" in result.stdout
    assert "it works once" in result.stdout
    assert result.stdout.splitlines()[-1].strip() == LINK["link"]


def test_or_with_a_password_that_no_command_line_shows(router: FakeProcess) -> None:
    router.will("POST", "/v1/people", ADA, status=201)
    result = router.relay("person", "add", "Ada Lovelace", "--role", "administrator", typed="w o\n")
    assert result.exit_code == 0, result.output
    assert router.asked[-1][2] == {
        "name": "Ada Lovelace",
        "role": "administrator",
        "password": "w o",
    }
    assert "w o" not in result.output
    router.will("POST", "/v1/people/Ada%20Lovelace/password", {})
    result = router.relay("person", "password", "Ada Lovelace", typed="another\n")
    assert router.asked[-1][2] == {"password": "another"}
    assert "another password, and is signed out" in result.stdout


def test_a_role_is_needed_and_is_one_of_three(router: FakeProcess) -> None:
    for arguments in (("add", "Bob"), ("add", "Bob", "--role", "root"), ("role", "Bob", "root")):
        result = router.relay("person", *arguments)
        assert result.exit_code == 2
        assert "role" in result.stderr.lower()
    assert router.asked == []


def test_people_are_listed(router: FakeProcess) -> None:
    router.will("GET", "/v1/people", [ADA, BOB])
    shown = router.relay("person", "list").stdout
    for words in ("Ada Lovelace", "administrator", "signed in", "Bob", "no password yet", "2026-"):
        assert words in shown
    assert json.loads(router.relay("person", "list", "--json").stdout) == [ADA, BOB]
    router.will("GET", "/v1/people", [])
    assert "relay person link" in router.relay("person", "list").stdout


def test_role_and_removal(router: FakeProcess) -> None:
    router.will("POST", "/v1/people/Bob/role", {})
    result = router.relay("person", "role", "Bob", "operator")
    assert (router.asked[-1][2], result.stdout) == ({"role": "operator"}, "Bob is operator now\n")
    router.will("DELETE", "/v1/people/Bob", {})
    assert router.relay("person", "remove", "Bob").stdout == "Bob may no longer sign in\n"
    router.will("DELETE", "/v1/people/Ada", {"error": "the last administrator"}, status=409)
    result = router.relay("person", "remove", "Ada")
    assert (result.exit_code, result.stderr) == (1, "relay: the last administrator\n")


@pytest.mark.parametrize(
    ("arguments", "path"), [((), "/v1/first-link"), (("Bob",), "/v1/people/Bob/link")]
)
def test_a_way_in(router: FakeProcess, arguments: tuple[str, ...], path: str) -> None:
    router.will("POST", path, LINK, status=201)
    result = router.relay("person", "link", *arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].strip() == LINK["link"]


def test_api_tokens(router: FakeProcess) -> None:
    made = {"name": "prometheus", "role": "viewer", "token": "relay_api_AAAA"}
    router.will("POST", "/v1/api-tokens", made, status=201)
    result = router.relay("person", "token", "add", "prometheus", "--role", "viewer")
    assert router.asked[-1][2] == {"name": "prometheus", "role": "viewer"}
    assert result.stdout.splitlines()[-1].strip() == "relay_api_AAAA"
    shown = router.relay("person", "token", "add", "prometheus", "--role", "viewer", "--json")
    assert json.loads(shown.stdout) == made
    router.will("GET", "/v1/api-tokens", [TOKEN])
    listed = router.relay("person", "token", "list").stdout
    assert "prometheus" in listed
    assert "never" in listed
    assert json.loads(router.relay("person", "token", "list", "--json").stdout) == [TOKEN]
    router.will("GET", "/v1/api-tokens", [])
    assert "relay person token add" in router.relay("person", "token", "list").stdout
    router.will("DELETE", "/v1/api-tokens/prometheus", {})
    result = router.relay("person", "token", "remove", "prometheus")
    assert result.stdout == "prometheus is no longer an API token\n"


def test_it_is_for_a_bridge_as_well(bridge: FakeProcess) -> None:
    bridge.will("GET", "/v1/people", [ADA])
    assert "Ada Lovelace" in bridge.relay("person", "list").stdout
