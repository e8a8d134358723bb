"""Both directions at one end: keys, progress and credit go to the right one."""

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from relay.dicom.pdu import PDV
from relay.errors import SessionEnded
from relay.signalling.messages import Announce, Direction, FlowProgress, InLine, Progress
from relay.tunnel.allowance import IN_LINE_WINDOW, Allowance
from relay.tunnel.flows import Flows
from relay.tunnel.keys import SessionKeys
from relay.tunnel.pulse import Pulse
from relay.tunnel.reader import CREDIT
from tests.tunnel.fakes import Network, Store, plain, running

KEYS = SessionKeys(b"t" * 32, b"0" * 32, b"1" * 32)
SESSION = bytes(16)


PEER = b"p" * 32


def end(
    network: Network,
    writes: Direction,
    allowance: Allowance | None = None,
    *,
    bulk: bool = False,
) -> Flows:
    client = network.clients[writes]

    async def say() -> bool:
        return True

    return Flows(
        client,
        client.attach(SESSION),
        Store(),
        Pulse(say, lambda: False, window=20, connected=True),
        peer=PEER,
        writes=writes,
        allowance=allowance or Allowance(),
        resume_window=20,
        bulk=bulk,
    )


@pytest.mark.parametrize("writes", Direction)
async def test_progress_names_the_directions(writes: Direction, autojump_clock: MockClock) -> None:
    flows = end(Network(), writes)
    granted, nothing = (0, 0, 0, CREDIT, IN_LINE_WINDOW), (0, 0, 0, 0, 0)
    outward, inward = (nothing, granted) if writes == 0 else (granted, nothing)
    assert flows.progress() == Progress(SESSION, outward, inward)

    assert not flows.take_progress(Progress(SESSION, inward, outward))
    assert flows.writer.progress() == FlowProgress(0, 0, 0, CREDIT, IN_LINE_WINDOW)
    lie = (1, 1, 1, 1, 1)
    forged = Progress(SESSION, *((lie, granted) if writes == 0 else (granted, lie)))
    with pytest.raises(SessionEnded):
        flows.take_progress(forged)


async def test_each_end_opens_what_the_other_seals(autojump_clock: MockClock) -> None:
    network = Network()
    caller, callee = (end(network, direction) for direction in Direction)

    async def carry(source: Flows, target: Flows, port: object) -> None:
        while True:
            message = await port.receive()
            assert isinstance(message, InLine | Announce)
            target.reader.announced(message)

    async with running(network), trio.open_nursery() as nursery:
        for flows in (caller, callee):
            nursery.start_soon(flows.run, KEYS)
        nursery.start_soon(carry, caller, callee, network.callee.ports[SESSION])
        nursery.start_soon(carry, callee, caller, network.caller.ports[SESSION])
        caller.take_progress(callee.progress())
        callee.take_progress(caller.progress())
        for source, target in ((caller, callee), (callee, caller)):
            pdv = PDV(1, True, True, b"from one to the other")
            await source.writer.send(pdv)
            assert plain(await target.reader.receive()) == pdv
            assert source.outstanding
            assert source.take_progress(target.progress()) is False
            assert target.progress().slots == 0  # it came in line
            assert not source.outstanding
        assert caller.statistics().writer.chunks == callee.statistics().reader.chunks == 1
        nursery.cancel_scope.cancel()


async def test_a_delivery_begins_with_what_the_one_before_found_out(
    autojump_clock: MockClock,
) -> None:
    allowance = Allowance()
    caller = partial(end, Network(), Direction.CALLER_TO_CALLEE, allowance)
    first, other = caller(bulk=True), caller()
    window = first._outbox.window
    begun = window.size
    for _ in range(3):
        departures = [window.depart() for _ in range(32)]
        await trio.sleep(0.25)
        for departure in departures:
            window.arrive(departure, 1024 * 1024)
    other._outbox.window.arrive(other._outbox.window.depart(), 1)
    for flows in (first, other):
        flows.close()
    assert caller(bulk=True)._outbox.window.size > begun
    back = end(Network(), Direction.CALLEE_TO_CALLER, allowance, bulk=True)
    assert back._outbox.window.size == caller()._outbox.window.size < begun


async def test_a_flow_in_which_nothing_arrived_says_nothing_of_its_path(
    autojump_clock: MockClock,
) -> None:
    allowance = Allowance()
    end(Network(), Direction.CALLER_TO_CALLEE, allowance, bulk=True).close()
    assert allowance.paths.recall(PEER) is None
