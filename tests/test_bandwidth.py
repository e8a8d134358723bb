"""Rules of bandwidth: what a person may write, and which holds when."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.bandwidth import (
    LEAST_RATE,
    MAXIMUM_RULES,
    MOST_RATE,
    UNLIMITED,
    parse,
)

# 2026-06-01 is a Monday.
MONDAY = datetime(2026, 6, 1)
MBIT = 1_000_000 / 8


def at(day: int, clock: str) -> datetime:
    """`day` days after that Monday, at "HH:MM"."""
    hour, minute = map(int, clock.split(":"))
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        (
            "07:00-18:00 1 Mbit/s",
            [(0, "07:00"), (6, "12:30"), (3, "17:59")],
            [(0, "06:59"), (0, "18:00"), (6, "23:59")],
        ),
        (
            "mon-fri 07:00-18:00 1 Mbit/s",
            [(0, "07:00"), (4, "17:59")],
            [(5, "07:00"), (6, "12:00"), (4, "18:00")],
        ),
        # Over midnight: the day is the one on which the night begins.
        (
            "mon-fri 22:00-06:00 1 Mbit/s",
            [(0, "22:00"), (1, "05:59"), (4, "23:59"), (5, "05:59")],
            [(0, "05:59"), (0, "21:59"), (1, "06:00"), (5, "22:00"), (6, "05:59")],
        ),
        (
            "sun 22:00-06:00 1 Mbit/s",
            [(6, "22:00"), (0, "05:59"), (7, "00:00")],
            [(6, "05:59"), (0, "22:00")],
        ),
        ("sat,sun 1 Mbit/s", [(5, "00:00"), (6, "23:59")], [(4, "23:59"), (7, "00:00")]),
        ("fri-mon,wed 1 Mbit/s", [(d, "12:00") for d in (4, 5, 6, 0, 2)], [(1, "12:00")]),
        ("tue 18:00-24:00 1 Mbit/s", [(1, "23:59")], [(2, "00:00"), (1, "17:59")]),
        ("00:00-24:00 1 Mbit/s", [(0, "00:00"), (3, "23:59")], []),
        ("1 Mbit/s", [(0, "00:00"), (6, "23:59")], []),
    ],
)
def test_when_a_rule_holds(
    rule: str, inside: list[tuple[int, str]], outside: list[tuple[int, str]]
) -> None:
    limit = parse([rule])
    assert [limit.rate(at(*moment)) for moment in inside] == [MBIT] * len(inside)
    assert [limit.rate(at(*moment)) for moment in outside] == [None] * len(outside)


def test_the_first_rule_that_matches_holds_and_without_one_there_is_no_limit() -> None:
    limit = parse(
        ["mon-fri 12:00-13:00 unlimited", "mon-fri 07:00-18:00 20 Mbit/s", "sat 2.5Mbit/s"]
    )
    assert limit.rate(at(0, "12:30")) is None
    assert limit.rate(at(0, "13:00")) == 20 * MBIT
    assert limit.rate(at(5, "12:30")) == 2.5 * MBIT
    assert limit.rate(at(6, "12:30")) is None
    assert UNLIMITED.rate(at(0, "12:30")) is None
    assert parse([]) == UNLIMITED


@pytest.mark.parametrize(
    ("rate", "expected"),
    [("64 kbit/s", LEAST_RATE), ("1 Gbit/s", 1000 * MBIT), ("100 Gbit/s", MOST_RATE)],
)
def test_rates_are_in_bits_by_powers_of_ten(rate: str, expected: float) -> None:
    assert parse([rate]).rate(MONDAY) == expected


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("", "expected a rule such as"),
        ("20", "expected a rule such as"),
        ("20 MB/s", "expected a rule such as"),
        ("20 mbit/s", "expected a rule such as"),
        ("-20 Mbit/s", "expected a rule such as"),
        ("20 Mbit/s at night", "expected a rule such as"),
        ("7:00-18:00 20 Mbit/s", "expected a rule such as"),
        ("07:00-18:00", "expected a rule such as"),
        ("07:00 20 Mbit/s", "expected a rule such as"),
        ("Mon 20 Mbit/s", "expected a rule such as"),
        ("20 Mbit/s\n", "expected a rule such as"),
        ("٢٠ Mbit/s", "expected a rule such as"),
        ("mond 20 Mbit/s", "expected a rule such as"),
        ("mon-xyz 20 Mbit/s", "expected days as mon"),
        ("mon-wed-fri 20 Mbit/s", "expected days as mon"),
        ("24:00-06:00 20 Mbit/s", "24:00 is no time of the day"),
        ("06:00-24:01 20 Mbit/s", "24:01 is no time of the day"),
        ("06:60-07:00 20 Mbit/s", "06:60 is no time of the day"),
        ("25:00-26:00 20 Mbit/s", "25:00 is no time of the day"),
        ("07:00-07:00 20 Mbit/s", "begins when it ends"),
        ("63 kbit/s", "from 64 kbit/s to 100 Gbit/s"),
        ("0 Mbit/s", "from 64 kbit/s to 100 Gbit/s"),
        ("101 Gbit/s", "from 64 kbit/s to 100 Gbit/s"),
    ],
)
def test_what_is_no_rule_is_named_with_what_was_expected(rule: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        parse(["1 Mbit/s", rule])
    assert repr(rule) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rules_without_end_are_refused() -> None:
    parse(["1 Mbit/s"] * MAXIMUM_RULES)
    with pytest.raises(ValueError, match="at most"):
        parse(["1 Mbit/s"] * (MAXIMUM_RULES + 1))


CLOCKS = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda t: f"{t[0]:02}:{t[1]:02}")
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1))


@given(CLOCKS, CLOCKS, MOMENTS)
def test_a_window_and_the_rest_of_the_day_are_the_whole_day(
    start: str, end: str, moment: datetime
) -> None:
    if start == end:
        return
    one, other = parse([f"{start}-{end} 1 Mbit/s"]), parse([f"{end}-{start} 1 Mbit/s"])
    assert (one.rate(moment) is None) is (other.rate(moment) is not None)


@given(CLOCKS, CLOCKS, MOMENTS)
def test_a_week_of_windows_day_by_day_is_the_window(start: str, end: str, moment: datetime) -> None:
    if start == end:
        return
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    each = parse(f"{day} {start}-{end} 1 Mbit/s" for day in days)
    assert each.rate(moment) == parse([f"{start}-{end} 1 Mbit/s"]).rate(moment)


@given(CLOCKS, CLOCKS, MOMENTS)
def test_nothing_changes_within_a_minute(start: str, end: str, moment: datetime) -> None:
    """The bucket looks at the clock every few seconds, and counts on it."""
    if start == end:
        return
    limit = parse([f"sat-tue {start}-{end} 1 Mbit/s"])
    begin = moment.replace(second=0, microsecond=0)
    assert limit.rate(begin) == limit.rate(moment)
