"""Part 10 files: the data set in one, as it lies there."""

from pathlib import Path

# File meta information is in Explicit VR Little Endian; these have a 32-bit length (PS3.5 §7.1.2).
LONG_VRS = frozenset({b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF", b"OD", b"OL", b"UC", b"UR"})


def data_set_of(part10: Path | bytes) -> bytes:
    """The data set's bytes of a Part 10 file, exactly as they lie there (PS3.10 §7.1).

    Read element by element, since not every file has a right group length.
    """
    content = part10 if isinstance(part10, bytes) else part10.read_bytes()
    if content[128:132] != b"DICM":
        raise ValueError("not a Part 10 file")
    position = 132
    while content[position : position + 2] == b"\x02\x00":
        if content[position + 4 : position + 6] in LONG_VRS:
            position += 12 + int.from_bytes(content[position + 8 : position + 12], "little")
        else:
            position += 8 + int.from_bytes(content[position + 6 : position + 8], "little")
    return content[position:]
