"""What the tests of the spool share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.spool.rows import Rows, open_rows


@pytest.fixture
async def rows(tmp_path: Path) -> AsyncIterator[Rows]:
    async with open_rows(tmp_path) as rows:
        yield rows
