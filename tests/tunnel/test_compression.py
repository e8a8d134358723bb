"""Compression of bodies: what comes back, what is left alone, and what a reader does not take."""

import itertools
import os
import random
import struct
import threading
from collections.abc import Iterable

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ChunkError
from relay.tunnel.compression import (
    FAST_LEVEL,
    LEVEL,
    SAMPLE_SIZE,
    SLOW_LEVEL,
    TIMED_RUNS,
    TRUSTED_BODIES,
    UNTIMED_BODIES,
    WHOLE_BELOW,
    Compression,
    Compressor,
    Decompressor,
    Filter,
    Trial,
    Way,
    delta,
    shuffle,
    undelta,
    unshuffle,
)
from tests import images

NOISE = random.Random(1)
IMAGE = struct.pack("<40000H", *(int(NOISE.gauss(1000, 30)) for _ in range(40000)))
WORDS = b" ".join(b"%d times" % (i * i % 1000) for i in range(9000))
# As long as a sample, so that a trial's share is that of the whole.
LONE = IMAGE[:SAMPLE_SIZE]
WAYS = [Way(filter_, level) for filter_ in Filter for level in (FAST_LEVEL, LEVEL, SLOW_LEVEL)]


class Clock:
    """Each run that is timed takes so long for each byte: `costs` in turn, the last for good."""

    def __init__(self, *costs: float) -> None:
        runs = [cost for cost in costs for _ in range(TIMED_RUNS)]
        self._costs = itertools.chain(runs, itertools.repeat(costs[-1]))
        self._now = 0.0
        self.runs = 0
        self._runs = False

    def __call__(self) -> float:
        if self._runs:
            self._now += next(self._costs) * SAMPLE_SIZE
            self.runs += 1
        self._runs = not self._runs
        return self._now


def share(way: Way, body: bytes = LONE) -> float:
    return len(way.pack(body)) / len(body)


def choices(
    compressor: Compressor, bodies: Iterable[bytes], rate: float | None = None
) -> list[tuple[Compression, Filter]]:
    return [compressor.compress(body, rate)[:2] for body in bodies]


def ready(*costs: float, bulk: bool = True) -> tuple[Compressor, Clock]:
    """A compressor past the bodies for which nothing is timed."""
    clock = Clock(*costs)
    compressor = Compressor(clock, bulk=bulk)
    for _ in range(UNTIMED_BODIES):
        compressor.compress(LONE, 1.0)
    assert clock.runs == 0
    return compressor, clock


SHUFFLED = (Compression.ZSTD, Filter.SHUFFLE)
DELTAS = (Compression.ZSTD, Filter.DELTA)
PLAIN = (Compression.ZSTD, Filter.NONE)
AS_IT_IS = (Compression.NONE, Filter.NONE)


def shuffled(plain: bytes) -> bytes:
    into = np.empty(len(plain), np.uint8)
    shuffle(plain, into)
    return into.tobytes()


def deltas(plain: bytes) -> bytes:
    into = np.empty(len(plain), np.uint8)
    delta(np.frombuffer(plain, np.uint8), into)
    return into.tobytes()


@given(st.binary(max_size=1000))
def test_what_the_filters_do_is_undone(plain: bytes) -> None:
    assert unshuffle(np.frombuffer(shuffled(plain), np.uint8)).tobytes() == plain
    assert undelta(np.frombuffer(deltas(plain), np.uint8)).tobytes() == plain


def test_the_filters_by_example() -> None:
    assert shuffled(b"AaBbCcD") == b"ABCDabc"
    assert deltas(b"\x05\x07\x07\x01\xff\x00") == b"\x05\x02\x00\xfa\xfe\x01"


def test_a_body_at_an_odd_address_is_filtered_as_any_other() -> None:
    for filter_ in Filter:
        packed = Way(filter_, LEVEL).pack(memoryview(b"x" + IMAGE)[1:])
        assert packed == Way(filter_, LEVEL).pack(IMAGE)


def test_smooth_pixels_are_told_by_their_differences() -> None:
    noise, value, pixels = random.Random(3), 1000, []
    for _ in range(100_000):
        value = min(max(value + int(noise.gauss(0, 3)), 0), 4095)
        pixels.append(value)
    body = struct.pack("<100000H", *pixels)
    assert choices(Compressor(), [body]) == [DELTAS]
    # What is sent one by one does not wait for the far end to sum them up.
    assert choices(Compressor(bulk=False), [body]) == [SHUFFLED]


def test_images_are_shuffled_and_text_is_not() -> None:
    assert choices(Compressor(), [IMAGE]) == [SHUFFLED]
    assert choices(Compressor(), [WORDS]) == [PLAIN]


@pytest.mark.parametrize("body", [b"", bytes(511), os.urandom(100_000)], ids=["", "short", "noise"])
def test_what_does_not_gain_is_left_alone(body: bytes) -> None:
    assert Compressor().compress(body) == (Compression.NONE, Filter.NONE, body)


