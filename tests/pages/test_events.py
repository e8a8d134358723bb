"""Events are whole lines, whatever is in them."""

import json

from relay.pages.events import OVER, event


def test_an_event_is_two_lines_and_an_empty_one() -> None:
    text = event("block", {"html": "<p>a\nb\r\u2028</p>", "id": "a"})
    name, data, *rest = text.split("\n")
    assert (name, rest) == ("event: block", ["", ""])
    assert "\r" not in text
    assert json.loads(data.removeprefix("data: ")) == {"html": "<p>a\nb\r\u2028</p>", "id": "a"}


def test_the_end() -> None:
    assert OVER == "event: over\ndata: {}\n\n"
