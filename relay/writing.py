"""Writes to a peer: many buffers at once, as they lie in memory, and no longer than it may take.

A socket takes them all in one system call. Joined, an object of half a megabyte would be copied
once more, and each piece of it that trio sends costs a turn of the event loop: together a sixth of
what the far Router does for a CT image on its way to the device.
"""

import os
from collections.abc import Callable, Sequence

import trio

from relay.dicom.pdu import Buffer

# What a peer must take within the time that it is given, and what a stream that is no socket gets
# at a time: a TLS record costs little beside it.
WRITE_SIZE = 256 * 1024

# Buffers in one system call; the kernel's own limit (IOV_MAX) is 1024. Of more than these each is
# so small that joining them costs less: 16 KiB in each P-DATA-TF, as DCMTK takes it, makes 130 of
# a chunk of the tunnel.
MAXIMUM_PARTS = 512

# From this much on at a time others get their turn: a peer that takes all at once must not have
# the event loop for itself.
FAIR_SIZE = 64 * 1024


async def write(
    stream: trio.abc.Stream,
    parts: Sequence[Buffer],
    limit: float,
    progress: Callable[[int], None],
) -> None:
    """Write all of `parts`, one behind the other; `progress` is told of bytes that were taken.

    Raises trio.TooSlowError if the peer does not take WRITE_SIZE bytes, or what is left, within
    `limit` seconds, and BrokenResourceError or ClosedResourceError. Whatever it raises, a part may
    be out. Cancelled, it raises at once where it waits, and not before the first byte.
    """
    if isinstance(stream, trio.SocketStream):
        await _write_to_socket(stream.socket, parts, limit, progress)
        return
    data = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
    for at in range(0, len(data), WRITE_SIZE):
        piece = data[at : at + WRITE_SIZE]
        with trio.fail_after(limit):
            await stream.send_all(piece)
        progress(len(piece))


async def _write_to_socket(
    socket: trio.socket.SocketType,
    parts: Sequence[Buffer],
    limit: float,
    progress: Callable[[int], None],
) -> None:
    rest: Sequence[Buffer] = parts if len(parts) <= MAXIMUM_PARTS else (b"".join(parts),)
    size = left = sum(map(len, rest))
    waited = False
    due, until = left - WRITE_SIZE, trio.current_time() + limit
    while left:
        try:
            taken = os.writev(socket.fileno(), rest)
        except BlockingIOError:
            waited = True
            with trio.fail_at(until):
                await trio.lowlevel.wait_writable(socket)
            continue
        except OSError as error:
            raise trio.BrokenResourceError from error
        progress(taken)
        left -= taken
        if left:
            rest = _behind(rest, taken)
            if left <= due:
                due, until = left - WRITE_SIZE, trio.current_time() + limit
    if size >= FAIR_SIZE and not waited:
        await trio.lowlevel.cancel_shielded_checkpoint()


def _behind(parts: Sequence[Buffer], taken: int) -> Sequence[Buffer]:
    """What is left of `parts` behind their first `taken` bytes."""
    for number, part in enumerate(parts):
        if taken < len(part):
            return (memoryview(part)[taken:], *parts[number + 1 :])
        taken -= len(part)
    return ()
