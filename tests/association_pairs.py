"""Two ends of an association in one test, over memory or loopback."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from relay.association import TCPAssociation
from relay.dicom import negotiation
from relay.dicom.pdu import PDV, AAssociateAC, AAssociateRQ, AReleaseRP, AReleaseRQ
from relay.dicom.upperlayer import Role
from relay.listener import ServerLimits, serve
from relay.patience import Timeouts

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"

REQUEST = negotiation.request(
    "PACS",
    "MODALITY",
    negotiation.propose([(VERIFICATION, [IMPLICIT]), (CT_IMAGE_STORAGE, [IMPLICIT])]),
)


def accept_all(rq: AAssociateRQ) -> AAssociateAC:
    """The answer that takes every context in its first transfer syntax."""
    return negotiation.answer(rq, lambda context: context.transfer_syntaxes[0])


def pdv(fragment: bytes, *, last: bool = True, command: bool = False) -> PDV:
    """A fragment on the Verification context."""
    return PDV(1, command, last, fragment)


def pair(
    timeouts: Timeouts | None = None,
    *,
    requestor_maximum: int = 16384,
    acceptor_maximum: int = 16384,
) -> tuple[TCPAssociation, TCPAssociation]:
    """Requestor and acceptor, connected by an unlimited memory stream; nothing sent yet."""
    near, far = trio.testing.memory_stream_pair()
    return (
        TCPAssociation(near, Role.REQUESTOR, maximum_length=requestor_maximum, timeouts=timeouts),
        TCPAssociation(far, Role.ACCEPTOR, maximum_length=acceptor_maximum, timeouts=timeouts),
    )


async def establish(requestor: TCPAssociation, acceptor: TCPAssociation) -> None:
    """Negotiate between the two ends of `pair`."""
    await requestor.send(REQUEST)
    rq = await acceptor.receive()
    assert isinstance(rq, AAssociateRQ)
    await acceptor.send(accept_all(rq))
    assert isinstance(await requestor.receive(), AAssociateAC)


async def echo_back(association: TCPAssociation) -> None:
    """A handler: accept all, send every PDV back, answer the release."""
    rq = await association.receive()
    assert isinstance(rq, AAssociateRQ)
    await association.send(accept_all(rq))
    while True:
        match await association.receive():
            case PDV() as pdv:
                await association.send(pdv)
            case AReleaseRQ():
                await association.send(AReleaseRP())
                return
            case _:
                return


@asynccontextmanager
async def serving(
    handler: Callable[[TCPAssociation], Awaitable[object]] = echo_back,
    *,
    limits: ServerLimits | None = None,
    timeouts: Timeouts | None = None,
    ssl_context: ssl.SSLContext | None = None,
    **options: object,
) -> AsyncIterator[int]:
    """`serve` on a loopback port, which this gives; cancelled on leaving.

    The port speaks TLS if there is an `ssl_context`.
    """
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve(
                [] if ssl_context else listeners,
                handler,
                tls_listeners=listeners if ssl_context else [],
                ssl_context=ssl_context,
                limits=limits,
                timeouts=timeouts,
                task_status=task_status,
                **options,  # type: ignore[arg-type]
            )
        )
        yield port
        nursery.cancel_scope.cancel()
