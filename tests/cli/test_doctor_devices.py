"""Each way in which a device is not what its entry says, and what to do about it."""

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme

from relay import listener
from relay.association import TCPAssociation
from relay.cli import doctor_devices
from relay.config import RouterConfig
from relay.config_file import load
from relay.dicom.pdu import AAssociateRJ
from relay.providers import Finding
from relay.router import probe
from relay.router.device_words import SILENT
from relay.router.devices import Device
from tests.cli import scp

STORE = frozenset({"store"})
# The alert of a TLS server at what is no ClientHello (RFC 8446 §6): fatal, unexpected_message.
UNEXPECTED_MESSAGE = bytes.fromhex("1503030002020a")
CALLED, CALLING, FULL, UNSAID = (1, 1, 7), (1, 1, 3), (2, 3, 2), (1, 1, 1)


@pytest.fixture
def config(tmp_path: Path) -> RouterConfig:
    file = tmp_path / "relay.toml"
    file.write_text('[router]\nae_title = "NORTH"\nlisten = "127.0.0.1:11112"\n')
    read = load(file)
    assert isinstance(read, RouterConfig)
    return read


async def serve_device(
    nursery: trio.Nursery, handle: Callable[[TCPAssociation], Awaitable[object]]
) -> int:
    """A DICOM device on a free port of loopback."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(partial(listener.serve, listeners, handle))
    return int(listeners[0].socket.getsockname()[1])


async def serve_bytes(
    nursery: trio.Nursery, said: bytes, context: ssl.SSLContext | None = None
) -> int:
    """Something that is no DICOM device: it says this, and hangs up."""

    async def answer(stream: trio.abc.Stream) -> None:
        if context is not None:
            stream = trio.SSLStream(stream, context, server_side=True)
        try:
            async with stream:
                await stream.receive_some(65536)
                await stream.send_all(said)
        except trio.BrokenResourceError:
            return  # who called has hung up

    listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
    return int(listeners[0].socket.getsockname()[1])


async def examine(config: RouterConfig, *devices: Device) -> list[Finding]:
    with trio.fail_after(20):
        return [finding async for finding in doctor_devices.examine(devices, config)]


def local(port: int, **more: object) -> Device:
    return Device("PACS", "127.0.0.1", port, **{"services": STORE} | more)  # type: ignore[arg-type]


async def test_a_device_that_is_well(config: RouterConfig) -> None:
    device = scp.Device()
    async with trio.open_nursery() as nursery:
        port = await serve_device(nursery, device.serve)
        (finding,) = await examine(config, local(port))
        nursery.cancel_scope.cancel()
    assert finding == Finding(f"device PACS at 127.0.0.1:{port} answers a C-ECHO", True)
    assert (device.requests[0].calling, device.requests[0].called) == ("NORTH", "PACS")


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (CALLED, ("called AE title not recognized", "its own AE title is not PACS")),
        (CALLING, ("calling AE title not recognized", "AE title NORTH,", "port 11112")),
        (FULL, ("local limit exceeded", "no room for more associations")),
        (UNSAID, ("no reason given", "does it know NORTH and its own name PACS?")),
    ],
)
async def test_a_device_that_rejects(
    config: RouterConfig, numbers: tuple[int, int, int], words: tuple[str, ...]
) -> None:
    async with trio.open_nursery() as nursery:
        device = scp.Device(rejects=AAssociateRJ(*numbers))
        port = await serve_device(nursery, device.serve)
        (finding,) = await examine(config, local(port))
        nursery.cancel_scope.cancel()
    assert not finding.ok
    for part in words:
        assert part in finding.advice


async def test_a_device_that_fails_or_knows_no_echo(config: RouterConfig) -> None:
    async with trio.open_nursery() as nursery:
        failing = await serve_device(nursery, scp.Device(status=0xC000).serve)
        (finding,) = await examine(config, local(failing))
        assert "C000H" in finding.advice
        no_echo = scp.Device(refused_classes=frozenset({"1.2.840.10008.1.1"}))
        (finding,) = await examine(config, local(await serve_device(nursery, no_echo.serve)))
        assert finding == Finding("device PACS takes associations, but no C-ECHO", True)
        nursery.cancel_scope.cancel()


async def test_a_device_that_takes_the_connection_and_is_silent(
    config: RouterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(association: TCPAssociation) -> None:
        await trio.sleep_forever()

    hasty = attrs.evolve(probe.TIMEOUTS, connect=0.05, association_answer=0.1)
    monkeypatch.setattr(doctor_devices, "TIMEOUTS", hasty)
    async with trio.open_nursery() as nursery:
        (finding,) = await examine(config, local(await serve_device(nursery, silent)))
        nursery.cancel_scope.cancel()
    assert finding.advice.endswith(SILENT)


@pytest.fixture
async def unused() -> int:
    (listening,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = int(listening.socket.getsockname()[1])
    await listening.aclose()
    return port


async def test_a_port_where_nothing_listens(config: RouterConfig, unused: int) -> None:
    (finding,) = await examine(config, local(unused))
    assert not finding.ok
    assert f"nothing listens on port {unused}" in finding.advice
    (note,) = await examine(config, local(unused, services=frozenset()))
    assert note.ok, "a device that is not published may only call out"
    assert note.what.startswith("device PACS only calls out")


async def test_a_name_that_is_none(config: RouterConfig) -> None:
    (finding,) = await examine(config, Device("PACS", "ct.invalid", 104))
    assert not finding.ok
    assert "give its IP address" in finding.advice


async def test_a_host_that_does_not_answer(
    config: RouterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = attrs.evolve(probe.TIMEOUTS, connect=0.05)
    monkeypatch.setattr(doctor_devices, "TIMEOUTS", quick)

    class Nowhere(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            await trio.sleep_forever()

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError("nobody asks for this")

    trio.socket.set_custom_hostname_resolver(Nowhere())
    (finding,) = await examine(config, Device("PACS", "pacs.test", 104, services=STORE))
    assert "is it switched on, is pacs.test right, and does a firewall" in finding.advice


async def test_an_address_to_which_there_is_no_way(config: RouterConfig) -> None:
    # The Internet has no machine there, and no machine a route (RFC 1122 §3.2.1.3, class E).
    (finding,) = await examine(config, Device("PACS", "255.255.255.255", 104, services=STORE))
    assert not finding.ok
    assert "is 255.255.255.255 right" in finding.advice


async def test_a_port_of_web_pages(config: RouterConfig) -> None:
    async with trio.open_nursery() as nursery:
        port = await serve_bytes(nursery, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        (finding,) = await examine(config, local(port))
        nursery.cancel_scope.cancel()
    assert not finding.ok
    assert f"port {port} is that of web pages" in finding.advice


async def test_a_device_that_hangs_up_on_strangers(config: RouterConfig) -> None:
    async with trio.open_nursery() as nursery:
        port = await serve_bytes(nursery, b"")
        (finding,) = await examine(config, local(port))
        nursery.cancel_scope.cancel()
    assert not finding.ok
    assert "enter NORTH and this machine's address there" in finding.advice


async def test_tls_where_none_was_meant_and_the_other_way_round(config: RouterConfig) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with trio.open_nursery() as nursery:
        over_tls = await serve_bytes(nursery, b"", context)
        plain = await serve_device(nursery, scp.Device().serve)
        alerting = await serve_bytes(nursery, UNEXPECTED_MESSAGE)
        (answered_by_tls,) = await examine(config, local(alerting))
        (hung_up,) = await examine(config, local(over_tls))
        (answered_plainly,) = await examine(config, local(plain, tls=True))
        (not_trusted,) = await examine(config, local(over_tls, tls=True))
        nursery.cancel_scope.cancel()
    for finding in (answered_by_tls, hung_up, answered_plainly, not_trusted):
        assert not finding.ok
        assert "TLS" in finding.advice
    assert "--tls" in answered_by_tls.advice
    assert "relay device add PACS 127.0.0.1 --tls" in hung_up.advice
    assert "certificate" in not_trusted.advice


async def test_files_that_do_not_hold_are_said_once(config: RouterConfig, tmp_path: Path) -> None:
    wrong = tmp_path / "devices.pem"
    wrong.write_text("nothing")
    given = attrs.evolve(config, device_ca_file=wrong)
    (finding,) = await examine(given, local(1), local(2))
    assert not finding.ok
    assert str(wrong) in finding.advice
