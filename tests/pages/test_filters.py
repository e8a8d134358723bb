"""How values are written."""

import time

import pytest

from relay.pages.filters import (
    ago,
    count,
    duration,
    foreign,
    plain,
    plural,
    rate,
    said,
    sentence,
    size,
    when,
)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (None, "–"),
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "0.98 KiB"),
        (1536, "1.50 KiB"),
        (20 * 2**20, "20.0 MiB"),
        (300 * 2**30, "300 GiB"),
        (2**60, "1024 PiB"),
    ],
)
def test_sizes(number: int | None, words: str) -> None:
    assert size(number) == words


def test_counts() -> None:
    assert (count(None), count(999), count(1234567)) == ("–", "999", "1\u202f234\u202f567")
    assert (plural(1, "device"), plural(2, "device")) == ("1 device", "2 devices")
    assert plural(0, "study", "studies") == "0 studies"
    assert (rate(2048), rate(None)) == ("2.00 KiB/s", "–")


def test_times() -> None:
    shown = when(1_800_000_000)
    assert shown == (
        '<time datetime="2027-01-15T08:00:00Z" data-local>2027-01-15 08:00:00 UTC</time>'
    )
    assert when("2027-01-15T09:00:00+01:00") == shown
    assert when("2027-01-15T08:00:00") == shown
    assert "never" in when(None)
    assert "&lt;" in when(None, "<")


def test_how_long_ago() -> None:
    assert ">2 hours ago<" in ago(time.time() - 7300)
    assert ">in 1 minute<" in ago(time.time() + 90)
    assert "never" in ago(None)
    assert (duration(86400), duration(59.9), duration(0.2)) == (
        *("1 day", "59 seconds", "0.2 seconds"),
    )
    assert (duration(0), duration(1e-9)) == ("0 seconds", "0 seconds")
    assert duration(None) == "–"


def test_what_cannot_be_seen_is_escaped() -> None:
    assert plain("a\n\u202e\u200b\x00\x7f\ue000\u2028b") == (
        "a\\n\\u202e\\u200b\\x00\\x7f\\ue000\\u2028b"
    )
    assert plain("Zoë 山田 مستشفى 🏥") == "Zoë 山田 مستشفى 🏥"
    assert plain("\ud800") == "\\ud800"
    assert plain(7) == "7"


def test_a_refusal_becomes_a_sentence() -> None:
    assert sentence("no device CT: add it") == "No device CT: add it."
    assert sentence("Done.") == "Done."
    assert sentence("a\n'") == "A\\n&#39;."


def test_commands_in_words_are_code() -> None:
    assert said("run `relay status`, <b>") == "run <code>relay status</code>, &lt;b&gt;"
    assert said("`<a>`\u202e`b`") == "<code>&lt;a&gt;</code>\\u202e<code>b</code>"
    assert said("a ` alone") == "a ` alone"
    assert said("") == ""


def test_a_foreign_text_is_text() -> None:
    assert foreign("<b>'\"&\u202e") == "<bdi>&lt;b&gt;&#39;&#34;&amp;\\u202e</bdi>"
