"""Compression of a chunk's bodies, each by itself (PROTOCOL.md §11).

Whether a body is compressed, and how, follows from what it is and from how fast the link is: a body
is sent in the way that takes the least time for each of its bytes,

    time = share / rate + cost

where `share` is what is left of a byte, `rate` the bytes that the link takes in a second (of all
flows that share it), and `cost` the processor time that packing a byte here and unpacking it there
takes. For a body as it is that is 1 / rate. So compression pays where the link needs longer for
what is saved than the processors for saving it: rate < (1 - share) / cost, 200 to 400 MB/s for CT
images; and a way that packs better pays the more the slower the link is. The two are added although
a body is packed while the one before it is under way: the processors have other work to do
meanwhile.

Share and cost are measured on a sample of the very body (on a slow link the share on all of it),
and hold for those behind it until they pack otherwise: the data knows better than its transfer
syntax what it holds.
"""

import threading
import time
from collections.abc import Callable
from enum import IntEnum

import attrs
import numpy as np
import zstandard
from numpy.typing import NDArray

from relay.dicom.pdu import Buffer
from relay.errors import ChunkError

# Head and body together, in plain. Bounds what a reader sets aside for one chunk.
MAXIMUM_CHUNK = 4 * 1024 * 1024
# Under this a zstd frame's own overhead and the call cost more than they gain.
MINIMUM_COMPRESSIBLE = 512
# A body is tried by pieces from all over it: one alone may be nothing but an image's black border.
SAMPLE_PIECES, PIECE_SIZE = 4, 8 * 1024
SAMPLE_SIZE = SAMPLE_PIECES * PIECE_SIZE
# On a link that takes fewer bytes a second the shares are those of the whole body, where many
# follow: of a CT delta leaves 0.44, and of a sample 0.51, in which high and low bytes share a code.
# There is time: a body of 0.5 MB takes that link 20 ms, and to pack it in each of the ways 3.
WHOLE_BELOW = 16e6
# Compression that gains less than one part in twenty is not worth the reader's time.
WORTH_IT = 0.95
# Levels of zstd for a link of which nothing is known, for one that is faster than the processors
# (it leaves out Huffman coding: two thirds of the time for some 15% more bytes), and for a slower
# one (up to 12% fewer bytes for half as much time again). The levels between and above are no
# better than these in both (scripts/benchmark/compression.py).
LEVEL, FAST_LEVEL, SLOW_LEVEL = 1, -5, 3
# A sample is timed so often: with cold caches, or beside others, it may take three times as long.
TIMED_RUNS = 3
# Bodies that go by what was measured on the first of them: to measure a sample takes some 1 ms, two
# to four times as long as to pack a CT image, and below WHOLE_BELOW three of those more.
TRUSTED_BODIES = 32
# Nothing is timed for a session's first bodies: many a session has no more.
UNTIMED_BODIES = 3
# A body that packs so many times better or worse than the one before is of another kind.
SURPRISE = 1.25
# How much less time another way must take: a rate that wavers is not to change the way each time.
BETTER = 0.95


class Compression(IntEnum):
    NONE = 0
    ZSTD = 1


class Filter(IntEnum):
    NONE = 0
    SHUFFLE = 1  # bytes at even offsets, then those at odd ones: high bytes of 16-bit samples
    DELTA = 2  # the same, and of each byte how far it is from the one before, modulo 256


Array = NDArray[np.uint8]


