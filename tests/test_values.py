from pathlib import Path

import pytest

from relay.bandwidth import UNLIMITED, parse
from relay.values import (
    ADDRESSES,
    ADDRESSES_OR_NONE,
    AE_TITLE,
    BANDWIDTH,
    HOSTS,
    PAGES,
    PROXY,
    WEBHOOK,
    Address,
    Expectation,
    Kind,
    Secret,
    reason,
    size,
)

FOLDER = Path("/etc/relay")


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (size(0), 5, 5),
        (size(0), "5 B", 5),
        (size(0), "64KiB", 65536),
        (size(0), "3 GiB", 3 * 2**30),
        (AE_TITLE, "  PACS 1 ", "PACS 1"),
        (AE_TITLE, "A/B[C]~", "A/B[C]~"),
        (ADDRESSES, "localhost:104", (Address("localhost", 104),)),
        (ADDRESSES_OR_NONE, [], ()),
        (ADDRESSES_OR_NONE, "localhost:2762", (Address("localhost", 2762),)),
        (HOSTS, [], ()),
        (HOSTS, ["a.example", "10.0.0.1", "[fd00::1]"], ("a.example", "10.0.0.1", "fd00::1")),
        (PAGES, [], ()),
        (
            PAGES,
            ["http://localhost:3000", "https://[::1]"],
            ("http://localhost:3000", "https://[::1]"),
        ),
        (BANDWIDTH, [], UNLIMITED),
        (BANDWIDTH, ["sat 8 Mbit/s", "unlimited"], parse(["sat 8 Mbit/s", "unlimited"])),
        (WEBHOOK, "https://h/x?y=z", Secret("https://h/x?y=z")),
        (WEBHOOK, "http://[::1]:8080", Secret("http://[::1]:8080")),
        (ADDRESSES, ["[::]:0", "0.0.0.0:0"], (Address("::", 0), Address("0.0.0.0", 0))),
    ],
)
def test_what_is_read(kind: Kind, given: object, expected: object) -> None:
    assert kind.read(given, FOLDER) == expected


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (size(0), "5"),
        (size(0), "-5 B"),
        (size(0), 2**63),
        (size(0), True),
        (size(0), "9999999999999999 TiB"),
        (AE_TITLE, "A\nB"),
        (AE_TITLE, "AÉ"),
        (AE_TITLE, b"A"),
        (ADDRESSES, "::1:104"),
        (ADDRESSES, "a b:104"),
        (ADDRESSES, ":104"),
        (ADDRESSES, []),
        (ADDRESSES_OR_NONE, ["a", "b:104"]),
        (PAGES, "https://a.example"),
        (PAGES, ["https://A.example"]),
        (PAGES, ["https://a.example/"]),
        (PAGES, ["https://a.example:443"]),
        (PAGES, ["https://a.example:99999"]),
        (PAGES, ["https://u@a.example"]),
        (PAGES, ["ftp://a.example"]),
        (PAGES, ["*"]),
        (PAGES, ["null"]),
        (PAGES, [5]),
        (BANDWIDTH, "8 Mbit/s"),
        (BANDWIDTH, [8]),
        (BANDWIDTH, None),
        (WEBHOOK, "ftp://h/x"),
        (WEBHOOK, "https://"),
        (WEBHOOK, "https://h:0/"),
        (WEBHOOK, "https://h:99999/"),
        (WEBHOOK, "https://h/a b"),
        (WEBHOOK, "https://h/\n"),
        (WEBHOOK, "h/x"),
        (WEBHOOK, 5),
    ],
)
def test_what_is_refused(kind: Kind, given: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the reader's caller has the words)
        kind.read(given, FOLDER)


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "hunter2"


def test_a_secret_knows_where_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PROXY", "http://proxy.example.org")
    (tmp_path / "proxy").write_text("http://u:hunter2@proxy.example.org\n")
    for given, source in (
        ("env:SOME_PROXY", "env:SOME_PROXY"),
        ("file:proxy", f"file:{tmp_path}/proxy"),
        ("http://proxy.example.org", ""),
    ):
        assert PROXY.read(given, tmp_path).source == source


def test_a_rule_of_bandwidth_that_is_none_is_named() -> None:
    with pytest.raises(Expectation, match="'8 Mb': expected a rule such as"):
        BANDWIDTH.read(["8 Mbit/s", "8 Mb"], FOLDER)


def test_a_webhook_with_a_password_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("https://u:hunter2@h/x", "https://token@h/x"):
        with pytest.raises(Expectation, match="expected env:NAME or file:PATH"):
            WEBHOOK.read(url, FOLDER)
        monkeypatch.setenv("SOME_HOOK", url)
        assert WEBHOOK.read("env:SOME_HOOK", FOLDER).reveal() == url
    monkeypatch.setenv("SOME_HOOK", "ftp://h")
    with pytest.raises(ValueError):  # noqa: PT011
        WEBHOOK.read("env:SOME_HOOK", FOLDER)


def test_reasons_are_the_systems_words() -> None:
    assert reason(FileNotFoundError(2, "No such file or directory")) == "No such file or directory"
    assert reason(ValueError("anything")) == "ValueError"


def test_what_this_machine_alone_reaches() -> None:
    assert all(Address(host, 80).is_loopback for host in ("127.0.0.1", "::1", "localhost"))
    assert not any(Address(host, 80).is_loopback for host in ("0.0.0.0", "::", "h.example"))
