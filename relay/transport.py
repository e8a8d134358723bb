"""Byte streams to and from devices: TCP and Unix sockets; each failure in words for the log."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from relay.errors import AbortReason, AbortSource, AssociationAborted

# Linux would look after a silent peer for the first time after two hours. A peer whose machine is
# gone is noticed within 60 + 4 x 15 seconds.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 60, 15, 4


async def open_tcp(host: str, port: int, deadline: float) -> trio.SocketStream:
    """Connect within `deadline` seconds, name look-up included. Raises `AssociationAborted`."""
    try:
        with trio.fail_after(deadline):
            stream = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError as error:
        raise failed(f"{host}:{port}: no connection within {deadline:g} s") from error
    except (OSError, UnicodeError) as error:
        raise failed(f"{host}:{port}: {_os_words(error)}") from error
    keep_alive(stream.socket)
    return stream


async def open_unix(path: Path) -> trio.SocketStream:
    """Connect to a Unix socket. Raises `AssociationAborted`."""
    try:
        return await trio.open_unix_socket(path)
    except OSError as error:
        raise failed(f"{path}: {_os_words(error)}") from error


def keep_alive(connection: trio.socket.SocketType) -> None:
    """Have the kernel notice a peer whose machine is gone. (trio sets TCP_NODELAY by itself.)"""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
        (socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
        (socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def acknowledger(stream: trio.abc.Stream) -> Callable[[], None]:
    """What tells the peer at once that all has come that was read from `stream` (tcp(7)).

    The kernel waits up to 40 ms for something to send with it, and a peer that has left Nagle's
    algorithm on (RFC 896), as DCMTK's and pynetdicom's programs do, sends the last piece of a
    message only once the pieces before are acknowledged. An object from such a storescu took 5 to
    8 ms over loopback, and takes 3. For what is no TCP connection it does nothing.
    """
    if not isinstance(stream, trio.SocketStream) or stream.socket.family == socket.AF_UNIX:
        return _nothing
    connection = stream.socket

    def acknowledge() -> None:
        # Of a connection that is lost by now whoever reads next hears more.
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    return acknowledge


def _nothing() -> None:
    pass


def failed(words: str) -> AssociationAborted:
    """A connection that did not come about, and why in words."""
    return AssociationAborted(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED, words)


def _os_words(error: OSError | UnicodeError) -> str:
    # trio says that all attempts failed; what each of them said is in the cause.
    inner = error.__cause__
    if isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    for candidate in (inner, error):
        if isinstance(candidate, socket.gaierror):
            return f"name not found: {candidate.strerror}"
        if isinstance(candidate, OSError) and candidate.errno:
            return os.strerror(candidate.errno)
    return str(error)
