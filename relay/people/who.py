"""Who asks: a person who is signed in, an API token, or the console."""

import attrs

from relay.people.names import CONSOLE_NAME
from relay.people.roles import Role


@attrs.frozen(slots=True)
class Who:
    """`token` is what a page's forms carry, to show that they are the page's own; API tokens and
    the console have none. `console`: who came by the Unix socket, and so may read this process's
    files anyway."""

    name: str
    role: Role
    token: str = attrs.field(default="", repr=False)
    console: bool = False

    @property
    def is_program(self) -> bool:
        """Whether it is an API token, and no person."""
        return not self.token and not self.console

    def may(self, role: Role) -> bool:
        """Whether this may do what needs `role`."""
        return self.role.covers(role)


# Whoever opens the Unix socket is the process's own user, or root.
CONSOLE = Who(CONSOLE_NAME, Role.ADMINISTRATOR, console=True)
