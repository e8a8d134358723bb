import json
from typing import Any

from relay.cli.output import local_time
from tests.cli.conftest import FINGERPRINT, FakeProcess

SOUTH: dict[str, Any] = {
    "ae_title": "SOUTH_PACS",
    "local": "SOUTH_PACS",
    "peer": FINGERPRINT,
    "name": "South Hospital",
    "hospital": "South Hospital",
    "own": False,
    "signed": True,
    "connected": True,
    "claimed_by": None,
    "services": ["echo", "query", "retrieve"],
    "granted": ["query", "retrieve"],
    "federation": True,
    "state": "reachable",
    "last_seen": 1_780_300_000.0,
    "last_error": None,
    "last_error_at": None,
    "transfer_syntaxes": ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"],
}
NEVER: dict[str, Any] = {
    "state": "unknown",
    "last_seen": None,
    "transfer_syntaxes": [],
    "federation": False,
}
OWN = SOUTH | NEVER | {"ae_title": "A_PACS", "local": "PACS", "own": True, "granted": []}
OTHER = SOUTH | NEVER | {"ae_title": "CT", "local": None, "granted": []}


def test_what_may_be_used_is_listed_with_how_it_fares(router: FakeProcess) -> None:
    away = {"state": "away", "last_error": "no association with it within 30 s"}
    mr = SOUTH | away | {"ae_title": "MR", "local": None, "last_error_at": 1_780_300_000.0}
    own = OWN | {"hospital": "North", "federation": True}
    router.will("GET", "/v1/directory", [SOUTH, mr, own, OTHER])
    router.will("GET", "/v1/status", {"connected": True})
    result = router.relay("directory")
    assert result.exit_code == 0, result.output
    head, south, shown_mr, shown_own, more = result.stdout.splitlines()
    assert head.startswith("AE title")
    at = local_time(1_780_300_000.0)
    cells = ["SOUTH_PACS", "South Hospital", "yes", "reachable", "query, retrieve"]
    for words in (*cells, "echo, query, retrieve", at, " 2"):
        assert words in south
    assert f"no association with it within 30 s ({at})" in shown_mr
    assert "MR (no name here: `relay alias add`)" in shown_mr
    assert shown_own.split()[:4] == ["PACS", "North", "yes", "unknown"]
    assert more.startswith("1 more of other hospitals, of which nothing is granted")
    listed = json.loads(router.relay("directory", "--json").stdout)
    assert [row["ae_title"] for row in listed] == ["SOUTH_PACS", "MR", "A_PACS"]


def test_nothing_to_use_says_what_to_do(router: FakeProcess) -> None:
    router.will("GET", "/v1/directory", [OWN])
    router.will("GET", "/v1/status", {"connected": False})
    result = router.relay("directory")
    assert "relay grant ask AE_TITLE --services query,retrieve" in result.stdout
    assert "as last known" in result.stdout


def test_one_device_is_shown_with_its_transfer_syntaxes(router: FakeProcess) -> None:
    router.will("GET", "/v1/directory", [SOUTH, OTHER | {"ae_title": "PACS"}, OWN])
    shown = router.relay("directory", "SOUTH_PACS").stdout
    assert "takes            Implicit VR Little Endian, Explicit VR Little Endian\n" in shown
    # By its name here before the network's.
    shown = router.relay("directory", "PACS").stdout
    assert "in the network   A_PACS\n" in shown
    assert "takes            not known\n" in shown
    assert json.loads(router.relay("directory", "CT", "--json").stdout or "null") is None
    result = router.relay("directory", "CT")
    assert (result.exit_code, "no device 'CT'" in result.stderr) == (1, True)