def test_what_gains_only_in_the_middle_is_left_alone() -> None:
    noise = os.urandom(2_000_000)
    body = noise[:1_000_000] + bytes(40_000) + noise[1_000_000:]
    assert Compressor().compress(body)[0] == Compression.NONE


RATES = st.none() | st.floats(1, 1e12)


@given(st.lists(st.tuples(st.binary(max_size=5000), st.integers(1, 40), RATES), max_size=9))
def test_compression_round_trip(bodies: list[tuple[bytes, int, float | None]]) -> None:
    compressor = Compressor()
    for part, times, rate in bodies:
        for body in (part * times, memoryview(part * times)):
            compression, filter_, packed = compressor.compress(body, rate)
            if compression == Compression.ZSTD:
                assert len(packed) <= 0.95 * len(body)
                packed = Decompressor().decompress(packed, filter_, len(body))
            assert packed == body


def test_images_of_every_transfer_syntax_bit_for_bit_in_each_way() -> None:
    for image in images.shipped():
        body = image.data_set()[: 1024 * 1024]
        for way in WAYS:
            packed = way.pack(body)
            unpacked = Decompressor().decompress(packed, way.filter, len(body))
            assert unpacked == body, image.path
        compressor = Compressor()
        for rate in [None] * UNTIMED_BODIES + [12.5e6, 125e6]:
            compression, filter_, payload = compressor.compress(body, rate)
            if compression == Compression.ZSTD:
                payload = Decompressor().decompress(payload, filter_, len(body))
            assert payload == body, image.path


def test_time_is_that_of_the_link_and_that_of_the_processors() -> None:
    trial = Trial(WAYS[0], share=0.5, cost=2e-9)
    assert trial.time(250e6) == pytest.approx(4e-9)
    assert trial.time(None) == 0.5


@pytest.mark.parametrize("cost", [1e-9, 1e-6])
def test_compression_pays_on_a_link_slower_than_what_it_saves(cost: float) -> None:
    worth = (1 - share(Way(Filter.SHUFFLE, LEVEL))) / cost
    for factor, chosen in [(0.99, SHUFFLED), (1.01, AS_IT_IS)]:
        compressor, _ = ready(*[cost] * len(Filter), 1.0)
        assert choices(compressor, [LONE], factor * worth) == [chosen]


def test_on_a_link_of_which_nothing_is_known_no_cost_matters() -> None:
    clock = Clock(1.0)
    assert choices(Compressor(clock), [LONE]) == [SHUFFLED]
    assert clock.runs == 0


@pytest.mark.parametrize(
    ("rate", "cost", "cost_of_other", "level"),
    [
        # Of each filter, then of the other level that the rate suggests.
        (1e6, 2e-9, 2e-9, SLOW_LEVEL),
        (1e6, 2e-9, 9e-9, LEVEL),
        (1e8, 5e-9, 1e-9, FAST_LEVEL),
        (1e8, 5e-9, 3e-9, LEVEL),
    ],
)
def test_the_level_follows_the_link(
    rate: float, cost: float, cost_of_other: float, level: int
) -> None:
    compressor, _ = ready(*[cost] * len(Filter), cost_of_other)
    noise = random.Random(2)
    body = struct.pack("<16384H", *(int(noise.gauss(1000, 5)) for _ in range(16384)))
    packed = compressor.compress(body, rate)[2]
    assert [way.level for way in WAYS if way.pack(body) == packed] == [level]


def test_what_is_sent_one_by_one_is_never_packed_slowly() -> None:
    # Its rate is the distance's: there it would be, and be late, for next to nothing.
    levels = {}
    for bulk in (True, False):
        compressor, _ = ready(*[2e-9] * len(Filter), bulk=bulk)
        noise = random.Random(2)
        body = struct.pack("<16384H", *(int(noise.gauss(1000, 5)) for _ in range(16384)))
        packed = compressor.compress(body, 1e6)[2]
        levels[bulk] = [way.level for way in WAYS if way.pack(body) == packed]
    assert levels == {True: [SLOW_LEVEL], False: [LEVEL]}


def test_a_filter_that_costs_more_than_it_saves_is_left_out() -> None:
    saved = share(Way(Filter.NONE, LEVEL)) - share(Way(Filter.SHUFFLE, LEVEL))
    for more, chosen in [(0.9, SHUFFLED), (1.1, PLAIN)]:
        rate = 1e7
        compressor, _ = ready(1e-9, 1e-9 + more * saved / rate, 1.0)
        assert choices(compressor, [LONE], rate) == [chosen]


def test_bodies_of_one_kind_go_by_the_first_and_are_tried_again_every_so_often() -> None:
    compressor, clock = ready(1e-9)
    runs = []
    for _ in range(2 * TRUSTED_BODIES + 1):
        compressor.compress(IMAGE, 1e7)
        runs.append(clock.runs)
    once = (len(Filter) + 1) * TIMED_RUNS  # each filter, and one level more
    assert runs == [once] * TRUSTED_BODIES + [2 * once] * TRUSTED_BODIES + [3 * once]


