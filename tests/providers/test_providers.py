"""What all providers share: their values, and that the built-in ones fulfil the protocol."""

import inspect
from pathlib import Path

import attrs
import pytest

from relay.bridge.watched import WatchedProvider
from relay.providers import Finding, Provider, SignedRequest, StoredObject
from relay.providers.disk import DiskProvider
from relay.providers.registry import BUILT_IN
from relay.providers.s3 import S3Provider

VERBS = [name for name in vars(Provider) if not name.startswith("_")]


def test_values_do_not_change() -> None:
    request = SignedRequest("GET", "https://store/x", (), 1)
    for value in (request, StoredObject("x", 1, 2), Finding("x", ok=True)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            value.name = "y"
    assert Finding("x", ok=True).advice == ""


@pytest.mark.parametrize("provider", [DiskProvider, S3Provider, WatchedProvider])
@pytest.mark.parametrize("verb", VERBS)
def test_each_takes_what_the_protocol_says(verb: str, provider: type) -> None:
    wanted = inspect.signature(getattr(Provider, verb)).parameters
    assert list(inspect.signature(getattr(provider, verb)).parameters) == list(wanted)


@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_built_in_kind_runs_the_suite(kind: str) -> None:
    module = Path(__file__).with_name(f"test_{kind}.py")
    assert "from .suite import *" in module.read_text()
