"""What the tests of the borders stand on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.router.borders import World, open_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A hospital's border, with an empty database."""
    async with open_world(tmp_path) as made:
        yield made
