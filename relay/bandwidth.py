"""How fast Relay may send at which time of day: rules as a person writes them, and what they mean.

    "07:00-18:00 20 Mbit/s"    "mon-fri 07:00-18:00 20 Mbit/s"    "sat,sun unlimited"

Days and times are both optional, and are those of this machine's local time: what is said to be at
seven is at seven in winter and in summer, and the hour that a clock change repeats or leaves out is
repeated or left out here too. The first rule that matches holds; without one there is no limit.
"""

import re
from collections.abc import Iterable
from datetime import datetime

import attrs

# Slower than this, a chunk of 4 MiB takes longer than eight minutes: that is a line to leave alone.
LEAST_RATE = 64_000 // 8  # bytes a second
# Faster than this is no limit: an hour's mistake for one too many zeros.
MOST_RATE = 100_000_000_000 // 8

# A rule for each hour of each day is 168: more is a mistake, and each chunk looks through them.
MAXIMUM_RULES = 168

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEK = frozenset(range(7))
_MIDNIGHT = 24 * 60

# Bits a second, as lines are sold: powers of ten.
_UNITS = {"kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}

_FORM = re.compile(
    r"(?:(?P<days>[a-z]{3}(?:[-,][a-z]{3})*) )?"
    r"(?:(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d) )?"
    r"(?:(?P<number>\d{1,12}(?:\.\d{1,3})?) ?(?P<unit>[kMG]bit/s)|unlimited)",
    re.ASCII,
)
EXPECTED = 'expected a rule such as "mon-fri 07:00-18:00 20 Mbit/s" or "22:00-06:00 unlimited"'


@attrs.frozen(slots=True)
class Rule:
    """One rule. `days` are those on which the window begins, Monday is 0.

    `start` and `end` are minutes of the day; `end` is not in it, and is on the next day unless it
    is after `start`. `rate` is in bytes a second; None: no limit.
    """

    text: str
    days: frozenset[int]
    start: int
    end: int
    rate: float | None

    def holds(self, moment: datetime) -> bool:
        """Whether the local time `moment` is in it."""
        minute, day = moment.hour * 60 + moment.minute, moment.weekday()
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        evening = day in self.days and minute >= self.start
        return evening or ((day - 1) % 7 in self.days and minute < self.end)


@attrs.frozen(slots=True)
class BandwidthLimit:
    """Rules, of which the first that matches holds; without any there is no limit."""

    rules: tuple[Rule, ...] = ()

    def rate(self, moment: datetime) -> float | None:
        """Bytes a second at the local time `moment`; None: no limit. Constant within a minute."""
        return next((rule.rate for rule in self.rules if rule.holds(moment)), None)


UNLIMITED = BandwidthLimit()


def parse(texts: Iterable[str]) -> BandwidthLimit:
    """The limit that these rules make. Raises ValueError: which rule, and what was expected."""
    rules = tuple(_rule(text) for text in texts)
    if len(rules) > MAXIMUM_RULES:
        raise ValueError(f"expected at most {MAXIMUM_RULES} rules")
    return BandwidthLimit(rules)


def _rule(text: str) -> Rule:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r}: {EXPECTED}")
    days = _WEEK if match["days"] is None else _days(text, match["days"])
    start = 0 if match["start"] is None else _minute(text, match["start"], last=_MIDNIGHT - 1)
    end = _MIDNIGHT if match["end"] is None else _minute(text, match["end"], last=_MIDNIGHT)
    if start == end:
        raise ValueError(f"{text!r}: begins when it ends; leave the times out for the whole day")
    rate = None
    if match["number"] is not None:
        rate = float(match["number"]) * _UNITS[match["unit"]] / 8
        if not LEAST_RATE <= rate <= MOST_RATE:
            raise ValueError(f"{text!r}: expected a rate from 64 kbit/s to 100 Gbit/s")
    return Rule(text, days, start, end, rate)


def _days(text: str, words: str) -> frozenset[int]:
    """Days and spans of them: "mon-fri", "sat,sun", "fri-mon,wed"."""
    found: set[int] = set()
    for span in words.split(","):
        ends = span.split("-")
        unknown = [day for day in ends if day not in _DAYS]
        if unknown or len(ends) > 2:
            raise ValueError(f"{text!r}: expected days as {', '.join(_DAYS)}, such as mon-fri")
        first, last = _DAYS.index(ends[0]), _DAYS.index(ends[-1])
        found.update((first + offset) % 7 for offset in range((last - first) % 7 + 1))
    return frozenset(found)


def _minute(text: str, clock: str, *, last: int) -> int:
    hour, minute = int(clock[:2]), int(clock[3:])
    if minute > 59 or (total := hour * 60 + minute) > last:
        raise ValueError(f"{text!r}: {clock} is no time of the day")
    return total
