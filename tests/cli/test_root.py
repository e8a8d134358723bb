import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import relay
from relay.cli.root import COMMANDS, main


def test_the_commands_of_the_design_are_there() -> None:
    assert set(COMMANDS) == {
        *(
            "init",
            "invite",
            "invitation",
            "enroll",
            "device",
            "alias",
            "destination",
            "peer",
            "directory",
            "grant",
            "token",
            "person",
            "provider",
            "router",
            "apply",
        ),
        *(
            "status",
            "echo",
            "send",
            "find",
            "queue",
            "audit",
            "backup",
            "restore",
            "doctor",
            "demo",
        ),
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_by_its_name_and_explains_itself(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert command.help
    for inner in getattr(command, "commands", {}).values():
        assert inner.help, f"{name} {inner.name} does not explain itself"


def test_without_a_mode_or_a_command_it_says_what_is_missing() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "say --mode bridge or --mode router" in result.stderr


def test_an_unknown_command_was_asked_wrongly() -> None:
    assert CliRunner().invoke(main, ["stauts"]).exit_code == 2


def test_a_configuration_error_is_one_line_and_status_2(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text('[router]\nlisen = "x"\n')
    for arguments in (["--mode", "router"], ["status"]):
        result = CliRunner().invoke(main, [*arguments, "--config", str(path)])
        assert result.exit_code == 2
        assert result.stderr == (
            f"relay: {path}: router.lisen: unknown key; did you mean listen?\n"
        )


def test_it_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relay", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"relay, version {relay.__version__}\n"
