"""What may be an AE title (PS3.5 §6.2, VR AE), in people's entries."""

from relay.errors import Refused
from relay.identity import is_ae_title

# In a grant: whichever AE title calls.
ANY = "*"


def parse(text: str) -> str:
    """`text` as an AE title: spaces around it are not significant and go.

    Raises Refused (400) for what no device could carry.
    """
    title = text.strip(" ")
    if not is_ae_title(title):
        raise Refused(
            400, f"an AE title is 1 to 16 printable ASCII characters, no backslash: {text[:40]!r}"
        )
    return title
