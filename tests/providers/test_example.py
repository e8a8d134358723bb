"""The example package: found by its entry point, it passes the suite, and a real Bridge uses it."""

import os
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import httpx
import pytest

from relay.providers.registry import BUILT_IN, Host, factory, kinds
from tests.network import network

from .shelf import shelf_server
from .suite import *  # noqa: F403

EXAMPLE = Path(__file__).parent / "example"
KEY = "the shelf's key"
MAXIMUM_LINES = 80


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `pip install` would leave of the package, on the path of this test alone."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    folder = tmp_path / f"relay_shelf-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (folder / "entry_points.txt").write_text("\n".join([*lines, ""]))
    for path in (tmp_path, EXAMPLE):
        monkeypatch.syspath_prepend(path)
    yield [str(tmp_path), str(EXAMPLE)]
    sys.modules.pop("relay_shelf", None)


@pytest.fixture
async def shelf(installed: list[str]):
    async with shelf_server(KEY.encode(), import_module("relay_shelf").signature) as server:
        yield server


@pytest.fixture
async def provider(shelf, tmp_path: Path):
    host = Host(folder=tmp_path, base_url="https://bridge.example", key=b"k" * 32, space=1)
    async with factory("shelf")(host, {"url": shelf.url, "key": KEY}) as provider:
        yield provider


@pytest.fixture
async def client():
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        yield client


def test_it_is_found_by_its_entry_point_alone(installed: list[str]) -> None:
    assert "shelf" in kinds()
    assert "shelf" not in BUILT_IN
    assert factory("shelf").__module__ == "relay_shelf"


def test_it_is_small() -> None:
    lines = (EXAMPLE / "relay_shelf.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < MAXIMUM_LINES


async def test_a_real_bridge_sets_it_up(shelf, installed, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(installed))
    monkeypatch.setenv("SHELF_KEY", KEY)
    async with network(tmp_path / "net") as net:
        bridge = net.bridge
        wrong = await bridge.relay("provider", "add", "shelf", "shelf", "key=x", check=False)
        assert "url: is needed" in wrong
        settings = (f"url={shelf.url}", "key=env:SHELF_KEY")
        await bridge.relay("provider", "add", "attic", "shelf", *settings)
        assert "FAIL" not in await bridge.relay("provider", "check", "attic")
        await bridge.relay("provider", "use", "attic", "disk")
        [attic, disk] = await bridge.ask("provider", "list")
        assert (attic["name"], attic["kind"], attic["origin"]) == ("attic", "shelf", shelf.url)
        assert (attic["failing"], disk["place"]) == (False, 2)
        assert (await bridge.ask("status"))["store"] == "attic"
        # And after a restart.
        await bridge.stop()
        await bridge.start()
        assert (await bridge.ask("status"))["store"] == "attic"
        assert KEY not in bridge.output()
        await bridge.relay("provider", "use", "disk")
        assert "is removed" in await bridge.relay("provider", "remove", "attic")
        assert [row["name"] for row in await bridge.ask("provider", "list")] == ["disk"]
