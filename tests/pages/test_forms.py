"""Forms: what they hold, and what is none."""

import pytest

from relay.errors import Refused
from relay.pages.forms import MAXIMUM_FIELDS, Form, check_media, parse


def test_fields() -> None:
    form = parse(
        b"name=+CT+1+&services=echo&services=store&empty=&text=a%0D%0Ab&umlaut=%C3%A4&on=1"
    )
    assert form.text("name") == "CT 1"
    assert form.secret("name") == " CT 1 "
    assert form.texts("services") == ["echo", "store"]
    assert form.texts("nothing") == []
    assert (form.text("nothing"), form.text("nothing", "x"), form.text("empty", "x")) == (
        "",
        "x",
        "",
    )
    assert form.text("text") == "a\nb"
    assert form.text("umlaut") == "ä"
    assert (form.flag("on"), form.flag("off")) == (True, False)
    assert form.values()["services"] == "echo"


def test_numbers() -> None:
    form = Form(
        {"port": ["104"], "wait": ["2.5"], "none": [""], "word": ["a" * 99], "nan": ["nan"]}
    )
    assert form.number("port") == 104
    assert form.decimal("wait") == 2.5
    assert form.number("none", 7) == 7
    assert form.decimal("none") is None
    for wrong, words in (
        (lambda: form.number("word"), "word is a whole number, not 'a{40}'"),
        (lambda: form.number("wait"), "whole number"),
        (lambda: form.decimal("nan"), "nan is a number"),
        (lambda: form.decimal("word"), "is a number"),
    ):
        with pytest.raises(Refused, match=words) as refused:
            wrong()
        assert refused.value.status == 400


@pytest.mark.parametrize(
    "body",
    [b"a=%FF", b"\xff", b"&".join([b"a=1"] * (MAXIMUM_FIELDS + 1))],
    ids=["%", "raw", "many"],
)
def test_what_is_no_form(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse(body)
    assert refused.value.status == 400


def test_media() -> None:
    check_media("Application/x-www-form-urlencoded; charset=utf-8")
    for other in ("", "multipart/form-data; boundary=a", "text/plain", "application/json"):
        with pytest.raises(Refused) as refused:
            check_media(other)
        assert refused.value.status == 415
