"""AE titles as people enter them."""

import pytest

from relay.errors import Refused
from relay.router import titles


@pytest.mark.parametrize("text", ["PACS", "  PACS ", "A/B 1", "x" * 16])
def test_what_a_device_can_carry(text: str) -> None:
    assert titles.parse(text) == text.strip()


@pytest.mark.parametrize("text", ["", "   ", "x" * 17, "A\\B", "PACS\n", "PÄCS", "A\0"])
def test_what_it_cannot(text: str) -> None:
    with pytest.raises(Refused) as caught:
        titles.parse(text)
    assert caught.value.status == 400
