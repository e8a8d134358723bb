"""Requests and their replies, without a connection between."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.errors import SignallingError
from relay.signalling.limits import MAXIMUM_REQUESTS
from relay.signalling.messages import Done, Publish, decode
from relay.signalling.outbox import Outbox
from relay.signalling.requests import Reply, Requests


def publish(number: int) -> Publish:
    return Publish(number, ())


async def test_each_reply_goes_to_its_request(autojump_clock: MockClock) -> None:
    outbox, requests = Outbox(), Requests()
    requests.connected(outbox)
    replies: list[Reply] = []

    async def ask() -> None:
        replies.append(await requests.request(publish, 10))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        numbers = [decode(await outbox.take()).request for _ in range(3)]  # type: ignore[attr-defined]
        assert len(set(numbers)) == 3
        for number in reversed(numbers):
            requests.reply(Done(number, ()))
            requests.reply(Done(number + 1000, ()))  # nobody's
            await wait_all_tasks_blocked()
    assert [reply.request for reply in replies] == numbers[::-1]


async def test_only_so_many_are_unanswered_at_once(autojump_clock: MockClock) -> None:
    outbox, requests = Outbox(), Requests()
    requests.connected(outbox)
    async with trio.open_nursery() as nursery:
        for _ in range(MAXIMUM_REQUESTS + 10):
            nursery.start_soon(requests.request, publish, 1000)
        await wait_all_tasks_blocked()
        assert outbox.statistics().control_frames == MAXIMUM_REQUESTS
        first = decode(await outbox.take())
        assert isinstance(first, Publish)
        requests.reply(Done(first.request, ()))
        await wait_all_tasks_blocked()
        assert outbox.statistics().control_frames == MAXIMUM_REQUESTS
        nursery.cancel_scope.cancel()


async def test_what_waits_for_its_turn_is_late_too(autojump_clock: MockClock) -> None:
    requests = Requests()
    requests.connected(Outbox())
    async with trio.open_nursery() as nursery:
        for _ in range(MAXIMUM_REQUESTS):
            nursery.start_soon(requests.request, publish, 1000)
        await wait_all_tasks_blocked()
        with pytest.raises(SignallingError, match="within 3 s"):
            await requests.request(publish, 3)
        nursery.cancel_scope.cancel()


async def test_a_lost_connection_fails_all_and_the_next_starts_clean(
    autojump_clock: MockClock,
) -> None:
    requests = Requests()
    with pytest.raises(SignallingError, match="not connected"):
        await requests.request(publish, 3)
    requests.connected(Outbox())
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(SignallingError, match="was lost"):
                await requests.request(publish, 3)

        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        requests.lost()
    outbox = Outbox()
    requests.connected(outbox)
    with pytest.raises(SignallingError, match="within 3 s"):
        await requests.request(publish, 3)
    assert outbox.statistics().control_frames == 1
