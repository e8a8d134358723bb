"""Who asks: what they may, and what is not told of them."""

from relay.people.roles import Role
from relay.people.who import CONSOLE, Who


def test_the_console_may_do_all_and_is_known_by_more_than_its_name() -> None:
    assert CONSOLE.may(Role.ADMINISTRATOR)
    assert CONSOLE.console
    assert not Who("console", Role.ADMINISTRATOR).console


def test_a_form_token_is_not_in_a_log() -> None:
    assert "hunter2" not in repr(Who("Ada", Role.VIEWER, "hunter2"))
