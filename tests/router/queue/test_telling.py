"""What a peer is told of a device: what it is granted, in time, for as long as that is granted."""

from pathlib import Path

import pytest
import trio

from relay.dicom import pdu
from relay.dicom.pdu import AAssociateRQ
from relay.errors import AssociationRejected, Refusal
from relay.router.devices import Device
from relay.router.grants import Grant
from relay.router.node import unix_time
from relay.router.opening import serve_opening
from relay.router.pairs import Pairs
from relay.router.queue import knowledge, telling
from relay.router.queue.asking import describe
from relay.router.queue.knowledge import LIFETIME
from relay.signalling import messages
from relay.tunnel.handshake import Purpose
from tests.router.fakes import CT, proposal
from tests.router.openings import opening
from tests.router.queue.knowing import (
    ASSOCIATIONS,
    TAKEN,
    Knowing,
    change_device,
    knowing,
    learn,
    told,
)
from tests.waiting import until


async def refused(it: Knowing, calling: str = "WS") -> Refusal:
    """What B answers to a knowledge session that it does not open."""
    request = pdu.encode(proposal(CT, calling=calling))
    pending = opening(it.both, request, purpose=Purpose.KNOWLEDGE)
    it.both.bridge.passed.clear()
    caller = it.both.a.identity.public
    message = messages.Open(
        pending.session, caller, "PACS", pending.opening, pending.sealed_request
    )
    await serve_opening(it.both.b, message, it.b)
    (word,) = [m for m in it.both.bridge.passed if isinstance(m, messages.Refuse)]
    return pending.check_refusal(word.refusal)


async def test_what_is_told_is_what_the_device_takes(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        it.device.window = 5
        await change_device(it, split=3)
        held = await told(it)
        assert held.pairs == Pairs.of(TAKEN)
        assert (held.peer, held.split, held.window) == (it.both.b.identity.public, 3, 5)
        assert 0 <= unix_time() + LIFETIME - held.expires <= 5
        assert set(it.device.calling) == {"WS"}
        assert (len(it.device.calling), it.device.most) == (ASSOCIATIONS, 1)
        assert len(it.both.b.places) == 0


@pytest.mark.parametrize("services", [("store",), ("store", "commit")])
async def test_commitment_is_told_to_whom_it_is_granted(
    tmp_path: Path, services: tuple[str, ...]
) -> None:
    async with knowing(tmp_path, TAKEN, *services, published=["commit"]) as it:
        it.device.commitment = True
        assert (await told(it)).commitment is ("commit" in services)


async def test_only_who_may_store_is_told(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN, "query", published=["store"]) as it:
        assert await refused(it) is Refusal.NOT_GRANTED
        # Nor who may only because a device of ours has asked for something.
        it.both.b.moves.ask(it.both.a.identity.public, "PACS")
        assert await refused(it) is Refusal.NOT_GRANTED
        assert not it.device.calling


@pytest.mark.parametrize("service", ["query", "retrieve", "store"])
async def test_a_description_asks_no_device(tmp_path: Path, service: str) -> None:
    async with knowing(tmp_path, TAKEN, service) as it:
        await change_device(it, issuer="SOUTH", character_set="ISO_IR 100", split=2)
        for _ in range(2):
            said = await describe(it.both.a, "PACS", "WS", 10)
            assert (said.issuer, said.character_set, said.split) == ("SOUTH", "ISO_IR 100", 2)
            assert (said.serial, said.lifetime, said.groups) == (0, 0, ())
        assert not it.device.calling


async def test_a_description_has_what_is_known(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        await change_device(it, issuer="SOUTH")
        held = await told(it)
        said = await describe(it.both.a, "PACS", "WS", 10)
        assert (said.serial, said.issuer) == (held.serial, "SOUTH")
        assert Pairs.of_groups(said.groups) == Pairs.of(TAKEN)
        assert 0 <= LIFETIME - said.lifetime <= 5
        assert it.probes == 1


async def test_whoever_was_told_a_description_was_refused_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no answer yet that would be asked for again, and brings about no probe."""
    monkeypatch.setattr(knowledge, "AGAIN", 0)
    async with knowing(tmp_path, TAKEN) as it:
        await it.both.a.put_device(Device("WS2", "127.0.0.1"))
        await change_device(it, present_as="OUTSIDE")
        first = await told(it)
        await describe(it.both.a, "PACS", "WS2", 10)
        assert (await told(it, "WS2")).serial == first.serial
        assert it.probes == 1


async def test_what_is_declared_is_described_to_who_may_store(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN, "query", published=["store"]) as it:
        await change_device(it, declares=Pairs.of(TAKEN))
        assert (await describe(it.both.a, "PACS", "WS", 10)).groups == ()
        b, peer = it.both.b, it.both.a.identity.public
        await b.add_grant(Grant(peer, "PACS", frozenset({"store"})))
        said = await describe(it.both.a, "PACS", "WS", 10)
        assert Pairs.of_groups(said.groups) == Pairs.of(TAKEN)
        assert not it.device.calling


async def test_who_has_only_what_a_device_asked_for_is_told_nothing(tmp_path: Path) -> None:
    """A C-STORE under a C-MOVE is granted by nobody."""
    async with knowing(tmp_path, TAKEN, "echo") as it:
        it.both.b.moves.ask(it.both.a.identity.public, "PACS")
        with pytest.raises(AssociationRejected, match="grant ask PACS"):
            await describe(it.both.a, "PACS", "WS", 10)


async def test_a_slow_device_is_told_of_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with knowing(tmp_path, TAKEN) as it:
        go_on = trio.Event()

        async def slow(request: AAssociateRQ) -> None:
            await go_on.wait()

        it.device.before = slow
        monkeypatch.setattr(telling, "ANSWER_WAIT", 0.05)
        assert await learn(it) is None  # and nobody waits here any more
        await until(lambda: not it.both.bridge.caller.ports)
        go_on.set()
        await until(lambda: it.probes == 1 and len(it.both.b.live) == 0)
        assert (await told(it)).pairs == Pairs.of(TAKEN)
        assert it.probes == 1


async def test_a_grant_that_is_taken_back_ends_the_probe(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:

        async def never(request: AAssociateRQ) -> None:
            await trio.sleep_forever()

        it.device.before = never
        async with trio.open_nursery() as nursery:
            nursery.start_soon(learn, it)
            await until(lambda: it.device.open == 1)
            await it.both.b.remove_grant(next(iter(it.both.b.grants)).id)
            await until(lambda: len(it.both.b.live) == len(it.both.b.places) == 0)
        assert it.a.acceptance.callers(it.both.a, "PACS", unix_time()) == []
