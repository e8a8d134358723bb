"""What people and API tokens may be called."""

import unicodedata

from relay.errors import Refused

MAXIMUM_LENGTH = 64
# What the audit calls whoever came by the Unix socket (relay.people.who).
CONSOLE_NAME = "console"


def check_name(name: str, what: str = "a person") -> str:
    """`name` as it is kept. Raises Refused (400) with words for what is no name.

    What nobody sees (control and format characters: a right-to-left override among them) is in
    none: two names that look alike are a way to be taken for somebody else.
    """
    kept = unicodedata.normalize("NFC", name.strip())
    if not kept or len(kept) > MAXIMUM_LENGTH:
        raise Refused(400, f"the name of {what} has 1 to {MAXIMUM_LENGTH} characters")
    if key_of(kept) == CONSOLE_NAME:
        raise Refused(
            400, f"{CONSOLE_NAME} is who works on the machine itself: choose another name"
        )
    if any(unicodedata.category(letter)[0] in "CZ" and letter != " " for letter in kept):
        raise Refused(400, f"the name of {what} has only characters that can be seen, and spaces")
    return kept


def key_of(name: str) -> str:
    """What is the same for names that are taken for one."""
    return unicodedata.normalize("NFKC", name.strip()).casefold()
