"""One internet for the tests of a module; hospitals come and go."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images
from tests.hospital_networks.world import World, made_world

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two images of half a MiB: too large to go in line, so that the object store is used."""
    return [image.path for image in images.make_series(tmp_path_factory.mktemp("series"), 2)]


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory, files: list[Path]) -> Iterator[World]:
    with made_world(tmp_path_factory.mktemp("world"), files) as made:
        yield made


@pytest.fixture
def here() -> str:
    """A name of this test's own, for its machines."""
    return f"h{next(_numbers)}"
