"""What `relay doctor` says of each device: is it there, does it speak DICOM, does it know us?"""

import socket
from collections.abc import AsyncIterator, Iterable

import trio

from relay import scu
from relay.association import TCPAssociation
from relay.cli.associate import status_in_words
from relay.config import RouterConfig
from relay.dicom.negotiation import accepted_contexts, propose, request
from relay.dicom.status import Status
from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from relay.errors import AssociationAborted, AssociationRejected, RelayError
from relay.providers import Finding
from relay.router import device_tls, device_words
from relay.router.device_tls import DeviceTLS
from relay.router.device_words import Own
from relay.router.devices import Device
from relay.router.probe import TIMEOUTS
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
    own = Own(config.ae_title, [address.port for address in config.listen])
    what = f"device {device.ae_title} at {where} answers a C-ECHO"
    try:
        association = await secured.connect(device, TIMEOUTS)
    except AssociationAborted as error:
        is_called = device.services or device.federation or device.tls
        if is_called or isinstance(error.__cause__, socket.gaierror):
            return Finding(what, False, device_words.no_connection(device, error))
        return Finding(f"device {device.ae_title} only calls out: {error}", True)
    try:
        return await _echo(what, device, config, association)
    except AssociationRejected as error:
        return Finding(what, False, device_words.rejected(device, own, error))
    except RelayError as error:
        return Finding(what, False, await device_words.no_association(device, own, error))
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
