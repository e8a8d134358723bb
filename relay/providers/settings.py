"""How a provider reads the settings that an administrator entered: KEY=VALUE, all of them text.

settings = Settings("s3", given)
bucket = settings.text("bucket")
secret = settings.secret("secret_key")
settings.done()

What settings a kind takes is said beside, for a form: a factory that is decorated with `takes`.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import attrs

from relay.errors import ProviderError
from relay.values import SECRET, Expectation, Secret

# How a secret that stands elsewhere is given.
REFERENCES = ("env:", "file:")

F = TypeVar("F", bound=Callable[..., Any])


class Form(Enum):
    """How a setting is entered."""

    TEXT = "text"
    SECRET = "secret"
    FLAG = "flag"
    CHOICE = "choice"
    PATH = "path"


@attrs.frozen(slots=True)
class Setting:
    """One setting of a kind of store, as a form asks for it.

    `required`: nothing goes without it; what is needed in some cases only says so in its `words`.
    `default` is what holds where it is left empty; `choices` are those of a CHOICE. `seldom`: most
    people leave it as it is. `label` is empty where it is the name with blanks.
    """

    name: str
    words: str
    form: Form = Form.TEXT
    default: str | None = None
    required: bool = False
    choices: tuple[str, ...] = ()
    seldom: bool = False
    label: str = ""

    @property
    def called(self) -> str:
        """What a form calls it."""
        return self.label or self.name.replace("_", " ").capitalize()


def takes(*settings: Setting) -> Callable[[F], F]:
    """Say which settings a `relay.providers.registry.ProviderFactory` takes, in a form's order."""

    def say(factory: F) -> F:
        factory.settings = settings  # type: ignore[attr-defined]
        return factory

    return say


class Settings:
    """The settings of one store of this `kind`. All methods raise ProviderError, naming the key."""

    def __init__(self, kind: str, given: Mapping[str, str]) -> None:
        self._kind = kind
        self._given = given
        self._asked: list[str] = []

    def text(self, key: str, default: str | None = None) -> str:
        """The value, which must be there unless there is a `default`."""
        value = self._value(key, default)
        if value is None:
            raise self.wrong(key, "is needed")
        return value

    def optional(self, key: str) -> str | None:
        """The value, or None."""
        return self._value(key, None)

    def flag(self, key: str, default: bool) -> bool:
        """`true` or `false`."""
        value = self._value(key, str(default).lower())
        if value not in ("true", "false"):
            raise self.wrong(key, "expected true or false")
        return value == "true"

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        """One of `choices`."""
        value = self.text(key, default)
        if value not in choices:
            raise self.wrong(key, f"expected one of {', '.join(choices)}")
        return value

    def secret(self, key: str) -> Secret:
        """A secret: given as env:NAME or file:PATH of the Bridge's own, or as it is."""
        secret = self.optional_secret(key)
        if secret is None:
            raise self.wrong(key, "is needed, best as env:NAME or file:PATH")
        return secret

    def optional_secret(self, key: str) -> Secret | None:
        """A secret, or None."""
        value = self._value(key, None)
        if value is None:
            return None
        if not value.startswith(REFERENCES):
            return Secret(value)
        where, _, path = value.partition(":")
        if where == "file" and not Path(path).expanduser().is_absolute():
            raise self.wrong(key, "expected the whole path of the file, from / on")
        try:
            found: Secret = SECRET.read(value, Path("/"))
        except Expectation as error:
            raise self.wrong(key, str(error)) from error
        except ValueError as error:
            raise self.wrong(key, SECRET.expected) from error
        return found

    def file(self, key: str) -> bytes | None:
        """What the file of this path holds, or None where none is given."""
        value = self._value(key, None)
        if value is None:
            return None
        path = Path(value).expanduser()
        if not path.is_absolute():
            raise self.wrong(key, "expected the whole path of the file, from / on")
        try:
            return path.read_bytes()
        except OSError as error:
            raise self.wrong(key, f"{path} cannot be read: {error.strerror}") from error

    def done(self) -> None:
        """Raise ProviderError for a setting that nobody has asked for."""
        for key in self._given:
            if key not in self._asked:
                known = ", ".join(sorted(self._asked)) or "none"
                raise ProviderError(
                    f"{key}: no setting of {self._kind}; there are: {known}", permanent=True
                )

    def wrong(self, key: str, why: str) -> ProviderError:
        """The error that says so."""
        return ProviderError(f"{key}: {why}", permanent=True)

    def _value(self, key: str, default: str | None) -> str | None:
        self._asked.append(key)
        value = self._given.get(key, "").strip()
        return value or default
