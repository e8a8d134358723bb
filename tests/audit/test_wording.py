"""What was changed, in words: for every operation that changes something, of both modes."""

import re

import pytest

from relay.audit import changes
from relay.audit.wording import REPLACED, Words, words_of
from scripts.rest_reference import bridge_operations, router_operations

# What only looks, or is told as a search.
LOOKS = changes._ONLY_LOOK | changes._SEARCHES.keys()

CHANGES = sorted(
    {
        f"{operation.method} {operation.template}"
        for operation in (*router_operations(), *bridge_operations())
        if operation.method != "GET" and operation.path not in LOOKS
    }
)

DEVICE = {"ae_title": "CT1", "host": "10.0.0.5", "port": 104, "services": ["echo", "store"]}


@pytest.mark.parametrize("operation", CHANGES)
def test_each_operation_has_words(operation: str) -> None:
    words = words_of(operation, {})
    assert words is not None
    for name in re.findall(r"{(\w+)}", operation):
        assert name in words.names, "what a path names is said"
    said = words.sentence({name: "X" for name in words.names}, done=True)
    assert re.fullmatch(r"[A-Z][^{}\[\]/]*", said), "words, and not REST"
    assert said.isprintable()


def test_what_is_not_said_is_left_out() -> None:
    words = words_of("POST /v1/devices", {})
    assert words is not None
    assert words.sentence(DEVICE, done=True) == (
        "Added the device CT1 at 10.0.0.5 port 104 with echo, store"
    )
    assert words.sentence(DEVICE | {"services": []}, done=False) == (
        "Tried to add the device CT1 at 10.0.0.5 port 104"
    )
    assert words.sentence({}, done=True) == "Added a device"
    assert words.sentence({"host": "10.0.0.5"}, done=False) == "Tried to add a device"


@pytest.mark.parametrize("operation", CHANGES)
def test_who_is_refused_before_a_word_is_read_tried_something_known(operation: str) -> None:
    words = words_of(operation, {})
    assert words is not None
    path = {name: "X" for name in re.findall(r"{(\w+)}", operation)}
    said = words.sentence(path, done=False)
    assert said.startswith("Tried to ")
    assert "unknown" not in said


def test_what_took_another_s_place_is_a_change() -> None:
    words = words_of("POST /v1/devices", {REPLACED: True})
    assert words is not None
    assert words.sentence({"ae_title": "CT1"}, done=True) == "Changed the device CT1"
    assert words_of("POST /v1/nothing", {REPLACED: True}) is None


def test_a_value_is_no_template_and_short() -> None:
    words = Words("add", "added", "{name}[ as {role}]")
    assert words.sentence({"name": "{role}[x]", "role": "y"}, done=True) == "Added {role}[x] as y"
    assert len(words.sentence({"name": ["a" * 200] * 999}, done=True)) < 200
