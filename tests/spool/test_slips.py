"""Slips: all that a row says comes back, and damage never gives another one's."""

import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.errors import ObjectDamaged, SpoolFull
from relay.spool.files import File, Files
from relay.spool.items import Batch, Item, Priority, State
from relay.spool.slips import MARK, MAXIMUM_SLIP, Locked, Slip, Unread, has_slip, read_slip
from relay.spool.vault import SpoolKey
from tests.spool.rows import a_batch, an_item

KEY, ANOTHER = SpoolKey(b"k" * 32), SpoolKey(b"a" * 32)
CONTENT = b"sealed content"
END = 8 + 4 + len(MARK)

Found = Slip | Locked | Unread | None
Reader = Callable[..., Found]


def a_slip(**more: Any) -> Slip:
    values = {"run": 7, "epoch": 2, "batch": a_batch(priority=Priority.HIGH), "item": an_item()}
    return Slip(**(values | more))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[bytes], File]]:
    """A file with this content, for reading."""
    files: list[File] = []

    def made(raw: bytes) -> File:
        (tmp_path / "file").write_bytes(raw)
        files.append(Files(tmp_path).open("file"))
        return files[-1]

    yield made
    for file in files:
        file.close()


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    def found(raw: bytes, item: bytes, key: SpoolKey = KEY) -> Found:
        (tmp_path / "file").write_bytes(raw)
        with closing(Files(tmp_path).open("file")) as file:
            return read_slip(file, item, key)

    return found


def same(one: Slip, other: Found) -> bool:
    """A batch is itself and no other one: what it says is compared."""
    return isinstance(other, Slip) and (
        attrs.asdict(one, recurse=True) == attrs.asdict(other, recurse=True)
    )


def sealed(text: bytes, item: bytes) -> bytes:
    """What says `text` behind the content of an item."""
    slip = KEY.seal_slip(text, item)
    return slip + struct.pack(f">8sI{len(MARK)}s", KEY.name, len(slip), MARK)


def test_all_of_it_comes_back(read: Reader) -> None:
    slip = a_slip()
    again = read(CONTENT + slip.encode(KEY), slip.item.id)
    assert again is not None
    assert same(slip, again)


_text, _count = st.text(max_size=64), st.integers(0, 2**63 - 1)
_time = st.floats(0, 1e11)
_items = st.builds(
    Item,
    number=st.just(0),
    batch=st.just(0),
    state=st.just(State.WAITING),
    hold=st.just(0),
    due=st.just(0.0),
    attempts=st.just(0),
    doubtful=st.just(False),
    alone=st.just(False),
    status=st.none(),
    reason=st.just(""),
    ended=st.none(),
    id=st.binary(min_size=16, max_size=16),
    called=_text,
    sop_class=_text,
    sop_instance=_text,
    transfer_syntax=_text,
    command=st.binary(max_size=2000),
    length=_count,
    digest=st.binary(min_size=32, max_size=32).flatmap(
        lambda made: st.sampled_from((made, b"\x01" + made))
    ),
    key=st.binary(max_size=60),
    key_name=st.binary(min_size=8, max_size=8),
    folder=_count,
    size=_count,
    accepted=_time,
    study=_text,
)
_batches = st.builds(
    Batch,
    peer=st.binary(min_size=32, max_size=32),
    called=_text,
    calling=_text,
    device=_text,
    opened=_time,
    priority=st.sampled_from(Priority),
    number=st.just(0),
    closed=st.none(),
    run=st.just(0),
    done=st.just(False),
)


@given(slip=st.builds(Slip, run=_count, epoch=_count, batch=_batches, item=_items))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_it_says(read: Reader, slip: Slip) -> None:
    assert same(slip, read(slip.encode(KEY), slip.item.id))


def test_what_is_not_said_when_a_row_is_new_is_not_kept(read: Reader) -> None:
    """Its number, and its batch's, are the next one's to give."""
    slip = a_slip(batch=a_batch(number=9, closed=3.0), item=an_item(number=5, batch=9))
    again = read(slip.encode(KEY), slip.item.id)
    assert isinstance(again, Slip)
    assert (again.item.number, again.item.batch) == (0, 0)
    assert (again.batch.number, again.batch.closed) == (0, None)


def test_nothing_of_it_is_to_be_read_on_the_disk() -> None:
    raw = a_slip(batch=a_batch("SECRET_AE"), item=an_item("SECRET_AE")).encode(KEY)
    assert b"SECRET" not in raw
    assert b"1.2.3" not in raw


def test_the_longest_command_has_room_in_it(read: Reader) -> None:
    slip = a_slip(item=an_item(command=bytes(64 * 1024)))
    raw = slip.encode(KEY)
    assert len(raw) < MAXIMUM_SLIP
    assert same(slip, read(raw, slip.item.id))


def test_more_than_would_be_read_again_is_not_written(read: Reader) -> None:
    """A slip that nobody finds would be an object lost, which was answered for."""

    def of(length: int) -> Slip:
        return a_slip(item=an_item(command=bytes(length)))

    other = len(of(100_000).encode(KEY)) - END - 100_000
    longest = of(MAXIMUM_SLIP - other)
    raw = longest.encode(KEY)
    assert len(raw) == MAXIMUM_SLIP + END
    assert same(longest, read(raw, longest.item.id))
    with pytest.raises(SpoolFull, match=f"takes {MAXIMUM_SLIP + 1} bytes"):
        of(MAXIMUM_SLIP - other + 1).encode(KEY)


# --- what is not as it was written ----------------------------------------------------------------


def otherwise(read: Reader, raw: bytes, item: bytes) -> Found | str:
    try:
        return read(raw, item)
    except ObjectDamaged as error:
        return str(error)


