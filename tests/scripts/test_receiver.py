"""What arrived and when; series of the sizes that hospitals have."""

from pathlib import Path

import pytest

from scripts.benchmark import objects
from scripts.benchmark.links import Place
from scripts.benchmark.receiver import DifferentError, Receiver, digests_of, receiver, steady
from scripts.benchmark.sending import storescu
from tests.hospitals import ct_image, make
from tests.interop import peers
from tests.ports import LOOPBACK


def test_the_steady_rate_leaves_out_the_beginning_and_the_end() -> None:
    arrivals = [5.0, *(10 + number / 10 for number in range(19)), 60.0]
    assert steady(arrivals, 0.0) == pytest.approx(10)


def test_of_one_object_the_steady_rate_is_the_rate() -> None:
    assert steady([4.0], 2.0) == 0.5


def test_what_is_missing_changed_or_too_much(tmp_path: Path) -> None:
    image = ct_image()
    digests = digests_of([image.path])
    stored = make(tmp_path / "stored")
    device = Receiver(stored)
    with pytest.raises(DifferentError, match="0 objects came of 1"):
        device.compare(digests)
    (stored / "one").write_bytes(image.path.read_bytes())
    device.compare(digests)
    (stored / "one").write_bytes(image.path.read_bytes()[:-2] + b"??")
    with pytest.raises(DifferentError, match="1 of 1 objects missing or changed"):
        device.compare(digests)
    Receiver(stored, exact=False).compare(digests)
    device.clear()
    assert device.files() == []


@pytest.mark.interop
async def test_series_arrive_as_they_are_told(tmp_path: Path) -> None:
    here = Place((), LOOPBACK)
    mr = await objects.mr(make(tmp_path / "mr"), 2)
    frames = await objects.multi_frame(make(tmp_path / "frames"), 2**20, count=2)
    assert len(mr.digests) == len(frames.digests) == 2
    assert 128 * 1024 < mr.object_size < 140 * 1024
    assert 2**20 < frames.object_size < 2**20 + 10_000
    async with receiver(here, tmp_path / "scp", peers.free_port()) as device:
        await storescu(here, peers.Address(device.port, "ANY"), mr.files, senders=2)
        device.compare(mr.digests)
        with pytest.raises(DifferentError):
            device.compare(frames.digests)
