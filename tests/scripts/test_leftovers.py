"""What runs leave stays until all are over, and goes at once where there is no room for it."""

from pathlib import Path

import pytest

from scripts.benchmark import leftovers
from scripts.benchmark.leftovers import fresh, set_aside
from tests.hospitals import make


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which nothing is free that may be used for what is left."""
    monkeypatch.setattr(leftovers, "LEAST_FREE", 2**62)


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for whatever is left."""
    monkeypatch.setattr(leftovers, "LEAST_FREE", 0)


@pytest.mark.usefixtures("roomy")
def test_each_turn_has_a_folder_of_its_own_and_it_stays(tmp_path: Path) -> None:
    with fresh(tmp_path / "new", "way") as first:
        (first / "object").touch()
    with fresh(tmp_path / "new", "way") as second:
        assert list(second.iterdir()) == []
    assert first.parent == second.parent == tmp_path / "new"
    assert (first / "object").exists()


@pytest.mark.usefixtures("full")
def test_without_room_a_turns_folder_goes_with_it(tmp_path: Path) -> None:
    with fresh(tmp_path, "way") as folder:
        (folder / "object").touch()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("roomy")
def test_what_is_set_aside_is_not_deleted(tmp_path: Path) -> None:
    directory = make(tmp_path / "stored")
    for number in (1, 2):  # the same name each time
        (directory / "object").write_text(str(number))
        (directory / "log").touch()
        set_aside(directory.glob("ob*"), directory)
        assert [path.name for path in directory.iterdir()] == ["log"]
    assert {path.read_text() for path in tmp_path.glob("stored-*/object")} == {"1", "2"}


@pytest.mark.usefixtures("full")
def test_without_room_what_is_set_aside_is_deleted(tmp_path: Path) -> None:
    directory = make(tmp_path / "stored")
    (directory / "object").touch()
    set_aside(directory.iterdir(), directory)
    assert list(tmp_path.rglob("*")) == [directory]