def test_whatever_is_cut_off_its_end_is_no_slip(read: Reader) -> None:
    slip = a_slip()
    raw = CONTENT + slip.encode(KEY)
    for size in range(len(raw)):
        assert otherwise(read, raw[:size], slip.item.id) is None, size


def test_whatever_is_missing_at_its_beginning_is_damage(read: Reader) -> None:
    slip = a_slip()
    raw = slip.encode(KEY)
    for missing in range(1, len(raw)):
        found = otherwise(read, raw[missing:], slip.item.id)
        assert found is None, missing


def test_a_byte_that_is_another_never_gives_another_slip(read: Reader) -> None:
    slip = a_slip()
    raw = CONTENT + slip.encode(KEY)
    end = len(raw) - END
    for at in range(len(raw)):
        for bit in (1, 0x80):
            found = otherwise(read, raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :], slip.item.id)
            if at < len(CONTENT):
                assert isinstance(found, Slip), at  # the content's own seals say that
                assert same(slip, found)
            elif at < end:
                assert found == "its slip is not as it was written", at
            elif at < end + 8:
                assert isinstance(found, Locked), at
            elif at < end + 12:
                assert found in (None, "its slip is not as it was written"), at
            else:
                assert found is None, at


def test_a_length_of_nothing_or_of_too_much_is_no_slip(read: Reader) -> None:
    item = bytes(16)
    for length in (0, 5, 11, 12, 27, 100, MAXIMUM_SLIP, MAXIMUM_SLIP + 1, 2**32 - 1):
        raw = bytes(100) + struct.pack(f">8sI{len(MARK)}s", KEY.name, length, MARK)
        found = otherwise(read, raw, item)
        assert found == ("its slip is not as it was written" if length <= 100 else None), length


def test_one_longer_than_any_is_not_read(
    opened: Callable[[bytes], File], monkeypatch: pytest.MonkeyPatch
) -> None:
    length = MAXIMUM_SLIP + 1
    file = opened(bytes(length) + struct.pack(f">8sI{len(MARK)}s", KEY.name, length, MARK))
    sizes: list[int] = []
    read = File.read

    def noted(self: File, size: int, offset: int) -> bytes:
        sizes.append(size)
        return read(self, size, offset)

    monkeypatch.setattr(File, "read", noted)
    assert read_slip(file, bytes(16), KEY) is None
    assert sizes == [END]


def test_another_key_does_not_open_it(read: Reader) -> None:
    slip = a_slip()
    raw = slip.encode(KEY)
    assert read(raw, slip.item.id, ANOTHER) == Locked(KEY.name)
    assert same(slip, read(raw, slip.item.id))


def test_that_of_another_item_is_damage(read: Reader) -> None:
    slip = a_slip()
    with pytest.raises(ObjectDamaged, match="not as it was written"):
        read(slip.encode(KEY), an_item().id)


def test_a_wrapped_key_is_no_slip(read: Reader) -> None:
    """Both are locked with the spool key, and neither opens as the other."""
    item = bytes(16)
    wrapped = KEY.wrap(msgpack.packb({}), item)
    raw = wrapped + struct.pack(f">8sI{len(MARK)}s", KEY.name, len(wrapped), MARK)
    with pytest.raises(ObjectDamaged, match="not as it was written"):
        read(raw, item)
    with pytest.raises(ObjectDamaged, match="does not open"):
        KEY.unwrap(KEY.seal_slip(b"text", item), item)


# --- other programs -------------------------------------------------------------------------------


def said(slip: Slip) -> dict[str, Any]:
    raw = slip.encode(KEY)
    text: dict[str, Any] = msgpack.unpackb(KEY.open_slip(raw[:-END], slip.item.id))
    return text


def test_what_a_newer_program_says_more_is_passed_over(read: Reader) -> None:
    slip = a_slip()
    text = said(slip)
    text["item"]["colour"] = text["batch"]["colour"] = text["colour"] = "blue"
    assert same(slip, read(sealed(msgpack.packb(text), slip.item.id), slip.item.id))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.pop("run"),
        lambda text: text.pop("epoch"),
        lambda text: text.pop("batch"),
        lambda text: text["item"].pop("command"),
        lambda text: text["item"].pop("digest"),
        lambda text: text["item"].update(digest=b"\x02" + bytes(32)),
        lambda text: text["batch"].pop("opened"),
        lambda text: text.update(item=[]),
        lambda text: text.update(batch=None),
    ],
)
def test_what_does_not_say_all_is_not_understood(
    read: Reader, change: Callable[[dict[str, Any]], object]
) -> None:
    slip = a_slip()
    text = said(slip)
    change(text)
    found = read(sealed(msgpack.packb(text), slip.item.id), slip.item.id)
    assert isinstance(found, Unread)
    assert "its slip cannot be read" in found.why


@pytest.mark.parametrize("text", [b"", b"\xc1", b"\x93\x01", b"text", msgpack.packb([1])])
def test_nor_is_what_says_nothing(read: Reader, text: bytes) -> None:
    found = read(sealed(text, bytes(16)), bytes(16))
    assert isinstance(found, Unread)
    assert "its slip cannot be read" in found.why


# --- without reading it ---------------------------------------------------------------------------


def test_whether_a_file_looks_as_if_it_had_one(opened: Callable[[bytes], File]) -> None:
    raw = CONTENT + a_slip().encode(KEY)
    assert has_slip(opened(raw))
    assert not has_slip(opened(raw[:-1]))
    assert not has_slip(opened(raw + b"\0"))
    assert not has_slip(opened(CONTENT))
    assert not has_slip(opened(b""))
    assert not has_slip(opened(MARK))  # shorter than its end is
    assert has_slip(opened(bytes(END - len(MARK)) + MARK))
