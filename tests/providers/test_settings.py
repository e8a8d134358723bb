"""Settings are read with words for what is wrong, and secrets from where they are."""

from pathlib import Path

import pytest

from relay.errors import ProviderError
from relay.providers.settings import Form, Setting, Settings, takes


def settings(**given: str) -> Settings:
    return Settings("tape", given)


def test_what_is_there() -> None:
    read = settings(library=" north ", slow="true", colour="red")
    assert read.text("library") == "north"
    assert read.optional("other") is None
    assert read.text("other", "default") == "default"
    assert read.flag("slow", False) is True
    assert read.flag("quick", True) is True
    assert read.choice("colour", ("red", "blue"), "blue") == "red"
    assert read.choice("shade", ("red", "blue"), "blue") == "blue"
    read.done()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda s: s.text("library"), "library: is needed"),
        (lambda s: s.text("empty"), "empty: is needed"),
        (lambda s: s.flag("given", True), "given: expected true or false"),
        (lambda s: s.choice("given", ("a", "b"), "a"), "given: expected one of a, b"),
        (lambda s: s.secret("none"), "none: is needed, best as env:NAME or file:PATH"),
        (lambda s: s.secret("env"), "env: environment variable NO_SUCH_THING is not set"),
        (lambda s: s.secret("bare"), "bare: expected env:NAME or file:PATH"),
        (lambda s: s.secret("relative"), "relative: expected the whole path"),
        (lambda s: s.file("here"), "here: expected the whole path"),
        (lambda s: s.file("missing"), "missing: /no/such/file cannot be read"),
        (lambda s: s.done(), "no setting of tape; there are: none"),
    ],
)
def test_what_is_wrong(ask, words: str) -> None:
    given = {
        "given": "x",
        "empty": " ",
        "env": "env:NO_SUCH_THING",
        "bare": "env:",
        "relative": "file:secret",
        "here": "ca.pem",
        "missing": "/no/such/file",
    }
    with pytest.raises(ProviderError, match=words) as caught:
        ask(Settings("tape", given))
    assert caught.value.permanent


def test_secrets(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAPE_KEY", "from the environment")
    path = tmp_path / "key"
    path.write_text("from a file\n")
    read = settings(a="env:TAPE_KEY", b=f"file:{path}", c="as it is", ca=str(path))
    assert read.secret("a").reveal() == "from the environment"
    assert read.secret("b").reveal() == "from a file"
    assert read.secret("c").reveal() == "as it is"
    assert read.optional_secret("d") is None
    assert read.file("ca") == b"from a file\n"
    assert read.file("other") is None
    assert "as it is" not in repr(read.secret("c"))


def test_a_factory_says_what_it_takes() -> None:
    library = Setting("library", "Which one.", required=True)
    colour = Setting("colour", "Of the tape.", Form.CHOICE, "red", choices=("red", "blue"))

    @takes(library, colour)
    def open_tape() -> str:
        return "open"

    assert open_tape.settings == (library, colour)
    assert open_tape() == "open"
