"""A device of this hospital to which another one stores by way of their Router."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from relay import listener
from relay.association import TCPAssociation
from relay.dicom.pdu import AAbort, AAssociateAC, AAssociateRQ, AReleaseRP, AReleaseRQ
from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED, TEMPORARY_CONGESTION
from relay.router.devices import Device
from relay.router.own_destination import OwnCall
from tests.router.fakes import CT, command, data, hospital, proposal, read, store_rq, yes_to_all

PACS = Device("PACS", "192.0.2.2", published="NORTH_PACS")
REQUEST = attrs.evolve(proposal(CT), calling="PACS", called="RELAY")


@asynccontextmanager
async def calling(
    tmp_path: Path, scp: Callable[[TCPAssociation], Awaitable[None]] = yes_to_all, **fields: object
) -> AsyncIterator[OwnCall]:
    """A call of the PACS to WS, which is `scp` with these `fields`."""
    async with hospital(tmp_path) as node, trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(listener.serve, listeners, scp)
        port = int(listeners[0].socket.getsockname()[1])
        device = attrs.evolve(Device("WS", "127.0.0.1", port, published="NORTH_WS"), **fields)  # type: ignore[arg-type]
        await node.put_device(PACS)
        await node.put_device(device)
        with trio.fail_after(20):
            yield OwnCall(node, PACS, device)
        nursery.cancel_scope.cancel()


async def test_it_is_called_in_the_archives_name_and_stored_to(tmp_path: Path) -> None:
    seen: list[AAssociateRQ] = []

    async def scp(association: TCPAssociation) -> None:
        seen.append(await association.wait_indication())  # type: ignore[arg-type]
        await yes_to_all(association)

    async with calling(tmp_path, scp) as call:
        async with call.opened(REQUEST) as far:
            assert isinstance(await far.receive(), AAssociateAC)
            [context, *_] = REQUEST.contexts
            await far.send(command(context.id, store_rq(9)), end_of_message=False)
            await far.send(data(context.id), compressible=True)
            response = read(await far.receive())
            assert (response.message_id_responded_to, response.status) == (9, 0)
            await far.send(AReleaseRQ())
            assert isinstance(await far.receive(), AReleaseRP)
            assert far.cause == "released"
        [request] = seen
        assert (request.calling, request.called) == ("PACS", "WS")
        assert not call.node.places._taken


async def test_one_that_is_off_says_so_in_its_answer(tmp_path: Path) -> None:
    async with calling(tmp_path, port=1) as call, call.opened(REQUEST) as far:
        assert await far.receive() == TEMPORARY_CONGESTION
        assert "does not answer" in far.cause
        assert isinstance(await far.receive(), AAbort)
        await far.abort()


async def test_its_associations_are_counted(tmp_path: Path) -> None:
    async with calling(tmp_path, maximum_associations=1, place_wait=0.0) as call:
        async with call.opened(REQUEST) as first, call.opened(REQUEST) as second:
            assert isinstance(await first.receive(), AAssociateAC)
            assert await second.receive() == LOCAL_LIMIT_EXCEEDED
            await first.abort()
        async with call.opened(REQUEST) as again:
            assert isinstance(await again.receive(), AAssociateAC)


async def test_one_that_is_given_up_before_it_answers_is_not_called(tmp_path: Path) -> None:
    async with calling(tmp_path) as call, call.opened(REQUEST) as far:
        await far.abort()
        assert isinstance(await far.receive(), AAbort)
        assert not call.node.places._taken


async def test_whoever_leaves_the_block_leaves_nothing_behind(tmp_path: Path) -> None:
    gone = trio.Event()

    async def scp(association: TCPAssociation) -> None:
        await association.receive()
        assert isinstance(await association.receive(), AAbort)
        gone.set()

    async with calling(tmp_path, scp) as call:
        with trio.move_on_after(0.2):
            async with call.opened(REQUEST) as far:
                await far.receive()
        await gone.wait()
        assert not call.node.places._taken


@pytest.mark.parametrize("what", ["destination", "moved elsewhere", "holder"])
async def test_it_ends_with_what_it_rests_on(tmp_path: Path, what: str) -> None:
    async with calling(tmp_path) as call:
        entry = call.entry()
        assert (entry.device, entry.called) == ("PACS", "WS")
        assert entry.still_permitted()
        match what:
            case "destination":
                await call.node.remove_device("WS")
            case "moved elsewhere":
                await call.node.put_device(attrs.evolve(call.device, port=1))
            case _:
                await call.node.remove_device("PACS")
        assert not entry.still_permitted()
