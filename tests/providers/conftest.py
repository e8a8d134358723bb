"""One S3 server for all tests that want one: it takes seconds to start."""

from collections.abc import Iterator

import pytest

from tests.providers.seaweed import Seaweed
from tests.providers.seaweed import seaweed as serving


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """SeaweedFS, running."""
    with serving(tmp_path_factory.mktemp("seaweed")) as server:
        yield server
