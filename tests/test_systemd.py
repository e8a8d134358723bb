"""What systemd hears, at a socket as it listens on one."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from relay import systemd


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))

        def states() -> list[str]:
            found = []
            try:
                while True:
                    found.append(listening.recv(4096).decode())
            except BlockingIOError:
                return found

        yield states


def test_it_is_told_when_the_process_listens_and_when_it_stops(
    heard: Callable[[], list[str]],
) -> None:
    systemd.Readiness().started()
    systemd.tell(systemd.STOPPING)
    assert heard() == ["READY=1", "STOPPING=1"]


def test_an_abstract_socket_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"relay-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        systemd.tell(systemd.READY)
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_without_a_listener_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.tell(systemd.READY)


@pytest.mark.parametrize(
    ("microseconds", "process", "interval"),
    [
        ("30000000", None, 30.0),
        ("30000000", "own", 30.0),
        ("30000000", "parent", 30.0),
        ("30000000", "0", None),
        ("0", None, None),
        ("much", None, None),
        ("", None, None),
    ],
)
def test_how_often_it_wants_to_hear(
    microseconds: str,
    process: str | None,
    interval: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if process is not None:
        numbers = {"own": str(os.getpid()), "parent": str(os.getppid())}
        monkeypatch.setenv("WATCHDOG_PID", numbers.get(process, process))
    assert systemd.watchdog_interval() == interval


async def test_a_loop_that_turns_says_so_twice_in_each_interval(
    heard: Callable[[], list[str]], autojump_clock: MockClock
) -> None:
    with trio.move_on_after(10.1):
        await systemd.keep_alive(10.0)
    assert heard() == ["WATCHDOG=1"] * 3
