"""Reads the test vectors beside it; PROTOCOL.md §20 has their format."""

from collections.abc import Iterable
from pathlib import Path

import attrs

FOLDER = Path(__file__).parent


@attrs.frozen
class Vector:
    """One file: its lines in order. Values are hexadecimal unless asked for otherwise."""

    name: str
    lines: tuple[tuple[str, str], ...]

    def every(self, key: str) -> list[str]:
        return [value for name, value in self.lines if name == key]

    def text(self, key: str) -> str:
        (value,) = self.every(key)
        return value

    def octets(self, key: str) -> bytes:
        return bytes.fromhex(self.text(key))

    def number(self, key: str) -> int:
        return int(self.text(key))

    @property
    def kind(self) -> str:
        return self.text("kind")

    @property
    def succeeds(self) -> bool:
        return self.text("outcome") == "success"

    def __str__(self) -> str:
        return self.name


def parse(text: str) -> Vector:
    lines = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition(":")
            lines.append((key, value.removeprefix(" ")))
    return Vector(dict(lines)["name"], tuple(lines))


def write(lines: Iterable[tuple[str, str | bytes | int]], remark: str = "") -> str:
    """The text of a vector."""
    text = "".join(f"# {line}\n" for line in remark.splitlines())
    for key, value in lines:
        shown = value.hex() if isinstance(value, bytes) else str(value)
        text += f"{key}: {shown}".rstrip() + "\n"
    return text


def vectors(kind: str) -> list[Vector]:
    """All of one kind, by name."""
    found = [parse(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.txt"))]
    return [vector for vector in found if vector.kind == kind]
