"""What a person may do: each role may do all that the one before it may."""

from enum import Enum


class Role(Enum):
    """A person's or token's role.

    VIEWER looks at everything but patients' names. OPERATOR also searches by patient, retries,
    discards, pauses, and tests devices. ADMINISTRATOR also changes devices, grants, peers,
    providers, people and settings.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMINISTRATOR = "administrator"

    def covers(self, needed: "Role") -> bool:
        """Whether who has this role may do what needs `needed`."""
        return _RANK[self] >= _RANK[needed]


_RANK = {role: rank for rank, role in enumerate(Role)}
