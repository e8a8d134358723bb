"""The tables below [router]: what they say where nothing is said, and that the Router knows it."""

from pathlib import Path

import pytest

from relay.config import Mode, RouterConfig, keys, keys_of, tables
from relay.config_file import load
from relay.config_tables import (
    Answers,
    BridgePagesConfig,
    DicomwebConfig,
    FederationConfig,
    OnIncomplete,
    RouterPagesConfig,
)
from relay.values import Address


def test_they_are_read_with_their_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(
        "[router]\n[router.federation]\n"
        'ae_title = ""\nanswers = "streamed"\non_incomplete = "success"\nqueries = 2\n'
        'store_to = "NORTH_PACS"\n'
    )
    loaded = load(path)
    assert isinstance(loaded, RouterConfig)
    said = loaded.federation
    assert (said.ae_title, said.answers) == ("", Answers.STREAMED)
    assert (said.on_incomplete, said.queries) == (OnIncomplete.SUCCESS, 2)
    assert (said.site_wait, said.store_to) == (30.0, "NORTH_PACS")


def test_dicomweb_is_open_to_this_machine_alone(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(
        "[router.dicomweb]\n"
        'listen = ["127.0.0.1:8080", "[::1]:8080", "localhost:8081"]\nopen = true\n'
        'origins = ["http://localhost:3000", "https://viewer.example.org"]\n'
    )
    loaded = load(path)
    assert isinstance(loaded, RouterConfig)
    said = loaded.dicomweb
    assert said.listen[1] == Address("::1", 8080)
    assert said.open
    assert said.origins == ("http://localhost:3000", "https://viewer.example.org")


def test_a_table_below_is_no_key() -> None:
    assert tables(Mode.ROUTER)["federation"] is FederationConfig
    assert tables(Mode.ROUTER)["dicomweb"] is DicomwebConfig
    assert tables(Mode.ROUTER)["pages"] is RouterPagesConfig
    assert tables(Mode.BRIDGE) == {"pages": BridgePagesConfig}
    assert "federation" not in keys(Mode.ROUTER)
    assert next(iter(keys_of(FederationConfig))) == "ae_title"


@pytest.mark.parametrize("mode", Mode)
def test_every_key_has_a_kind(mode: Mode) -> None:
    for schema in tables(mode).values():
        assert all(key.kind.expected for key in keys_of(schema).values())
