"""Byte streams to and from devices: TCP, TLS, Unix sockets; each failure in words for the log."""

import os
import socket
import ssl
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
        raise _failed(f"{host}:{port}: no connection within {deadline:g} s") from error
    except (OSError, UnicodeError) as error:
        raise _failed(f"{host}:{port}: {_os_words(error)}") from error
    keep_alive(stream.socket)
    return stream


async def open_unix(path: Path) -> trio.SocketStream:
    """Connect to a Unix socket. Raises `AssociationAborted`."""
    try:
        return await trio.open_unix_socket(path)
    except OSError as error:
        raise _failed(f"{path}: {_os_words(error)}") from error


async def start_tls(
    stream: trio.SocketStream,
    context: ssl.SSLContext,
    deadline: float,
    *,
    server_hostname: str | None = None,
) -> trio.abc.Stream:
    """The TLS stream over `stream` after its handshake; as the server without `server_hostname`.

    Raises `AssociationAborted` that names what the peer sent instead; `stream` is closed then.
    """
    # "https_compatible": a peer that closes without close_notify, as most devices do, is an end of
    # the stream. What DICOM says over it has an end of its own (release or abort), so that nothing
    # cut short passes for whole.
    tls = trio.SSLStream(
        stream,
        context,
        server_hostname=server_hostname,
        server_side=server_hostname is None,
        https_compatible=True,
    )
    try:
        with trio.fail_after(deadline):
            await tls.do_handshake()
    except trio.TooSlowError as error:
        await trio.aclose_forcefully(stream)
        raise _failed(f"silence: no TLS handshake within {deadline:g} s") from error
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise _failed(_tls_words(error.__cause__)) from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return tls


def keep_alive(connection: trio.socket.SocketType) -> None:
    """Have the kernel notice a peer whose machine is gone. (trio sets TCP_NODELAY by itself.)"""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
        (socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
        (socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _failed(words: str) -> AssociationAborted:
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


def _tls_words(error: BaseException | None) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"TLS: certificate refused: {error.verify_message}"
        case ssl.SSLError(reason="HTTP_REQUEST" | "HTTPS_PROXY_REQUEST"):
            return "HTTP on the TLS port"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "UNKNOWN_PROTOCOL"):
            return "no TLS on a TLS port"
        case ssl.SSLError():
            return f"TLS: {(error.reason or 'protocol error').lower().replace('_', ' ')}"
        case _:
            return "connection closed by the peer in the TLS handshake"
