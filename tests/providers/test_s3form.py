"""The form asks for what S3 reads, in the words of the document."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from relay.errors import ProviderError
from relay.providers import s3
from relay.providers.s3 import S3Settings
from relay.providers.s3form import S3_SETTINGS
from relay.providers.settings import Form, Settings

DOCUMENT = Path(__file__).parents[2] / "docs/providers.md"


def asked(monkeypatch: pytest.MonkeyPatch, given: Mapping[str, str]) -> set[str]:
    """The keys that S3 asks for."""
    keys: set[str] = set()

    class Noting(Settings):
        def _value(self, key: str, default: str | None) -> str | None:
            keys.add(key)
            return super()._value(key, default)

    monkeypatch.setattr(s3, "Settings", Noting)
    S3Settings.read(given)
    return keys


def test_all_that_is_read_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"bucket": "b-1", "region": "r", "access_key": "a", "secret_key": "s"}
    assert asked(monkeypatch, given) == {setting.name for setting in S3_SETTINGS}


def test_defaults_are_those_that_hold() -> None:
    given = {"bucket": "b-1", "region": "r", "access_key": "a", "secret_key": "s"}
    said = {setting.name: setting.default for setting in S3_SETTINGS if setting.default}
    assert S3Settings.read(given | said) == S3Settings.read(given)


def test_what_is_required_is() -> None:
    given = {"bucket": "b-1", "region": "r", "access_key": "a", "secret_key": "s"}
    for setting in S3_SETTINGS:
        if setting.required:
            with pytest.raises(ProviderError, match=f"{setting.name}: is needed"):
                S3Settings.read({k: v for k, v in given.items() if k != setting.name})


def test_choices_and_flags_are_taken() -> None:
    given = {"bucket": "b-1", "region": "r", "access_key": "a", "secret_key": "s"}
    for setting in S3_SETTINGS:
        values = ("true", "false") if setting.form is Form.FLAG else setting.choices
        for value in values:
            keys = {} if value == "role" else given
            S3Settings.read({"bucket": "b-1", "region": "r"} | keys | {setting.name: value})


def test_the_document_has_each_with_its_words() -> None:
    table = DOCUMENT.read_text().split("## S3\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"(?m)^\| `(\w+)` \|[^|]*\| (.*) \|$", table))
    words = {name: text.replace("`", "") for name, text in rows.items()}
    assert words == {setting.name: setting.words for setting in S3_SETTINGS}
