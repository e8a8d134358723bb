"""What the queue's tests stand on."""

import pytest
from trio.testing import MockClock


@pytest.fixture
def patient_clock() -> MockClock:
    """Time that passes at once where nothing happens, also where a thread writes to the disk."""
    return MockClock(autojump_threshold=0.01)
