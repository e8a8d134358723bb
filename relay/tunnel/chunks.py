"""Chunks in plain: records gathered until there is something worth sealing (PROTOCOL.md §10, §11).

A chunk is a head, never compressed (commands, identifiers, notes, the association's own records,
and data sets that are compressed already), and a body: fragments of one data set that is worth
compressing. The records of the head come first. No compression context outlives a chunk, and a body
holds one object's bytes only, so that no object's content shows in the size of another's.
"""

import attrs

from relay.dicom.pdu import PDV, Buffer
from relay.errors import ChunkError
from relay.tunnel import records
from relay.tunnel.compression import MAXIMUM_CHUNK
from relay.tunnel.records import Record

# Big enough that one object-store round trip (50 to 100 ms) is small beside its transfer, small
# enough that several in flight each way fit in memory for many associations.
TARGET_SIZE = 1024 * 1024
# Where many objects follow, a flow's first chunks are small, and so many that each PUT has one: new
# connections carry 14 KiB in their first round trip and double that in each (RFC 5681 §3.1,
# RFC 6928), so that together they bring the first CT within two; one of them alone takes five.
FIRST_TARGET, FIRST_CHUNKS = 64 * 1024, 8
MINIMUM_TARGET = 1024
# A body ends its chunk, so a chunk holds one compressible object at the most. Whoever sends many
# objects gives those below this as not compressible: then dozens share a chunk, and its round trip
# to the store. What compressing one of them would save takes less time than such a round trip.
SMALL_OBJECT = 16 * 1024


@attrs.frozen(slots=True)
class Chunk:
    """Whole records: those of the head, then those of the body. `final` ends the session."""

    head: Buffer
    body: Buffer = b""
    final: bool = False

    def records(self) -> list[Record]:
        """The records in order; fragments are views of this chunk.

        Raises ChunkError if a record is none, the body holds more than fragments of one data set,
        or what ends a session is not the last of a final chunk, or anything else is.
        """
        head, body = records.decode(self.head), records.decode(self.body)
        _check_body(body)
        both = head + body
        ends = [isinstance(record, records.FINAL_ATOMS) for record in both]
        if ends.count(True) != self.final or (self.final and not ends[-1]):
            raise ChunkError("final chunk and final record do not agree")
        return both


def _check_body(body: list[Record]) -> None:
    fragments = [record for record in body if isinstance(record, PDV) and not record.is_command]
    if len(fragments) < len(body) or len({pdv.context_id for pdv in fragments}) > 1:
        raise ChunkError("chunk's body holds more than fragments of one data set")
    if any(pdv.is_last for pdv in fragments[:-1]):
        raise ChunkError("chunk's body goes on behind its data set's last fragment")


class ChunkBuilder:
    """Takes what a session says and cuts chunks out of it.

    A chunk is full at `target` bytes, the FIRST_CHUNKS at `first_target`; `cut` makes one of what
    is there when a message ends and nothing is waiting behind it. Fragments are kept as they came
    and joined once.
    """

    def __init__(self, target: int = TARGET_SIZE, first_target: int | None = None) -> None:
        if not MINIMUM_TARGET <= target <= MAXIMUM_CHUNK:
            raise ValueError(f"target must be {MINIMUM_TARGET} to {MAXIMUM_CHUNK} bytes")
        self._target = first_target or target
        self._later_target = target
        self._chunks = 0
        self._clear()

    def _clear(self) -> None:
        self._head: list[Buffer] = []
        self._body: list[Buffer] = []
        self._size = 0
        self._records = 0
        self._open: _OpenRecord | None = None

    def aim(self, target: int) -> None:
        """From now on a chunk is full at `target` bytes; the FIRST_CHUNKS as they are."""
        if self._target == self._later_target:
            self._target = target
        self._later_target = target

    @property
    def pending(self) -> int:
        """Bytes that wait for `cut`."""
        return self._size

    def add(self, record: Record, *, compressible: bool = False) -> list[Chunk]:
        """Take `record`; give the chunks that it filled.

        `compressible` says that a data set's transfer syntax is uncompressed: then its fragments go
        to the body. It has no effect on commands, notes and the association's own records. Small
        data sets are better off without; see SMALL_OBJECT.
        """
        if isinstance(record, PDV):
            return self._add_pdv(record, compressible and not record.is_command)
        encoded = records.encode(record)
        if len(encoded) > MAXIMUM_CHUNK:
            raise ChunkError(f"record of {len(encoded)} bytes; a chunk holds {MAXIMUM_CHUNK}")
        full = []
        if self._body or self._is_full or self._size + len(encoded) > self._target:
            full += self._cut_if_any()
        self._close_record(is_last=False)
        self._head.append(encoded)
        self._records += 1
        self._size += len(encoded)
        return full

    def cut(self, *, final: bool = False) -> Chunk | None:
        """A chunk of all that is there; None when nothing is."""
        if not self._size:
            return None
        self._close_record(is_last=False)
        chunk = Chunk(_join(self._head), _join(self._body), final)
        self._chunks += 1
        if self._chunks == FIRST_CHUNKS:
            self._target = self._later_target
        self._clear()
        return chunk

    def _add_pdv(self, pdv: PDV, to_body: bool) -> list[Chunk]:
        full: list[Chunk] = []
        rest = memoryview(pdv.fragment)
        while True:
            kind = (pdv.context_id, pdv.is_command, to_body)
            merges = self._open is not None and self._open.kind == kind
            # Its data set has ended, or something else begins; or there are records enough.
            if not merges and (self._body or self._is_full):
                full += self._cut_if_any()
            room = self._target - self._size - (0 if merges else records.PDV_OVERHEAD)
            if room < 2 and self._size and len(rest) > room:
                full += self._cut_if_any()
                continue
            if not merges:
                self._begin_record(kind)
            # A fragment is of even length (PS3.8 §E.2), so only even parts are split off.
            taken = len(rest) if len(rest) <= room else room & ~1
            self._append(rest[:taken])
            rest = rest[taken:]
            if not rest:
                break
        if pdv.is_last:
            self._close_record(is_last=True)
        if self._target - self._size < records.PDV_OVERHEAD + 2:
            full += self._cut_if_any()
        return full

    def _cut_if_any(self) -> list[Chunk]:
        chunk = self.cut()
        return [] if chunk is None else [chunk]

    def _begin_record(self, kind: tuple[int, bool, bool]) -> None:
        self._close_record(is_last=False)
        parts = self._body if kind[2] else self._head
        self._open = _OpenRecord(kind, parts, len(parts))
        parts.append(b"")  # its header, when its length is known
        self._size += records.PDV_OVERHEAD
        self._records += 1

    @property
    def _is_full(self) -> bool:
        return self._records == records.MAXIMUM_RECORDS

    def _append(self, fragment: memoryview) -> None:
        assert self._open is not None
        if not fragment:
            return  # a sender of nothing but empty fragments must not fill our memory
        self._open.parts.append(fragment)
        self._open.length += len(fragment)
        self._size += len(fragment)

    def _close_record(self, *, is_last: bool) -> None:
        record, self._open = self._open, None
        if record is not None:
            context_id, is_command, _ = record.kind
            record.parts[record.start] = records.pdv_header(
                context_id, is_command, is_last, record.length
            )


@attrs.define(slots=True)
class _OpenRecord:
    kind: tuple[int, bool, bool]  # context, command?, in the body?
    parts: list[Buffer]
    start: int
    length: int = 0


def _join(parts: list[Buffer]) -> Buffer:
    return parts[0] if len(parts) == 1 else b"".join(parts)
