import time
from pathlib import Path

from relay.cli.demo.spy import Spy


def store(folder: Path) -> tuple[Path, Path]:
    incoming, objects = folder / "store/disk/incoming", folder / "store/disk/objects/00"
    incoming.mkdir(parents=True)
    objects.mkdir(parents=True)
    return incoming, objects


def until(spy: Spy, count: int) -> None:
    deadline = time.monotonic() + 5
    while len(spy.objects()) < count and time.monotonic() < deadline:
        pass


def test_what_passes_is_kept_though_it_is_deleted(tmp_path: Path) -> None:
    incoming, objects = store(tmp_path)
    with Spy(tmp_path / "store", tmp_path / "seen") as spy:
        (incoming / "one").write_bytes(b"sealed one")
        until(spy, 1)
        (incoming / "one").rename(objects / "one")
        (objects / "one").unlink()
        (objects / "two").write_bytes(b"sealed two, DOE^JANE")
        until(spy, 2)
        (objects / "two").unlink()
    assert sorted(path.read_bytes() for path in spy.objects()) == [
        b"sealed one",
        b"sealed two, DOE^JANE",
    ]
    assert spy.find([b"DOE^JANE", b"ROE^RICHARD"]) == [b"DOE^JANE"]


def test_an_object_that_stays_is_kept_once(tmp_path: Path) -> None:
    incoming, _ = store(tmp_path)
    (incoming / "one").write_bytes(b"sealed")
    with Spy(tmp_path / "store", tmp_path / "seen") as spy:
        until(spy, 1)
    assert len(spy.objects()) == 1
