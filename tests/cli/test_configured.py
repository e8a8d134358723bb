"""What people are shown of relay.toml: every key, as they write it, and no secret."""

from pathlib import Path
from typing import Any

import pytest

from relay import config as schema
from relay.cli.configured import rows
from relay.config import Mode
from relay.config_file import load


def shown(tmp_path: Path, text: str, mode: Mode = Mode.ROUTER) -> dict[tuple[str, str], Any]:
    file = tmp_path / "relay.toml"
    file.write_text(text)
    return {(row["table"], row["key"]): row for row in rows(load(file, mode))}


def test_every_key_of_every_table_is_there(tmp_path: Path) -> None:
    found = shown(tmp_path, "[router]\n")
    expected = {("router", name) for name in schema.keys(Mode.ROUTER)}
    for below, table in schema.tables(Mode.ROUTER).items():
        expected |= {(f"router.{below}", name) for name in schema.keys_of(table)}
    assert found.keys() == expected
    assert not any(row["given"] for row in found.values())


@pytest.mark.parametrize(
    ("table", "line", "value"),
    [
        ("router", 'spool_space = "10 GiB"', "10 GiB"),
        ("router", "spool_space = 1073741825", "1073741825 bytes"),
        ("router", 'listen = ["127.0.0.1:104", "[::1]:104"]', "127.0.0.1:104, [::1]:104"),
        (
            "router",
            'bandwidth = ["mon-fri 20 Mbit/s", "unlimited"]',
            "mon-fri 20 Mbit/s; unlimited",
        ),
        ("router", 'trust = "contacts"', "contacts"),
        ("router", "warn_after = 90", "90"),
        ("router", "maximum_associations = 7", "7"),
        ("router.federation", "narrowing = false", "false"),
    ],
)
def test_a_value_is_shown_as_it_is_written(
    tmp_path: Path, table: str, line: str, value: str
) -> None:
    row = shown(
        tmp_path, f"[router]\n[{table}]\n{line}\n".replace("[router]\n[router]", "[router]")
    )
    found = row[table, line.partition(" ")[0]]
    assert (found["value"], found["given"], found["secret"]) == (value, True, False)


def test_secrets_are_not_told_and_where_they_are_is(tmp_path: Path) -> None:
    (tmp_path / "proxy").write_text("http://user:hunter2@proxy.example:3128\n")
    found = shown(
        tmp_path, '[router]\nproxy = "file:proxy"\nwebhook = "https://alerts.example/key-4711"\n'
    )
    proxy, webhook = found["router", "proxy"], found["router", "webhook"]
    assert proxy["value"] == f"file:{tmp_path / 'proxy'}"
    assert proxy["secret"]
    assert webhook["value"] == "set, and not shown"
    assert "hunter2" not in str(found)
    assert "key-4711" not in str(found)


def test_what_is_not_set_is_nothing_and_a_default_is_one(tmp_path: Path) -> None:
    found = shown(tmp_path, "[router]\n")
    assert found["router", "webhook"]["value"] is None
    assert found["router", "tls_listen"]["value"] is None
    assert found["router", "spool_space"] | {"words": ""} == {
        "table": "router",
        "key": "spool_space",
        "value": "50 GiB",
        "default": "50 GiB",
        "given": False,
        "secret": False,
        "words": "",
    }


def test_a_bridge_has_rows_too(tmp_path: Path) -> None:
    found = shown(
        tmp_path, '[bridge]\nurl = "https://b.example"\nbehind_proxy = true\n', Mode.BRIDGE
    )
    assert found["bridge", "url"]["value"] == "https://b.example"
