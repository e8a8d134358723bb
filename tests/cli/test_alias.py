"""`relay alias`: what is asked of the Router, and what people are told."""

import json

from tests.cli.conftest import FINGERPRINT, FakeProcess

ALIAS = {"local": "PACS_S", "published": "PACS", "peer": FINGERPRINT, "name": "South Hospital"}
NOBODYS = ALIAS | {"peer": None, "name": ""}


def test_an_alias_is_added(router: FakeProcess) -> None:
    router.will("POST", "/v1/aliases", ALIAS)
    result = router.relay("alias", "add", "PACS_S", "PACS")
    assert (result.exit_code, result.stdout) == (0, "PACS_S is here for PACS of South Hospital\n")
    assert router.asked[-1][2] == {"local": "PACS_S", "published": "PACS"}


def test_what_nobody_publishes_is_said(router: FakeProcess) -> None:
    router.will("POST", "/v1/aliases", NOBODYS)
    shown = router.relay("alias", "add", "PACS_S", "PACS").stdout
    assert "PACS, which nobody publishes now: see `relay peer list`" in shown


def test_a_refusal_is_one_line(router: FakeProcess) -> None:
    router.will("POST", "/v1/aliases", {"error": "'PACS' is the device PACS"}, status=409)
    result = router.relay("alias", "add", "PACS", "PACS_S")
    assert (result.exit_code, result.stderr) == (1, "relay: 'PACS' is the device PACS\n")


def test_aliases_are_listed(router: FakeProcess) -> None:
    router.will("GET", "/v1/aliases", [ALIAS, NOBODYS])
    shown = router.relay("alias", "list").stdout
    for words in ("PACS_S", "South Hospital", "nobody now"):
        assert words in shown
    assert json.loads(router.relay("alias", "list", "--json").stdout) == [ALIAS, NOBODYS]
    router.will("GET", "/v1/aliases", [])
    assert "relay alias add LOCAL PUBLISHED" in router.relay("alias", "list").stdout


def test_an_alias_is_removed(router: FakeProcess) -> None:
    router.will("DELETE", "/v1/aliases/PACS%2FS", ALIAS | {"local": "PACS/S"})
    result = router.relay("alias", "remove", "PACS/S")
    assert result.stdout == "PACS/S is no longer here for PACS of South Hospital\n"
