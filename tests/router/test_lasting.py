"""What outlives the release of its call, and what does not."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from relay.association import TCPAssociation
from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandSet, Status
from relay.dicom.pdu import PDV, AReleaseRP, AReleaseRQ, Atom
from relay.errors import LocalProtocolError
from relay.router.lasting import Lasting, Ledger
from tests.association_pairs import pair
from tests.router.fakes import (
    CT,
    acceptance,
    command,
    data,
    echo_rq,
    find_rq,
    get_rq,
    proposal,
    store_rq,
)


def n_request(field: CommandField) -> CommandSet:
    sop_class, instance = uids.STORAGE_COMMITMENT_PUSH_MODEL, "1.2.840.10008.1.20.1.1"
    return dimse.request(field, 1, sop_class, instance, has_data_set=False)


async def established(*, stay: bool = True) -> tuple[Lasting, TCPAssociation]:
    """An association with a device, and the device's end of it."""
    near, far = pair()
    lasting = Lasting(near, stay=stay)
    await lasting.send(proposal(CT))
    await far.receive()
    await far.send(acceptance(proposal(CT)))
    assert await lasting.receive() == lasting.answer
    return lasting, far


def answer(to: CommandSet, status: int = 0) -> Atom:
    return command(1, dimse.response_to(to, status))


async def test_a_quiet_one_outlives_its_release(autojump_clock: MockClock) -> None:
    device, far = await established()
    for asked in (echo_rq(), find_rq()):
        await device.send(command(1, asked))
        if asked.has_data_set:
            await device.send(data(1))
        await far.send(answer(asked))
        await device.receive()
    await device.send(AReleaseRQ())
    assert not device.stays  # its caller is to be told yet
    assert await device.receive() == AReleaseRP()
    assert device.stays
    with pytest.raises(LocalProtocolError):
        await device.receive()

    again = Lasting(device.let_go(), stay=True, answer=device.answer)
    await device.aclose()
    assert await again.receive() == device.answer
    await again.send(command(1, echo_rq()))
    await far.send(answer(echo_rq()))
    assert isinstance(await again.receive(), PDV)
    await again.abort()
    assert not again.stays
    await again.aclose()
    await far.aclose()


async def test_many_at_once_are_counted_one_by_one(autojump_clock: MockClock) -> None:
    device, far = await established()
    await device.send_all((command(1, find_rq()), data(1)))
    assert not device._may_stay()
    said = [command(1, dimse.response_to(find_rq(), Status.PENDING)), answer(find_rq())]
    for atom in said:
        await far.send(atom)
    assert list(await device.receive_some()) == said
    assert device._may_stay()
    await device.send(AReleaseRQ())
    assert await device.receive_some() == (AReleaseRP(),)
    assert device.stays

    again = Lasting(device.let_go(), stay=True, answer=device.answer)
    assert await again.receive_some() == (device.answer,)
    heard: list[Atom] = []

    async def wait() -> None:
        heard.extend(await again.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await again.send(AReleaseRQ())
    assert heard == [AReleaseRP()]
    await again.aclose()
    await far.aclose()


async def test_who_waits_for_the_device_hears_of_the_release(autojump_clock: MockClock) -> None:
    device, far = await established()
    heard: list[Atom] = []

    async def wait() -> None:
        heard.append(await device.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await device.send(AReleaseRQ())
    assert heard == [AReleaseRP()]
    assert device.stays
    await device.aclose()
    await far.aclose()


async def test_what_the_device_says_in_that_moment_is_not_lost(autojump_clock: MockClock) -> None:
    """Its caller heard it, and it does not stay; or it is there for whoever has it next."""
    for pauses in range(6):
        device, far = await established()
        heard: list[Atom] = []

        async def wait(device: Lasting = device, heard: list[Atom] = heard) -> None:
            while AReleaseRP() not in heard:
                heard.append(await device.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await far.send(command(1, n_request(CommandField.N_EVENT_REPORT_RQ)))
            for _ in range(pauses):
                await trio.lowlevel.checkpoint()
            if device._may_stay():
                await device.send(AReleaseRQ())
            else:
                nursery.cancel_scope.cancel()
        spoke = any(isinstance(atom, PDV) for atom in heard)
        if not spoke:
            assert device.stays
            assert isinstance(await device.let_go().wait_indication(), PDV)
        else:
            assert not device.stays
        await far.abort()


@pytest.mark.parametrize(
    "said",
    [
        [command(1, echo_rq())],  # unanswered
        [command(1, store_rq())],  # without its data set
        [command(1, store_rq()), data(1, last=False)],
        [command(1, find_rq()), data(1)],
        [command(1, n_request(CommandField.N_ACTION_RQ))],
    ],
)
async def test_what_has_something_open_is_released(
    said: list[Atom], autojump_clock: MockClock
) -> None:
    device, far = await established()
    for atom in said:
        await device.send(atom)
        await far.receive()
    await device.send(AReleaseRQ())
    assert await far.receive() == AReleaseRQ()
    await far.send(AReleaseRP())
    assert await device.receive() == AReleaseRP()
    assert not device.stays
    await device.aclose()
    await far.aclose()


def test_what_is_open() -> None:
    """Step by step: requests and answers of both sides, pending ones, data sets."""
    ledger = Ledger()
    get = get_rq()
    steps = [
        (ledger.told, command(1, get), False),
        (ledger.told, data(1), False),
        (ledger.said, command(3, store_rq()), False),
        (ledger.said, data(3, last=False), False),
        (ledger.said, data(3), False),
        (ledger.said, answer(get, Status.PENDING), False),
        (ledger.told, answer(store_rq()), False),
        (ledger.said, answer(get), True),
        (ledger.told, command(1, dimse.request(CommandField.C_CANCEL_RQ, 1)), True),
        (ledger.told, PDV(1, True, False, echo_rq().encode()[:20]), False),
        (ledger.told, PDV(1, True, True, echo_rq().encode()[20:]), False),
        (ledger.said, answer(echo_rq()), True),
        (ledger.said, command(1, n_request(CommandField.N_EVENT_REPORT_RQ)), False),
        (ledger.told, answer(n_request(CommandField.N_EVENT_REPORT_RQ)), False),
    ]
    for number, (passes, pdv, quiet) in enumerate(steps):
        assert isinstance(pdv, PDV)
        passes(pdv)
        assert ledger.quiet is quiet, number


def test_what_cannot_be_read_may_be_anything() -> None:
    ledger = Ledger()
    ledger.said(data(1))
    assert not ledger.quiet


async def test_without_linger_a_release_is_the_devices(autojump_clock: MockClock) -> None:
    device, far = await established(stay=False)
    await device.send(AReleaseRQ())
    assert await far.receive() == AReleaseRQ()
    await far.send(AReleaseRP())
    assert await device.receive() == AReleaseRP()
    assert device.cause == "released"
    assert not device.stays
    await far.aclose()
    await device.aclose()
