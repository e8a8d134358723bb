"""How values are written on pages: sizes, times, counts, and texts that somebody else chose."""

import time
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from markupsafe import Markup

NOTHING: Final = "–"
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEPS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def size(number: float | None) -> str:
    """Bytes in words, with three digits: "1.25 GiB"."""
    if number is None:
        return NOTHING
    value = float(number)
    for unit in _UNITS:
        if abs(value) < 1000 or unit == _UNITS[-1]:
            break
        value /= 1024
    if unit == "bytes":
        return f"{int(value)} {'byte' if int(value) == 1 else unit}"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def rate(number: float | None) -> str:
    """Bytes a second in words."""
    return NOTHING if number is None else f"{size(number)}/s"


def count(number: float | None) -> str:
    """A whole number with its thousands apart."""
    return (
        NOTHING if number is None else f"{int(number):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    )


def plural(number: int, one: str, many: str = "") -> str:
    """ "1 device", "2 devices"; `many` where it is not `one` with an s."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def when(value: float | str | None, missing: str = "never") -> Markup:
    """A time, of Unix seconds or ISO 8601: in UTC, which relay.js writes as the reader's own."""
    if value is None or value == "":
        return Markup('<span class="quiet">{}</span>').format(missing)
    moment = _moment(value)
    return Markup('<time datetime="{}" data-local>{} UTC</time>').format(
        moment.strftime("%Y-%m-%dT%H:%M:%SZ"), moment.strftime("%Y-%m-%d %H:%M:%S")
    )


def ago(value: float | str | None, missing: str = "never") -> Markup:
    """How long ago (or in how long) that is, which relay.js keeps true; the time itself is its
    title."""
    if value is None or value == "":
        return Markup('<span class="quiet">{}</span>').format(missing)
    moment = _moment(value)
    seconds = time.time() - moment.timestamp()
    words = "just now"
    if abs(seconds) >= 1:
        words = f"{duration(abs(seconds))} ago" if seconds > 0 else f"in {duration(-seconds)}"
    return Markup('<time datetime="{}" title="{} UTC" data-ago>{}</time>').format(
        moment.strftime("%Y-%m-%dT%H:%M:%SZ"), moment.strftime("%Y-%m-%d %H:%M:%S"), words
    )


def duration(seconds: float | None) -> str:
    """Seconds in the largest unit that fits: "3 minutes"."""
    if seconds is None:
        return NOTHING
    for length, unit in _STEPS:
        if seconds >= length:
            return plural(int(seconds // length), unit)
    return f"{round(seconds, 1):g} seconds"


def plain(text: Any) -> str:
    """`text` with what cannot be seen as escapes: control and format characters, lone surrogates.

    A right-to-left override in a device's name turns nothing around, and a newline ends no row.
    """
    return "".join(
        letter
        if letter == " " or unicodedata.category(letter) not in _UNSEEN
        else letter.encode("unicode_escape").decode("ascii")
        for letter in str(text)
    )


_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _moment(value: float | str) -> datetime:
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return datetime.fromtimestamp(value, UTC)


def said(words: Any) -> Markup:
    """What Relay says, with what it has between backticks (commands, keys) as code."""
    parts = plain(words).split("`")
    if len(parts) % 2 == 0:  # one of them is alone, and so no mark
        parts = ["`".join(parts)]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else Markup("{}").format(part)
        for number, part in enumerate(parts)
    )


def sentence(words: Any) -> Markup:
    """Words of a refusal, which begin small and have no full stop, as a sentence of their own."""
    text = str(words)
    text = text[:1].upper() + text[1:]
    return said(text if text.endswith((".", "?", "!", "…")) else text + ".")


def foreign(text: Any) -> Markup:
    """A text that somebody else chose, in a <bdi>: what stands around it keeps its order."""
    return Markup("<bdi>{}</bdi>").format(plain(text))


FILTERS: Mapping[str, Callable[..., Any]] = {
    "size": size,
    "rate": rate,
    "count": count,
    "plural": plural,
    "when": when,
    "ago": ago,
    "duration": duration,
    "plain": plain,
    "foreign": foreign,
    "said": said,
    "sentence": sentence,
}
