from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from relay.cli.context import (
    Command,
    Failure,
    Group,
    Invocation,
    configuration_options,
    errors_in_one_line,
)
from relay.config import BridgeConfig, Mode, RouterConfig
from relay.errors import ConfigurationError, RelayError


def command_that(do: Callable[[], None]) -> click.Command:
    return Command("it", callback=do)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RelayError("it is down"), 1, "relay: it is down"),
        (ConfigurationError("f", "router.x", "a name"), 2, "relay: f: router.x: a name"),
        (Failure("no", 1), 1, "relay: no"),
        (RelayError("forged\nline\x1b[2J"), 1, r"relay: forged\nline\x1b[2J"),
        (ExceptionGroup("", [ExceptionGroup("", [RelayError("inside")])]), 1, "relay: inside"),
        (RelayError(), 1, "relay: RelayError"),
    ],
)
def test_our_errors_are_one_line_and_a_status(
    run: Callable[..., Result], error: Exception, status: int, line: str
) -> None:
    def fail() -> None:
        raise error

    result = run(command_that(fail))
    assert (result.exit_code, result.stderr) == (status, line + "\n")


@pytest.mark.parametrize("error", [ZeroDivisionError(), ExceptionGroup("", [KeyError("x")])])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), errors_in_one_line():
        raise error


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "a.toml", "--mode", "router", "it"],
        ["it", "--config", "a.toml", "--mode", "router"],
        ["--config", "b.toml", "--mode", "bridge", "it", "--config", "a.toml", "--mode", "router"],
    ],
)
def test_the_options_stand_before_or_behind_the_command(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("RELAY_CONFIG", "environment.toml")
    seen: list[Invocation] = []
    group = Group("main", params=configuration_options("RELAY_CONFIG"))
    group.add_command(Command("it", callback=click.pass_obj(seen.append)))
    CliRunner().invoke(group, arguments, catch_exceptions=False)
    assert seen == [Invocation(Mode.ROUTER, Path("a.toml"))]


def test_the_environment_names_the_file_where_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RELAY_CONFIG", "environment.toml")
    seen: list[Invocation] = []
    group = Group("main", params=configuration_options("RELAY_CONFIG"))
    group.add_command(Command("it", callback=click.pass_obj(seen.append)))
    CliRunner().invoke(group, ["it"], catch_exceptions=False)
    assert seen == [Invocation(None, Path("environment.toml"))]


def test_a_file_with_both_tables_serves_the_commands_of_both(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text('[router]\n[bridge]\nurl="https://h"\nbehind_proxy=true\n')
    invocation = Invocation(None, path)
    assert isinstance(invocation.router(), RouterConfig)
    assert isinstance(invocation.bridge(), BridgeConfig)
    with pytest.raises(ConfigurationError, match="--mode"):
        invocation.load()
