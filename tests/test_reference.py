"""The references are complete: each endpoint of REST, each option, and each message of Relay's."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import trio

from relay.bridge.app import run_bridge
from relay.cli import main
from relay.router.app import run_router
from scripts import rest_reference
from tests.messages import Message, Source, messages, plain

DOCS = Path(__file__).parent.parent / "docs"
REST = (DOCS / "rest.md").read_text()
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text()
CONFIGURATION = (DOCS / "configuration.md").read_text()

# A Bridge and a Router that start, on a busy machine.
START = 60.0

# --- links ----------------------------------------------------------------------------------------

PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def anchors(document: Path) -> set[str]:
    """What may stand behind # in a link to it: its headings, as GitHub writes them."""
    text = re.sub(r"(?ms)^```.*?^```", "", document.read_text())
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"(?m)^#+ (.+)$", text)
    }


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_links_to_headings_lead_to_one(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", document.read_text()):
        there = document.parent / target if target else document
        if there.suffix == ".md":
            assert anchor in anchors(there), f"{target}#{anchor}"


def test_the_index_has_every_document() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


# --- REST -----------------------------------------------------------------------------------------


def test_the_reference_of_rest_is_what_the_tables_of_operations_say() -> None:
    assert rest_reference.written(REST) == REST, "write it anew: python -m scripts.rest_reference"


def operations(section: str) -> set[str]:
    """The operations that the reference has under this heading."""
    part = REST.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return set(re.findall(r"(?m)^#### `(\w+ \S+)`", part))


@pytest.mark.parametrize("section", ["A Router", "A Bridge, for people"])
async def test_the_reference_has_what_a_process_serves(tmp_path: Path, section: str) -> None:
    stopping = trio.Event()
    address: Any = [("127.0.0.1", 0)]
    run = (
        partial(run_router, ae_title="RELAY", listen=address)
        if section == "A Router"
        else partial(run_bridge, url="http://127.0.0.1:1", listen=address, behind_proxy=True)
    )
    with trio.fail_after(START):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(run, data_dir=tmp_path / "data", stopping=stopping))
            transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "data/control.sock"))
            async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
                document = (await client.get("/v1/openapi.json")).json()
            stopping.set()
    served = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert operations(section) == served


def test_schemas_are_told_as_people_write_them() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "limit": {"type": ["integer", "null"]},
            "states": {"type": "array", "items": {"enum": ["on", None]}},
        },
        "required": ["name"],
    }
    assert rest_reference.in_words(schema) == (
        '{name: text, limit?: integer or null, states?: ["on" | null, …]}'
    )


# --- commands -------------------------------------------------------------------------------------


def options(group: click.Command, path: str = "relay") -> Iterator[tuple[str, str]]:
    """Each command and each option of it."""
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield from options(command, f"{path} {name}")
    for parameter in group.params:
        if isinstance(parameter, click.Option):
            yield path, max(parameter.opts, key=len)


def test_every_option_is_in_the_reference() -> None:
    missing = [
        f"{command} {option}" for command, option in options(main) if option not in CONFIGURATION
    ]
    assert missing == []


# --- messages -------------------------------------------------------------------------------------

PLAIN = plain(TROUBLESHOOTING)


def test_every_message_is_explained() -> None:
    missing = {
        f"{message.file}: {message.text}" for message in messages() if not _explained(message)
    }
    assert not missing, "docs/troubleshooting.md has no entry for them:\n" + "\n".join(
        sorted(missing)
    )


def _explained(message: Message) -> bool:
    if message.source is Source.LOG:  # a cell of the table, alone or with others of one remedy
        section = plain(TROUBLESHOOTING.split("\n## The log")[1].split("\n## ")[0])
        return (
            re.search(rf"(?<![\w-]){re.escape(plain(message.text))}(?![\w-])", section) is not None
        )
    return plain(message.text) in PLAIN


def test_no_refusal_is_listed_that_there_is_not() -> None:
    section = TROUBLESHOOTING.split("\n## What is refused to people")[1].split("\n## ")[0]
    known = {plain(message.text) for message in messages()}
    listed = [plain(line) for line in re.findall(r"(?m)^- (.+)$", section)]
    assert [line for line in listed if line not in known] == []


def test_messages_are_found_in_the_source() -> None:
    found = list(messages())
    assert {message.source for message in found} == set(Source)
    texts = {message.text for message in found}
    assert "first sign-in" in texts  # a log line
    assert "no device …; `relay device list` shows them all" in texts  # a refusal, with a gap
    assert "this Router is not enrolled: `relay enroll INVITATION` first" in texts  # a constant's
