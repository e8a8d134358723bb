"""Testing a device over a real socket: one that takes some, one that refuses, none at all."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from relay import listener
from relay.association import TCPAssociation
from relay.dicom import uids
from relay.dicom.negotiation import answer
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ, AReleaseRP, PresentationContext
from relay.router import probe
from relay.router.device_tls import DeviceTLS
from relay.router.device_words import SILENT, Own
from relay.router.devices import Device
from relay.router.storage import STORAGE_SOP_CLASSES
from relay.scu import respond_to_echo
from tests.router.fakes import CT, IMPLICIT, JPEG

OWN = Own("RELAY", (104, 2762))

Handler = Callable[[TCPAssociation], object]


@asynccontextmanager
async def device(scp: Callable[[TCPAssociation, AAssociateRQ], object]) -> AsyncIterator[Device]:
    async def serve(association: TCPAssociation) -> None:
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        await scp(association, request)  # type: ignore[misc]

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(listener.serve, listeners, serve)
        with trio.fail_after(60):
            yield Device("PACS", "127.0.0.1", listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def takes_ct(association: TCPAssociation, request: AAssociateRQ) -> None:
    if any(context.abstract_syntax == uids.VERIFICATION for context in request.contexts):
        await respond_to_echo(association, request)
        return

    def accept(context: PresentationContext) -> str | None:
        (syntax,) = context.transfer_syntaxes
        return syntax if context.abstract_syntax == CT and syntax in (IMPLICIT, JPEG) else None

    await association.send(answer(request, accept))
    await association.receive()
    await association.send(AReleaseRP())


async def test_what_it_takes_is_found() -> None:
    async with device(takes_ct) as pacs:
        report = await probe.test(pacs, OWN, DeviceTLS())
    assert report.accepted == {CT: [IMPLICIT, JPEG]}
    assert [finding.ok for finding in report.findings] == [True, True]
    assert "takes 1 of" in report.findings[1].what
    assert "JPEG Baseline" in report.findings[1].what
    assert report.proposed == len(STORAGE_SOP_CLASSES) * len(uids.TRANSFER_SYNTAXES)


@pytest.mark.parametrize(
    ("rejection", "advice"),
    [
        ((1, 1, 3), "AE title RELAY, this machine's address, port 104, 2762"),
        ((2, 3, 2), "no room for more associations"),
    ],
)
async def test_a_rejection_is_told_with_what_to_do(
    rejection: tuple[int, int, int], advice: str
) -> None:
    async def rejects(association: TCPAssociation, request: AAssociateRQ) -> None:
        await association.send(AAssociateRJ(*rejection))

    async with device(rejects) as pacs:
        report = await probe.test(pacs, OWN, DeviceTLS())
    (finding,) = report.findings
    assert not finding.ok
    assert advice in finding.advice


async def test_an_abort_and_silence_are_told() -> None:
    async def aborts(association: TCPAssociation, request: AAssociateRQ) -> None:
        await association.abort()

    async with device(aborts) as pacs:
        (finding,) = (await probe.test(pacs, OWN, DeviceTLS())).findings
    assert not finding.ok


async def test_who_takes_the_connection_and_is_silent_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(association: TCPAssociation, request: AAssociateRQ) -> None:
        await trio.sleep_forever()

    hasty = attrs.evolve(probe.TIMEOUTS, association_answer=0.1)
    monkeypatch.setattr(probe, "TIMEOUTS", hasty)
    async with device(silent) as pacs:
        (finding,) = (await probe.test(pacs, OWN, DeviceTLS())).findings
    assert finding.advice.endswith(SILENT)
    assert "firewall" not in finding.advice


async def test_nobody_there() -> None:
    (finding,) = (await probe.test(Device("PACS", "127.0.0.1", 1), OWN, DeviceTLS())).findings
    assert not finding.ok
    assert "nothing listens on port 1" in finding.advice


async def test_a_device_without_verification() -> None:
    async def none(association: TCPAssociation, request: AAssociateRQ) -> None:
        await association.send(answer(request, lambda context: None))
        await association.receive()
        await association.send(AReleaseRP())

    async with device(none) as pacs:
        report = await probe.test(pacs, OWN, DeviceTLS())
    assert "does not accept Verification" in report.findings[0].advice
