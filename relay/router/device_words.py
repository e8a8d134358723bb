"""Why a device does not answer, and what to do: the same words on the page, in `relay device test`
and in `relay doctor`."""

import socket
import ssl
from collections.abc import Sequence

import attrs
import trio

from relay import tls
from relay.dicom.pdu import AAssociateRJ
from relay.dicom.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
)
from relay.errors import AssociationAborted, AssociationRejected, RelayError
from relay.patience import NO_ANSWER
from relay.router.devices import Device

SILENT = "it took the connection and did not answer: is it busy, or waiting for its name server?"

# Seconds for a TLS handshake with a device that has hung up on what was no TLS: it is there.
HANDSHAKE_WAIT = 10.0


@attrs.frozen(slots=True)
class Own:
    """This Router as a device has to know it: its AE title, and the ports that it listens on."""

    ae_title: str
    ports: Sequence[int] = ()

    @property
    def entry(self) -> str:
        """What to enter at the device."""
        ports = ", ".join(str(port) for port in self.ports)
        at = f", port {ports}" if ports else ""
        return f"AE title {self.ae_title}, this machine's address{at}"


def no_connection(device: Device, error: AssociationAborted) -> str:
    """Why there is no connection, and what to look at."""
    words = str(error)
    cause = first(error.__cause__)
    if isinstance(cause, socket.gaierror):
        return f"{words}; give its IP address, or a name that this machine's name server knows"
    if isinstance(cause, ConnectionRefusedError):
        return (
            f"{words}: the machine is there, and nothing listens on port {device.port}: is that"
            " the port of its DICOM service, and does it run?"
        )
    if isinstance(cause, trio.TooSlowError) and not tls.explains(words):
        return (
            f"{words}: is it switched on, is {device.host} right, and does a firewall in between"
            f" let port {device.port} through?"
        )
    if tls.explains(words):
        return words
    return f"{words}: is {device.host} right, and on a network that this machine reaches?"


def rejected(device: Device, own: Own, error: AssociationRejected) -> str:
    """What to do about an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""
    said = error.source, error.reason
    if said == _numbers(CALLED_AE_TITLE_NOT_RECOGNIZED):
        remedy = (
            f"its own AE title is not {device.ae_title}: look there what it is, add it by that"
            f" one, and remove this one (`relay device remove {device.ae_title}`)"
        )
    elif said == _numbers(CALLING_AE_TITLE_NOT_RECOGNIZED):
        remedy = (
            f"it does not know this Router: enter it there as a remote node, {own.entry}; and so"
            " every other AE title that is to call it, at the same address"
        )
    elif said in (_numbers(LOCAL_LIMIT_EXCEEDED), _numbers(TEMPORARY_CONGESTION)):
        remedy = "it has no room for more associations: try again, or raise its limit"
    else:
        remedy = f"does it know {own.ae_title} and its own name {device.ae_title}?"
    return f"{error}: {remedy}"


async def no_association(device: Device, own: Own, error: RelayError) -> str:
    """What to do about a connection on which no association comes about."""
    words = str(error)
    if "HTTP" in words:
        return (
            f"{words}: port {device.port} is that of web pages there; which one is that of its"
            " DICOM service?"
        )
    if tls.explains(words):
        return words
    if not device.tls and await _speaks_tls(device):
        return (
            f"{words}: it speaks TLS there: say so of the device"
            f" (`relay device add {device.ae_title} {device.host} --tls`)"
        )
    if NO_ANSWER in words:
        return f"{words}: {SILENT}"
    return (
        f"{words}: it takes the connection and no association; some devices do so with whom they"
        f" do not know: enter {own.ae_title} and this machine's address there"
    )


async def _speaks_tls(device: Device) -> bool:
    """Whether its port takes a TLS handshake; many who do hang up on anything else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is said there
    with trio.move_on_after(HANDSHAKE_WAIT):
        try:
            stream = await trio.open_tcp_stream(device.host, device.port)
            async with trio.SSLStream(stream, context, https_compatible=True) as secured:
                await secured.do_handshake()
        except (OSError, trio.BrokenResourceError):
            return False
        return True
    return False


def _numbers(rejection: AAssociateRJ) -> tuple[int, int]:
    return rejection.source, rejection.reason


def first(error: BaseException | None) -> BaseException | None:
    """The first cause behind what trio says of all addresses together."""
    while error is not None and not isinstance(error, socket.gaierror | ConnectionRefusedError):
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        if inner is None:
            return error
        error = inner
    return error
