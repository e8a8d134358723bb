"""The identity's file: made once, private, and never guessed at."""

import stat
from pathlib import Path

import pytest

from relay.bridge.identity import IDENTITY_FILE, load_identity
from relay.errors import IdentityError


def test_made_once_and_private(tmp_path: Path) -> None:
    first = load_identity(tmp_path)
    assert stat.S_IMODE((tmp_path / IDENTITY_FILE).stat().st_mode) == 0o600
    assert load_identity(tmp_path).public == first.public


def test_readable_by_others(tmp_path: Path) -> None:
    load_identity(tmp_path)
    (tmp_path / IDENTITY_FILE).chmod(0o640)
    with pytest.raises(IdentityError, match="others may read"):
        load_identity(tmp_path)


@pytest.mark.parametrize("content", ["", "ab" * 31, "zz" * 32, "é"])
def test_damaged(tmp_path: Path, content: str) -> None:
    path = tmp_path / IDENTITY_FILE
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match="backup"):
        load_identity(tmp_path)
