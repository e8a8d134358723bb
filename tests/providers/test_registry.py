"""Finding a provider by its kind, built in or from a package."""

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from relay.errors import ProviderError, Refused
from relay.providers import registry
from relay.providers.disk import DiskProvider
from relay.providers.registry import Host, factory, kinds, settings_of
from relay.providers.s3 import S3Provider
from relay.providers.s3form import S3_SETTINGS


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(folder=tmp_path, base_url="https://bridge.example", key=b"k" * 32, space=2**20)


def offer(monkeypatch, name: str, value: str) -> None:
    found = EntryPoints([EntryPoint(name, value, registry.ENTRY_POINT_GROUP)])
    monkeypatch.setattr(
        registry, "entry_points", lambda **wanted: found.select(**wanted) if wanted else found
    )


async def test_disk_is_built_in(host: Host) -> None:
    async with factory("disk")(host, {}) as provider:
        assert isinstance(provider, DiskProvider)
        assert provider.name == "disk"


async def test_disk_takes_no_settings(host: Host) -> None:
    with pytest.raises(ProviderError, match="no settings"):
        async with factory("disk")(host, {"bucket": "x"}):
            pass


async def test_s3_is_built_in_and_checks_its_settings(host: Host) -> None:
    given = {"bucket": "b-1", "region": "eu-west-1", "access_key": "a", "secret_key": "s"}
    async with factory("s3")(host, given) as provider:
        assert isinstance(provider, S3Provider)
    with pytest.raises(ProviderError, match="colour: no setting of s3"):
        async with factory("s3")(host, {**given, "colour": "red"}):
            pass


def test_unknown_kind_says_which_there_are() -> None:
    with pytest.raises(Refused, match="disk") as caught:
        factory("floppy")
    assert caught.value.status == 400


def test_third_party_by_entry_point(monkeypatch) -> None:
    offer(monkeypatch, "tape", "tests_tape:missing")
    monkeypatch.setitem(__import__("sys").modules, "tests_tape", registry)
    offer(monkeypatch, "tape", "tests_tape:_disk")
    assert factory("tape") is registry._disk
    assert kinds() == ["disk", "s3", "tape"]


def test_built_in_kind_cannot_be_replaced(monkeypatch) -> None:
    offer(monkeypatch, "disk", "nowhere:at_all")
    assert factory("disk") is registry._disk


def test_package_that_does_not_load(monkeypatch) -> None:
    offer(monkeypatch, "tape", "no_such_package_at_all:open")
    with pytest.raises(ProviderError, match="tape does not load") as caught:
        factory("tape")
    assert caught.value.permanent


def test_kinds_that_say_their_settings_and_others(monkeypatch) -> None:
    assert settings_of("disk") == ()
    assert settings_of("s3") == S3_SETTINGS
    bare, wrong = (lambda host, settings: None), (lambda host, settings: None)
    wrong.settings = ["bucket"]
    monkeypatch.setattr(registry, "BUILT_IN", {"bare": bare, "wrong": wrong})
    assert settings_of("bare") is None
    with pytest.raises(ProviderError, match="wrong: its settings are not"):
        settings_of("wrong")
