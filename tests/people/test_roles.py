"""Each role may do all that the one before it may."""

import pytest

from relay.people.roles import Role


@pytest.mark.parametrize(
    ("has", "covered"),
    [
        (Role.VIEWER, {Role.VIEWER}),
        (Role.OPERATOR, {Role.VIEWER, Role.OPERATOR}),
        (Role.ADMINISTRATOR, set(Role)),
    ],
)
def test_what_a_role_covers(has: Role, covered: set[Role]) -> None:
    assert {needed for needed in Role if has.covers(needed)} == covered
