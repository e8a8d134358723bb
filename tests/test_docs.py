"""The documents keep up with the program: every key, every command, every local link."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from relay import config
from relay.cli import main
from relay.config import Mode

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs/configuration.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]


def commands(group: click.Group, prefix: str = "relay") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


@pytest.mark.parametrize("mode", Mode)
def test_every_key_is_in_the_reference_with_its_words(mode: Mode) -> None:
    section = REFERENCE.split(f"### `[{mode.value}]`")[1].split("###")[0]
    for name, key in config.keys(mode).items():
        default = "required" if key.required else f"`{key.default}`" if key.default else "none"
        assert f"| `{name}` | {default} | {key.words} |" in section, name


def test_every_command_is_in_the_reference() -> None:
    assert isinstance(main, click.Group)
    for command in commands(main):
        assert f"`{command}" in REFERENCE, command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_local_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target
