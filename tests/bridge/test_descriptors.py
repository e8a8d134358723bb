"""The limit of open files: raised as far as it can be, and said where that is not enough."""

import resource
from collections.abc import MutableMapping
from typing import Any

import pytest

from relay.bridge.descriptors import FILES_PER_CONNECTION, OTHER_FILES, connections

INFINITY = resource.RLIM_INFINITY


class Limits:
    """A process's limits, without touching our own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> None:
        self.now = (soft, hard)
        self.refuses = False
        monkeypatch.setattr(resource, "getrlimit", lambda which: self.now)
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        if self.refuses:
            raise ValueError("current limit exceeds maximum limit")
        assert limits[1] == self.now[1]
        self.now = limits


FILES = FILES_PER_CONNECTION * 4096 + OTHER_FILES


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 524_288, FILES),
        (1024, INFINITY, FILES),
        (1024, FILES, FILES),
        (FILES, FILES, FILES),
        (FILES + 1, INFINITY, FILES + 1),
        (INFINITY, INFINITY, INFINITY),
    ],
)
def test_it_is_raised_to_what_is_needed(
    monkeypatch: pytest.MonkeyPatch,
    logs: list[MutableMapping[str, Any]],
    soft: int,
    hard: int,
    raised: int,
) -> None:
    limits = Limits(monkeypatch, soft, hard)
    assert connections(4096) == 4096
    assert limits.now == (raised, hard)
    assert logs == []


def test_a_hard_limit_that_is_too_low_is_said_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    limits = Limits(monkeypatch, 1024, 4096)
    assert connections(4096) == (4096 - OTHER_FILES) // FILES_PER_CONNECTION
    assert limits.now == (4096, 4096)
    (line,) = logs
    assert line["log_level"] == "warning"
    assert line["open_files"] == 4096
    assert f"LimitNOFILE={FILES}" in line["remedy"]


def test_hardly_any_files(monkeypatch: pytest.MonkeyPatch) -> None:
    Limits(monkeypatch, 10, 10)
    assert connections(4096) == 1


def test_a_limit_that_the_system_does_not_raise(
    monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    limits = Limits(monkeypatch, 1024, INFINITY)
    limits.refuses = True
    assert connections(4096) == (1024 - OTHER_FILES) // FILES_PER_CONNECTION
    assert [line["log_level"] for line in logs] == ["info", "warning"]
