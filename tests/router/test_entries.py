"""What people enter: what is taken, and the words for what is not."""

from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import Refused
from relay.router.entries import Entry, ae_title, differences


def test_what_is_there_is_read() -> None:
    entry = Entry({"a": "text", "b": ["x"], "c": [{}], "d": True, "e": 7, "f": 2})
    entry.only("abcdef")
    assert entry.text("a") == "text"
    assert entry.texts("b") == ["x"]
    assert entry.entries("c") == [{}]
    assert entry.flag("d", False)
    assert entry.whole("e", 1, 0, 7) == 7
    assert entry.seconds("f", 1.0, 2.0) == 2.0


def test_what_is_left_out_has_its_default() -> None:
    entry = Entry({})
    assert (entry.texts("a"), entry.entries("a")) == ([], [])
    assert (entry.flag("a", True), entry.whole("a", 3, 0, 9)) == (True, 3)
    assert entry.seconds("a", 2.5, 9) == 2.5


@pytest.mark.parametrize(
    ("value", "read", "words"),
    [
        (None, lambda e: e.text("a"), "a is missing, or no text"),
        ("", lambda e: e.text("a"), "a is missing, or no text"),
        ("x", lambda e: e.texts("a"), "a is no list of texts"),
        (["x", 1], lambda e: e.texts("a"), "a is no list of texts"),
        ({}, lambda e: e.entries("a"), "a is no list of objects"),
        (["x"], lambda e: e.entries("a"), "a is no list of objects"),
        (1, lambda e: e.flag("a", False), "a is true or false"),
        (True, lambda e: e.whole("a", 1, 0, 9), "a is a whole number from 0 to 9"),
        (10, lambda e: e.whole("a", 1, 0, 9), "a is a whole number from 0 to 9"),
        (1.0, lambda e: e.whole("a", 1, 0, 9), "a is a whole number from 0 to 9"),
        (0, lambda e: e.seconds("a", 1, 9), "a is a number of seconds up to 9"),
        (True, lambda e: e.seconds("a", 1, 9), "a is a number of seconds up to 9"),
        (float("nan"), lambda e: e.seconds("a", 1, 9), "a is a number of seconds up to 9"),
        (1, lambda e: e.only(["b", "c"]), "unknown field 'a'; there are b, c"),
    ],
)
def test_what_does_not_hold_is_named(
    value: Any, read: Callable[[Entry], object], words: str
) -> None:
    for what, expected in (("", words), ("device", f"device: {words}")):
        with pytest.raises(Refused) as caught:
            read(Entry({"a": value}, what))
        assert (caught.value.status, str(caught.value)) == (400, expected)


@pytest.mark.parametrize(
    ("text", "title"), [("PACS", "PACS"), ("  PACS ", "PACS"), ("A/B 1", "A/B 1"), ("x" * 16,) * 2]
)
def test_what_a_device_can_carry(text: str, title: str) -> None:
    assert ae_title(text) == title


@pytest.mark.parametrize("text", ["", "   ", "x" * 17, "A\\B", "PACS\n", "PÄCS", "A\0"])
def test_what_it_cannot(text: str) -> None:
    with pytest.raises(Refused) as caught:
        ae_title(text)
    assert caught.value.status == 400


def test_differences_are_said_for_people() -> None:
    before = {"move_via": "router", "services": ["echo", "store"], "tls": True, "gone": 1, "a": ""}
    after = {"move_via": "device", "services": [], "tls": False, "new": 1, "a": "b"}
    assert differences(before, after) == (
        "move via: router -> device; services: echo, store -> none; tls: yes -> no; a: none -> b"
    )
    assert differences(before, before) == ""
