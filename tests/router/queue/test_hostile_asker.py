"""A peer that asks what a device takes, without end: the device is left in peace."""

from pathlib import Path

import pytest

from relay.router.devices import Device
from relay.router.queue import knowledge
from tests.router.queue.knowing import TAKEN, knowing, learn, told, told_in_line


async def test_titles_that_a_peer_makes_up_do_not_have_a_device_probed_all_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge, "MAXIMUM_PROBES", 2)
    async with knowing(tmp_path, TAKEN) as it:
        for number in range(4):
            await it.both.a.put_device(Device(f"WS{number}", "127.0.0.1"))
        answers = [await learn(it, f"WS{number}") for number in range(4)]
        assert [answer is not None for answer in answers] == [True, True, False, False]
        assert it.probes == 2
        # What is known is told all the same.
        assert (await told(it, "WS0")).pairs == (await told(it, "WS0")).pairs
        assert it.probes == 2


async def test_who_is_told_the_same_and_asks_again_does_not_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge, "MAXIMUM_PROBES", 3)
    monkeypatch.setattr(knowledge, "AGAIN", 0)
    async with knowing(tmp_path, TAKEN) as it:
        for _ in range(6):
            await told(it)
        assert it.probes == 3


async def test_one_hospital_is_not_the_whole_line_for_a_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge, "MAXIMUM_WAITING_OF_ONE", 1)
    async with knowing(tmp_path, TAKEN) as it:
        assert await told_in_line(it) is None
        assert await learn(it, "WS2") is not None