def shuffle(data: Buffer, into: Array) -> None:
    """Fill `into`, which is as long, with the bytes at even offsets, then those at odd ones."""
    size = len(data)
    # As 16-bit numbers: a sixth of the time of two slices with a step.
    pairs = np.frombuffer(data, "<u2", size // 2)
    into[: size // 2] = pairs
    np.right_shift(pairs, 8, out=into[size - size // 2 :], casting="unsafe")
    if size % 2:
        into[size // 2] = data[-1]


def unshuffle(shuffled: Array) -> Array:
    """The inverse of `shuffle`."""
    size = len(shuffled)
    plain = np.empty(size, np.uint8)
    pairs = plain[: size // 2 * 2].view("<u2")
    pairs[:] = shuffled[size - size // 2 :]
    pairs <<= 8
    pairs |= shuffled[: size // 2]
    if size % 2:
        plain[-1] = shuffled[size // 2]
    return plain


def delta(data: Array, into: Array) -> None:
    """Fill `into`, which is as long, with each byte less the one before it, modulo 256."""
    into[:1] = data[:1]
    np.subtract(data[1:], data[:-1], out=into[1:])


def undelta(differences: Array) -> Array:
    """The inverse of `delta`."""
    return np.add.accumulate(differences, dtype=np.uint8)


class _PerThread(threading.local):
    """What each thread keeps from one body to the next.

    One zstd context for each level: sessions are many, and each takes 1.3 MiB. And memory for what
    is filtered before it is packed: a third of the time of packing a CT image was for new pages.
    """

    def __init__(self) -> None:
        self._shuffled = self._differences = np.empty(0, np.uint8)
        self._compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor()

    def compressor(self, level: int) -> zstandard.ZstdCompressor:
        if level not in self._compressors:
            self._compressors[level] = zstandard.ZstdCompressor(level=level)
        return self._compressors[level]

    def filter(self, how: Filter, body: Buffer) -> Buffer:
        """What this filter makes of `body`, until the next call in this thread."""
        if how == Filter.NONE:
            return body
        size = len(body)
        if len(self._shuffled) < size:
            self._shuffled = np.empty(size, np.uint8)
        shuffled = self._shuffled[:size]
        shuffle(body, shuffled)
        if how == Filter.SHUFFLE:
            return shuffled.data
        if len(self._differences) < size:
            self._differences = np.empty(size, np.uint8)
        delta(shuffled, self._differences[:size])
        return self._differences[:size].data


def _unfilter(how: Filter, filtered: bytes) -> Buffer:
    """The inverse of `_PerThread.filter`."""
    if how == Filter.NONE:
        return filtered
    shuffled = np.frombuffer(filtered, np.uint8)
    return unshuffle(undelta(shuffled) if how == Filter.DELTA else shuffled).data


_thread = _PerThread()


@attrs.frozen(slots=True)
class Way:
    """How a body may be packed: a zstd frame of this level over what the filter gives."""

    filter: Filter
    level: int

    def pack(self, body: Buffer) -> bytes:
        """The frame. No state outlives it."""
        return _thread.compressor(self.level).compress(_thread.filter(self.filter, body))


@attrs.frozen(slots=True)
class Trial:
    """What a way does: the share that is left of a body, at what seconds for each byte."""

    way: Way | None  # None: as it is
    share: float
    cost: float

    def time(self, rate: float | None) -> float:
        """Seconds for each byte of a body by the law above; with no rate, in units of the link's.

        A link of which nothing is known is taken to be so slow that no cost matters.
        """
        return self.share if rate is None else self.share / rate + self.cost


AS_IT_IS = Trial(None, 1.0, 0.0)


class Compressor:
    """Compresses a session's bodies, each by itself. Not for two threads at once.

    `clock` gives seconds of processor time, of the calling thread alone: what runs beside it is no
    cost of compression.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time, *, bulk: bool = True) -> None:
        """`bulk`: many bodies are on their way at once, so that the rate is the link's. Where each
        waits for the one before, it is mostly the distance's, and says nothing of how slow a link
        is. What waits for DELTA's sums at the far end would be late, by 1 ms for a CT image, and by
        0.8 where the rate has SLOW_LEVEL chosen over 1 Gbit/s, for 2% fewer bytes.
        """
        self._bulk = bulk
        self._filters = [one for one in Filter if bulk or one != Filter.DELTA]
        self._slow_level = SLOW_LEVEL if bulk else LEVEL
        self._clock = clock
        self._decompressor = Decompressor()
        self._bodies = 0
        self._trials: list[Trial] = []
        self._timed = False  # the trials' costs are known
        self._trusted = 0  # how many bodies may still go by the trials
        self._chosen: Trial | None = None
        self._share: float | None = None  # of the last body that went the chosen way

    def compress(
        self, body: Buffer, rate: float | None = None
    ) -> tuple[Compression, Filter, Buffer]:
        """How the body is best carried, and so carried.

        `rate`: the bytes that the link takes in a second when there is enough to send, above 0.
        None: not known yet; the link is taken to be slow, as it is for a session's first bodies.
        """
        if len(body) < MINIMUM_COMPRESSIBLE:
            return Compression.NONE, Filter.NONE, body
        self._bodies += 1
        if self._bodies <= UNTIMED_BODIES:
            rate = None
        tried = not self._trusted or (rate is not None and not self._timed)
        if tried:
            self._try(body, rate)
        chosen = self._choose(rate)
        packed = chosen.way.pack(body) if chosen.way else body
        if not tried and self._is_surprising(len(packed) / len(body)):
            self._chosen = None
            self._try(body, rate)
            other = self._choose(rate)
            if other.way != chosen.way:
                chosen = other
                packed = chosen.way.pack(body) if chosen.way else body
        self._trusted = max(0, self._trusted - 1)
        if chosen.way is None:
            return Compression.NONE, Filter.NONE, body
        self._share = len(packed) / len(body)
        if self._share > WORTH_IT:
            self._trusted = 0  # the sample was unlike the whole
            return Compression.NONE, Filter.NONE, body
        return Compression.ZSTD, chosen.way.filter, packed

    def _is_surprising(self, share: float) -> bool:
        return self._share is not None and not 1 / SURPRISE < share / self._share < SURPRISE

    def _choose(self, rate: float | None) -> Trial:
        """The way that takes the least time; the last one still, if none is clearly better."""
        best = min((AS_IT_IS, *self._trials), key=lambda trial: trial.time(rate))
        last = self._chosen
        if last is None or best.time(rate) < BETTER * last.time(rate):
            self._chosen = best
            self._share = None
            return best
        return last

    def _try(self, body: Buffer, rate: float | None) -> None:
        """Measure on `body`, mostly on a sample, what the ways do that may be best at this rate."""
        sample = _sample(body)
        whole = body if self._bulk and rate is not None and rate < WHOLE_BELOW else sample
        if not self._timed:
            self._chosen = None  # costs had no say in it
        # The time of less than a sample is mostly that of the calls.
        self._timed = rate is not None and len(sample) == SAMPLE_SIZE
        ways = [Way(filter_, LEVEL) for filter_ in self._filters]
        self._trials = self._measure(ways, sample, whole)
        if self._trials and self._timed and rate is not None:
            best = min(self._trials, key=lambda trial: trial.time(rate))
            assert best.way is not None
            level = FAST_LEVEL if best.cost > best.share / rate else self._slow_level
            if level != LEVEL:
                self._trials += self._measure([Way(best.way.filter, level)], sample, whole)
        # What does not gain costs next to nothing to try again, and the next body may well gain.
        self._trusted = TRUSTED_BODIES if self._trials else 0
        if self._chosen is not None:
            same = (one for one in (AS_IT_IS, *self._trials) if one.way == self._chosen.way)
            self._chosen = next(same, None)

    def _measure(self, ways: list[Way], sample: bytes, whole: Buffer) -> list[Trial]:
        """A trial of each of the ways that is worth it by the sample: what is left of `whole`, and
        what it costs for the sample."""
        trials = []
        for way in ways:
            packed = way.pack(sample)
            if len(packed) <= WORTH_IT * len(sample):
                cost = self._cost(way, sample, packed) if self._timed else 0.0
                left = packed if whole is sample else way.pack(whole)
                trials.append(Trial(way, len(left) / len(whole), cost))
        return trials

    def _cost(self, way: Way, sample: bytes, packed: bytes) -> float:
        """Seconds for each byte, to pack and to unpack: the least, nothing makes it too low."""
        seconds = []
        for _ in range(TIMED_RUNS):
            begun = self._clock()
            way.pack(sample)
            self._decompressor.decompress(packed, way.filter, len(sample))
            seconds.append(self._clock() - begun)
        return min(seconds) / len(sample)


def _sample(body: Buffer) -> bytes:
    """SAMPLE_SIZE bytes of the body, or all of a shorter one."""
    if len(body) <= SAMPLE_SIZE:
        return bytes(body)
    part = len(body) // SAMPLE_PIECES
    # From the middle of each part; all at even offsets, so that 16-bit samples stay what they are.
    starts = [(part * number + (part - PIECE_SIZE) // 2) & ~1 for number in range(SAMPLE_PIECES)]
    return b"".join([body[start : start + PIECE_SIZE] for start in starts])


class Decompressor:
    """Undoes `Compressor`, never giving more than was announced."""

    def decompress(self, packed: Buffer, filter_: Filter, length: int) -> Buffer:
        """The `length` bytes of a body. Raises ChunkError if the frame holds more, less or else."""
        try:
            frame = zstandard.get_frame_parameters(packed)
            if frame.content_size != length:
                # Checked first: the library sets aside what the frame states.
                raise ChunkError(f"zstd frame states another length than the chunk's {length}")
            if frame.window_size > MAXIMUM_CHUNK or frame.dict_id:
                raise ChunkError("zstd frame needs a larger window than a chunk, or a dictionary")
            plain = _thread.decompressor.decompress(
                packed, max_output_size=length, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise ChunkError(f"zstd: {error}") from None
        if len(plain) != length:
            raise ChunkError(f"body of {len(plain)} bytes, not {length}")
        return _unfilter(filter_, plain)
