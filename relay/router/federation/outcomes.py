"""How the part of one device in an operation of the federation ended (DESIGN §7)."""

from relay.errors import Outcome, SourceFailed

__all__ = ["WHOLE", "Outcome", "SourceFailed", "is_incomplete", "told_of"]

# A device that a caller may not use is none of its own: that nothing came of it is no gap.
WHOLE = frozenset({Outcome.COMPLETE, Outcome.NOT_GRANTED})


def is_incomplete(outcome: Outcome) -> bool:
    """Whether something may be missing of what the caller could have had."""
    return outcome not in WHOLE


def told_of(title: str, words: str) -> str:
    """What is said of the device `title`; `words` of those that relay to it name it already."""
    return words if words.startswith(f"{title} of ") else f"{title}: {words}"
