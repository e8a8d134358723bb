"""What people enter, as JSON: each field is read and checked, and what does not hold is named.

All raise Refused (400), in words for the person.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from enum import Enum
from typing import Any, TypeVar

import attrs

from relay.errors import Refused
from relay.identity import is_ae_title

E = TypeVar("E", bound=Enum)

# How like a field's name must be that one suggests it: `aet` is to `ae_title`.
ALIKE = 0.5


@attrs.frozen(slots=True)
class Entry:
    """One JSON object. `what` it describes, if that is said, stands before every complaint."""

    fields: Mapping[str, Any]
    what: str = ""

    def only(self, known: Collection[str]) -> None:
        """Refuse a field that would otherwise be ignored in silence."""
        unknown = self.fields.keys() - set(known)
        if unknown:
            wrong = min(unknown)
            close = get_close_matches(wrong, known, 1, ALIKE)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise self._refused(f"unknown field {wrong!r}; {hint}")

    def text(self, name: str) -> str:
        """The text under `name`, which must be there."""
        value = self.fields.get(name)
        if not isinstance(value, str) or not value:
            raise self._refused(f"{name} is missing, or no text")
        return value

    def line(self, name: str, at_most: int) -> str:
        """The text under `name`, of printable ASCII characters, without the spaces around it.

        Empty if there is none.
        """
        value = self.fields.get(name, "")
        if (
            not isinstance(value, str)
            or len(value) > at_most
            or not (value.isascii() and value.isprintable())
        ):
            raise self._refused(f"{name} is a text of up to {at_most} printable ASCII characters")
        return value.strip(" ")

    def texts(self, name: str) -> list[str]:
        """The list of texts under `name`; empty if there is none."""
        return self._list(name, str, "texts")

    def entries(self, name: str) -> list[dict[str, Any]]:
        """The list of objects under `name`; empty if there is none."""
        return self._list(name, dict, "objects")

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.fields.get(name, default)
        if not isinstance(value, bool):
            raise self._refused(f"{name} is true or false")
        return value

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        value = self.fields.get(name, default)
        if type(value) is not int or not least <= value <= most:
            raise self._refused(f"{name} is a whole number from {least} to {most}")
        return value

    def seconds(
        self, name: str, default: float, most: float, *, may_be_zero: bool = False
    ) -> float:
        """A number of seconds, above zero unless `may_be_zero`."""
        value = self.fields.get(name, default)
        allowed = type(value) in (int, float) and (
            0 < value <= most or (may_be_zero and value == 0)
        )
        if not allowed:
            raise self._refused(f"{name} is a number of seconds up to {most:.0f}")
        return float(value)

    def title(self, name: str, default: str = "") -> str:
        """The AE title under `name`; `default` where there is none, or an empty text."""
        value = self.fields.get(name, default)
        if not isinstance(value, str):
            raise self._refused(f"{name} is an AE title")
        return ae_title(value) if value else default

    def choice(self, name: str, default: E) -> E:
        """One of the values of `default`'s enumeration."""
        kind = type(default)
        try:
            return kind(self.fields.get(name, default.value))
        except ValueError:
            words = " or ".join(str(member.value) for member in kind)
            raise self._refused(f"{name} is {words}") from None

    def _list(self, name: str, kind: type, plural: str) -> list[Any]:
        values = self.fields.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise self._refused(f"{name} is no list of {plural}")
        return values

    def _refused(self, words: str) -> Refused:
        return Refused(400, f"{self.what}: {words}" if self.what else words)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What changed between two descriptions of one thing, for people; empty: nothing."""
    return "; ".join(
        f"{name.replace('_', ' ')}: {_words(before[name])} -> {_words(after[name])}"
        for name in before
        if name in after and before[name] != after[name]
    )


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return f"{len(value)} entries" if value else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "none"


def ae_title(text: str) -> str:
    """`text` as an AE title: spaces around it are not significant and go (PS3.5 §6.2, VR AE)."""
    title = text.strip(" ")
    if not is_ae_title(title):
        raise Refused(
            400, f"an AE title is 1 to 16 printable ASCII characters, no backslash: {text[:40]!r}"
        )
    return title
