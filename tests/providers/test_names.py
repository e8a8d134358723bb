"""Object names: what every store takes, and nothing that could become a path."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ProviderError
from relay.providers.names import MAXIMUM_NAME, check_object_name, is_object_name


@pytest.mark.parametrize("name", ["a", "ab/cd", "0f/1e2d", "probe/x-1_2.bin", "a" * MAXIMUM_NAME])
def test_taken(name: str) -> None:
    check_object_name(name)


@given(st.text(alphabet="ab./\\\0\n AZ~%é-_", max_size=12))
def test_nothing_taken_leaves_its_folder(name: str) -> None:
    if is_object_name(name):
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789/._-")
        assert all(part and not part.startswith(".") for part in name.split("/"))
    else:
        with pytest.raises(ProviderError):
            check_object_name(name)
