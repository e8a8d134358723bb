"""Names: what nobody can see is in none, and what looks the same is the same."""

import pytest

from relay.errors import Refused
from relay.people.names import check_name, key_of


@pytest.mark.parametrize(
    "name", ["Ada", " Ada ", "Ada Lovelace", "Zoë", "山田 太郎", "<b>'\"&", "x" * 64]
)
def test_what_is_a_name(name: str) -> None:
    assert check_name(name) == name.strip()


@pytest.mark.parametrize(
    "name",
    ["", "  ", "x" * 65, "a\nb", "a\tb", "a\x00", "a\u202eb", "a\u200bb", "a\u00a0b", "a\u2028b"],
)
def test_what_is_none(name: str) -> None:
    with pytest.raises(Refused) as refused:
        check_name(name)
    assert refused.value.status == 400


@pytest.mark.parametrize("name", ["console", " CONSOLE ", "\uff43onsole"])
def test_the_consoles_is_nobody_elses(name: str) -> None:
    with pytest.raises(Refused, match="machine itself"):
        check_name(name)


def test_the_same_name() -> None:
    assert key_of("ADA ") == key_of("ada")
    assert key_of("Zoe\u0308") == key_of("zoë")
    assert check_name("Zoe\u0308") == "Zoë"
    assert key_of("ﬁ") == key_of("fi")
