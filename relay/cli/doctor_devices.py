"""What `relay doctor` says of each device: is it there, does it speak DICOM, does it know us?"""

import socket
import ssl
from collections.abc import AsyncIterator, Iterable

import trio

from relay import scu, tls
from relay.association import TCPAssociation
from relay.cli.associate import status_in_words
from relay.config import RouterConfig
from relay.dicom.negotiation import accepted_contexts, propose, request
from relay.dicom.pdu import AAssociateRJ
from relay.dicom.rejection import (
    CALLED_AE_TITLE_NOT_RECOGNIZED,
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
)
from relay.dicom.status import Status
from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from relay.errors import AssociationAborted, AssociationRejected, RelayError
from relay.patience import NO_ANSWER
from relay.providers import Finding
from relay.router import device_tls
from relay.router.device_tls import DeviceTLS
from relay.router.devices import Device
from relay.router.probe import SILENT, TIMEOUTS
from relay.values import Address

# Devices that are looked at together: those that do not answer take ten seconds each.
AT_ONCE = 16


async def examine(devices: Iterable[Device], config: RouterConfig) -> AsyncIterator[Finding]:
    """One finding for each device, and one if the files for TLS towards them do not hold."""
    try:
        secured = device_tls.load(
            certificate=config.certificate,
            private_key=config.private_key,
            device_ca_file=config.device_ca_file,
            device_certificates=config.device_certificates.value,
            profile=config.tls_profile.value,
        )
    except RelayError as error:
        yield Finding("TLS towards devices", False, str(error))
        return
    found: dict[str, Finding] = {}
    turns = trio.CapacityLimiter(AT_ONCE)

    async def look(device: Device) -> None:
        async with turns:
            found[device.ae_title] = await _device(device, config, secured)

    async with trio.open_nursery() as nursery:
        for device in devices:
            nursery.start_soon(look, device)
    for _, finding in sorted(found.items()):
        yield finding


async def _device(device: Device, config: RouterConfig, secured: DeviceTLS) -> Finding:
    """C-ECHO, as the Router would."""
    where = Address(device.host, device.port)
    what = f"device {device.ae_title} at {where} answers a C-ECHO"
    try:
        association = await secured.connect(device, TIMEOUTS)
    except AssociationAborted as error:
        is_called = device.services or device.federation or device.tls
        if is_called or isinstance(error.__cause__, socket.gaierror):
            return Finding(what, False, _no_connection(device, error))
        return Finding(f"device {device.ae_title} only calls out: {error}", True)
    try:
        return await _echo(what, device, config, association)
    except AssociationRejected as error:
        return Finding(what, False, f"{error}: {_rejected(device, config, error)}")
    except RelayError as error:
        return Finding(what, False, await _no_dicom(device, config, error))
    finally:
        await association.aclose()


async def _echo(
    what: str, device: Device, config: RouterConfig, association: TCPAssociation
) -> Finding:
    pairs = [(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])]
    rq = request(device.ae_title, config.ae_title, propose(pairs))
    contexts = accepted_contexts(rq, await scu.negotiate(association, rq))
    for context in contexts.values():
        answered = await scu.echo(association, context)
        if answered != Status.SUCCESS:
            return Finding(what, False, f"it answered {status_in_words(answered)}")
    await scu.release(association)
    if not contexts:
        return Finding(f"device {device.ae_title} takes associations, but no C-ECHO", True)
    return Finding(what, True)


def _no_connection(device: Device, error: AssociationAborted) -> str:
    """Why there is no connection, and what to look at."""
    words = str(error)
    cause = _first(error.__cause__)
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


def _rejected(device: Device, config: RouterConfig, error: AssociationRejected) -> str:
    """What to do about an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""
    said = error.source, error.reason
    if said == _numbers(CALLED_AE_TITLE_NOT_RECOGNIZED):
        return (
            f"its own AE title is not {device.ae_title}: look there what it is, add it by that"
            f" one, and `relay device remove {device.ae_title}`"
        )
    if said == _numbers(CALLING_AE_TITLE_NOT_RECOGNIZED):
        ports = ", ".join(str(address.port) for address in config.listen)
        return (
            f"it does not know this Router: enter it there as a remote node, AE title"
            f" {config.ae_title}, this machine's address, port {ports}; and so every other AE"
            " title that is to call it, at the same address"
        )
    if said in (_numbers(LOCAL_LIMIT_EXCEEDED), _numbers(TEMPORARY_CONGESTION)):
        return "it has no room for more associations: try again, or raise its limit"
    return f"does it know {config.ae_title} and its own name {device.ae_title}?"


async def _no_dicom(device: Device, config: RouterConfig, error: RelayError) -> str:
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
            f"{words}: it speaks TLS there: relay device add {device.ae_title} {device.host} --tls"
        )
    if NO_ANSWER in words:
        return f"{words}: {SILENT}"
    return (
        f"{words}: it takes the connection and no association; some devices do so with whom they"
        f" do not know: enter {config.ae_title} and this machine's address there"
    )


async def _speaks_tls(device: Device) -> bool:
    """Whether its port takes a TLS handshake; many who do hang up on anything else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is said there
    with trio.move_on_after(TIMEOUTS.connect):
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


def _first(error: BaseException | None) -> BaseException | None:
    """The first cause behind what trio says of all addresses together."""
    while error is not None and not isinstance(error, socket.gaierror | ConnectionRefusedError):
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        if inner is None:
            return error
        error = inner
    return error
