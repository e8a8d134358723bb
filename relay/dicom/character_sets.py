"""Specific Character Set (0008,0005): the defined terms, and in which combinations they may stand.

PS3.3 §C.12.1.1.2. What is written in one is another matter: nothing is encoded or decoded here.
"""

from difflib import get_close_matches

# Of one byte. Latin alphabet no. 9 (203) is left out: nothing here could write it.
_NUMBERS = (100, 101, 109, 110, 144, 127, 126, 138, 148, 13, 166)
# Alone (Table C.12-2).
_SINGLE = frozenset(f"ISO_IR {number}" for number in _NUMBERS)
# The first of several, or one behind it (Table C.12-3).
_EXTENDED = frozenset(f"ISO 2022 IR {number}" for number in (6, *_NUMBERS))
# Of several bytes, behind the first (Table C.12-4).
_EXTENDED_MULTIPLE = frozenset(f"ISO 2022 IR {number}" for number in (87, 159, 149, 58))
# Of several bytes, alone (Table C.12-5).
_MULTIPLE = frozenset({"ISO_IR 192", "GB18030", "GBK"})

DEFINED_TERMS = _SINGLE | _EXTENDED | _EXTENDED_MULTIPLE | _MULTIPLE


def values(character_set: str) -> list[str]:
    """The values of the attribute, without the spaces around them, which are not significant
    (PS3.5 §6.2, VR CS)."""
    return [value.strip(" ") for value in character_set.split("\\")]


def problem(character_set: str) -> str:
    """What is wrong with it, in words for the person who entered it; empty: nothing.

    An empty one is nothing wrong: the default repertoire.
    """
    terms = values(character_set)
    for term in terms:
        if term and term not in DEFINED_TERMS:
            close = get_close_matches(term.upper(), sorted(DEFINED_TERMS), 1)
            hint = f"did you mean {close[0]}?" if close else "Unicode is ISO_IR 192"
            return f"no defined term of DICOM: {term[:20]!r}; {hint}"
    first, *others = terms
    if not others:
        if first in _EXTENDED_MULTIPLE:
            return f"{first} stands behind another: \\{first}"
        return ""
    if first and first not in _EXTENDED:
        return f"{first} is not the first of several: they all begin with ISO 2022"
    for term in others:
        if term not in _EXTENDED | _EXTENDED_MULTIPLE:
            return f"{term or 'an empty value'} does not stand behind another"
    if len(set(terms)) < len(terms):
        return "a term is named twice"
    return ""
