"""A form that a browser has sent, `application/x-www-form-urlencoded`, read with bounds."""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl

import attrs
from starlette.requests import Request

from relay.errors import Refused
from relay.web.answers import read_body

MEDIA: Final = "application/x-www-form-urlencoded"
# A large form holds a device's fields, or an S3 provider's; an invitation is 700 characters.
MAXIMUM_FORM: Final = 64 * 1024
MAXIMUM_FIELDS: Final = 500


@attrs.frozen(slots=True)
class Form:
    """What was typed, by the fields' names. A form page shows it again where it is refused."""

    fields: Mapping[str, Sequence[str]]

    def text(self, name: str, default: str = "") -> str:
        """A field's only or first value, without blanks around it."""
        values = self.fields.get(name)
        return values[0].strip() if values else default

    def secret(self, name: str) -> str:
        """As it was typed: blanks belong to a password."""
        values = self.fields.get(name)
        return values[0] if values else ""

    def texts(self, name: str) -> list[str]:
        """All values of a field that may come more than once: checkboxes."""
        return [value.strip() for value in self.fields.get(name, ())]

    def number(self, name: str, default: int | None = None) -> int | None:
        """A whole number; `default` where the field is empty. Raises Refused (400)."""
        text = self.text(name)
        if not text:
            return default
        try:
            return int(text, 10)
        except ValueError:
            raise Refused(400, f"{_words(name)} is a whole number, not {text[:40]!r}") from None

    def decimal(self, name: str, default: float | None = None) -> float | None:
        """A number with or without a decimal point. Raises Refused (400)."""
        text = self.text(name)
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not abs(value) < 1e15:  # NaN is not, either
            raise Refused(400, f"{_words(name)} is a number, not {text[:40]!r}")
        return value

    def flag(self, name: str) -> bool:
        """Whether a checkbox was ticked."""
        return bool(self.fields.get(name))

    def values(self) -> dict[str, str]:
        """Each field's first value, to fill a form with."""
        return {name: values[0] for name, values in self.fields.items()}


async def form(request: Request) -> Form:
    """The form in the request's body.

    Raises Refused: 413 for more than MAXIMUM_FORM bytes, 415 for another media type, 400.
    """
    check_media(request.headers.get("content-type", ""))
    return parse(await read_body(request, MAXIMUM_FORM))


def check_media(content_type: str) -> None:
    """Raises Refused (415) for what is no form as pages send it."""
    if content_type.partition(";")[0].strip().lower() != MEDIA:
        raise Refused(415, f"expected a form, as {MEDIA}")


def parse(body: bytes) -> Form:
    """Raises Refused (400)."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAXIMUM_FIELDS,
        )
    except ValueError:  # UnicodeDecodeError is one
        raise Refused(400, "the form cannot be read") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return Form(fields)


def _words(name: str) -> str:
    return name.replace("_", " ")
