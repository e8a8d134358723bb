"""Keys: what opens with which, and where the spool key comes from."""

import os
import stat
from pathlib import Path

import pytest

from relay.errors import ObjectDamaged, SpoolError
from relay.spool.vault import KEY_SIZE, SpoolKey, fresh_key, load_spool_key

ONE, TWO = b"1" * 16, b"2" * 16


def test_a_key_opens_as_that_of_its_item_alone() -> None:
    spool_key, key = SpoolKey(os.urandom(32)), fresh_key()
    wrapped = spool_key.wrap(key, ONE)
    assert spool_key.unwrap(wrapped, ONE) == key
    assert key not in wrapped
    with pytest.raises(ObjectDamaged, match="does not open with this spool key"):
        spool_key.unwrap(wrapped, TWO)
    with pytest.raises(ObjectDamaged):
        SpoolKey(os.urandom(32)).unwrap(wrapped, ONE)


@pytest.mark.parametrize("cut", [0, 5, 12, 27])
def test_a_wrapped_key_that_is_cut_does_not_open(cut: int) -> None:
    spool_key = SpoolKey(os.urandom(32))
    with pytest.raises(ObjectDamaged):
        spool_key.unwrap(spool_key.wrap(fresh_key(), ONE)[:cut], ONE)


def test_a_slip_opens_as_that_of_its_item_alone_and_as_nothing_else() -> None:
    spool_key, text = SpoolKey(os.urandom(32)), b"what is said of it"
    sealed = spool_key.seal_slip(text, ONE)
    assert spool_key.open_slip(sealed, ONE) == text
    assert text not in sealed
    assert spool_key.seal_slip(text, ONE) != sealed
    for key, item in ((spool_key, TWO), (SpoolKey(os.urandom(32)), ONE)):
        with pytest.raises(ObjectDamaged, match="slip is not as it was written"):
            key.open_slip(sealed, item)
    with pytest.raises(ObjectDamaged):
        spool_key.unwrap(sealed, ONE)
    with pytest.raises(ObjectDamaged):
        spool_key.open_slip(spool_key.wrap(fresh_key(), ONE), ONE)
    for cut in (0, 5, 12, 27, len(sealed) - 1):
        with pytest.raises(ObjectDamaged):
            spool_key.open_slip(sealed[:cut], ONE)


def test_no_two_keys_or_wrappings_are_alike() -> None:
    spool_key, key = SpoolKey(os.urandom(32)), fresh_key()
    assert len(key) == KEY_SIZE
    assert fresh_key() != key
    assert spool_key.wrap(key, ONE) != spool_key.wrap(key, ONE)


def test_a_key_is_known_by_its_name_and_shows_nothing_else() -> None:
    spool_key = SpoolKey(b"s" * 32)
    assert spool_key.name == SpoolKey(b"s" * 32).name != SpoolKey(b"t" * 32).name
    assert len(spool_key.name) == 8
    assert "sss" not in repr(spool_key)


def test_a_key_is_made_once_for_nobody_else(tmp_path: Path) -> None:
    made = load_spool_key(tmp_path, None)
    path = tmp_path / "spool.key"
    assert path.read_bytes() == made.secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_spool_key(tmp_path, None) == made
    assert [entry.name for entry in tmp_path.iterdir()] == ["spool.key"]


def test_a_crash_while_a_key_is_made_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "spool.new").write_bytes(b"half of a ke")
    assert len(load_spool_key(tmp_path, None).secret) == KEY_SIZE


def test_a_key_file_that_is_named_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.key"
    with pytest.raises(SpoolError, match=r"elsewhere\.key: No such file"):
        load_spool_key(tmp_path, path)
    path.write_bytes(b"k" * 32)
    assert load_spool_key(tmp_path, path).secret == b"k" * 32
    assert not (tmp_path / "spool.key").exists()
    path.write_bytes(b"k" * 33)
    with pytest.raises(SpoolError, match="33 bytes, not 32"):
        load_spool_key(tmp_path, path)
