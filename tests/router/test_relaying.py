"""A call that is relayed: by whom it may be made, what its maker is told, and in which words."""

from pathlib import Path

import pytest
import trio

from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import AAssociateAC, AAssociateRJ
from relay.errors import AssociationRejected
from relay.router import inner, relaying
from relay.router.devices import Device
from relay.router.outgoing import prepare
from relay.router.passthrough import Ending, How
from relay.scu import echo, release
from tests.router.fakes import CT as CT_IMAGE
from tests.router.fakes import IMPLICIT, proposal, two_hospitals, yes_to_all

VERIFICATION = "1.2.840.10008.1.1"


@pytest.mark.parametrize("placed", [False, True])
async def test_a_part_of_this_router_calls_in_a_devices_name(tmp_path: Path, placed: bool) -> None:
    """Who is placed already takes no place of the device, and is relayed also where none is."""
    async with two_hospitals(tmp_path, yes_to_all, "echo") as both:
        device = Device("WS", "127.0.0.1", maximum_associations=1, place_wait=0)
        await both.a.put_device(device)
        taken, _ = await both.call(proposal(VERIFICATION))
        rq = proposal(VERIFICATION)
        requestor, near = inner.pair()
        endings: list[tuple[Ending, str]] = []
        await requestor.send(rq)
        said = await near.receive()
        assert said == rq

        async def run() -> None:
            call = prepare(both.a, device, rq, "PACS")
            await relaying.relay(
                both.a, near, call, rq, placed=placed, ended=lambda *how: endings.append(how)
            )

        if not placed:
            with pytest.raises(AssociationRejected, match="maximum"):
                await run()
            assert not endings
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                assert isinstance(await requestor.receive(), AAssociateAC)
                assert len(both.a.live) == 2
                assert await echo(requestor, AcceptedContext(1, VERIFICATION, IMPLICIT)) == 0
                await release(requestor)
            assert [(ending.how, why) for ending, why in endings] == [(How.RELEASED, "")]
        await taken.abort()
        await taken.aclose()


async def test_who_called_is_told_why_it_did_not_come_about(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "echo") as both:
        rq = proposal(CT_IMAGE)
        requestor, near = inner.pair()
        endings: list[tuple[Ending, str]] = []
        await requestor.send(rq)
        await near.receive()
        call = prepare(both.a, both.a.devices.get("WS"), rq, "PACS")
        await relaying.relay(
            both.a, near, call, rq, placed=True, ended=lambda *how: endings.append(how)
        )
        assert await requestor.receive() == AAssociateRJ(1, 1, 3)
        [(ending, why)] = endings
        assert ending.how is How.REJECTED
        assert ending.why.endswith(": not granted")
        assert why == next(iter(both.a.refusals)).why
        assert "`relay grant ask PACS --services …`" in why


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("callee offline", "Hospital RELAY_B's Router is not connected to the Bridge"),
        ("not granted", "`relay grant ask NORTH_PACS --services …`"),
        ("busy", "NORTH_PACS of Hospital RELAY_B is busy"),
    ],
)
async def test_causes_are_in_the_words_of_this_hospital(
    tmp_path: Path, said: str, words: str
) -> None:
    async with two_hospitals(tmp_path, yes_to_all, "store") as both:
        call = prepare(both.a, both.a.devices.get("WS"), proposal(CT_IMAGE), "PACS")
        ending = Ending(How.REJECTED, "acceptor", f"ended by the Bridge: {said}", (2, 3, 1))
        assert words in relaying.cause(call, ending, "NORTH_PACS")