def test_costs_are_measured_once_the_rate_is_known() -> None:
    compressor, clock = ready(1e-3)
    assert choices(compressor, [IMAGE, IMAGE]) == [SHUFFLED] * 2
    assert clock.runs == 0
    assert choices(compressor, [IMAGE], 1e9) == [AS_IT_IS]
    assert choices(compressor, [IMAGE]) == [SHUFFLED]


def test_a_rate_that_wavers_changes_nothing() -> None:
    cost = 1e-9
    worth = (1 - share(Way(Filter.SHUFFLE, LEVEL))) / cost
    compressor, _ = ready(cost)
    for factor, chosen in [
        (0.97, SHUFFLED),
        (1.03, SHUFFLED),
        (2, AS_IT_IS),
        (0.97, AS_IT_IS),
        (0.5, SHUFFLED),
        (1.03, SHUFFLED),
    ]:
        # So many that the way is chosen anew from another trial, too.
        bodies = [LONE] * (TRUSTED_BODIES + 1)
        assert choices(compressor, bodies, factor * worth) == [chosen] * len(bodies), factor


@pytest.mark.parametrize(("rate", "words"), [(None, PLAIN), (WHOLE_BELOW, PLAIN), (1e6, SHUFFLED)])
def test_what_is_of_another_kind_is_tried_by_itself(
    rate: float | None, words: tuple[Compression, Filter]
) -> None:
    noise = os.urandom(len(IMAGE))
    compressor, _ = ready(1e-9)
    ways = [Way(filter_, LEVEL) for filter_ in Filter]
    assert min(ways, key=lambda way: share(way, WORDS)).filter == SHUFFLED[1]  # of the whole
    bodies = [IMAGE, IMAGE, WORDS, WORDS, noise, IMAGE, noise, WORDS, IMAGE]
    assert choices(compressor, bodies, rate) == [
        *([SHUFFLED] * 2 + [words] * 2),
        *(AS_IT_IS, SHUFFLED, AS_IT_IS, words, SHUFFLED),
    ]


def test_an_images_black_middle_does_not_speak_for_it() -> None:
    body = IMAGE + bytes(40_000) + IMAGE
    compressor, _ = ready(1e-9)
    assert choices(compressor, [body], 1e8) == [SHUFFLED]


def test_on_a_slow_link_the_whole_body_says_what_is_left_of_it() -> None:
    body = IMAGE + bytes(40_000) + IMAGE
    assert share(Way(Filter.NONE, LEVEL), body) < share(Way(Filter.SHUFFLE, LEVEL), body)
    for rate, chosen in [(0.99 * WHOLE_BELOW, PLAIN), (WHOLE_BELOW, SHUFFLED)]:
        compressor, _ = ready(1e-12)
        assert choices(compressor, [body], rate) == [chosen]
    # Where each body waits for the one before, the rate says nothing of the link.
    compressor, _ = ready(1e-12, bulk=False)
    assert choices(compressor, [body], 1e6) == [SHUFFLED]


def test_threads_do_not_disturb_one_another() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        compressor = Compressor()
        body = IMAGE[number:]
        for _ in range(50 + UNTIMED_BODIES):
            _, filter_, packed = compressor.compress(body, 1e6)
            if Decompressor().decompress(packed, filter_, len(body)) != body:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_sessions_share_a_threads_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = zstandard.ZstdCompressor

    def counted(level: int) -> zstandard.ZstdCompressor:
        made.append(level)
        return make(level=level)

    monkeypatch.setattr(zstandard, "ZstdCompressor", counted)
    thread = threading.Thread(target=lambda: [Compressor().compress(IMAGE) for _ in range(20)])
    thread.start()
    thread.join(30)
    assert made == [LEVEL]


@pytest.mark.parametrize(
    ("window", "fits"), [(0x60, True), (0x61, False), (0x88, False), (0xA0, False)], ids=hex
)
def test_window_of_a_chunk_at_most(window: int, fits: bool) -> None:
    body = bytes(1000)
    frame = zstandard.ZstdCompressor().compress(body)
    assert frame[4] == 0x60  # a single segment, content size in 2 bytes
    widened = frame[:4] + bytes([0x40, window]) + frame[5:]
    if fits:
        assert Decompressor().decompress(widened, Filter.NONE, len(body)) == body
    else:
        with pytest.raises(ChunkError, match="window"):
            Decompressor().decompress(widened, Filter.NONE, len(body))


def test_decompression_stops_at_the_stated_length() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(200 * 1024 * 1024))
    assert len(bomb) < 50_000
    with pytest.raises(ChunkError):
        Decompressor().decompress(bomb, Filter.NONE, 1000)
