"""What signalling runs over: a socket that carries whole frames, whatever brings them."""

import math
from typing import Protocol

import trio


class Socket(Protocol):
    """One WebSocket's binary frames, at either end.

    One task receives and one task sends, at the same time. After a cancelled `send` the socket may
    have half a frame in it: whoever cancelled closes it.
    """

    async def receive(self) -> bytes:
        """The next frame; b"" once the connection is closed or lost.

        Raises SignallingError for what is no binary frame of at most MAXIMUM_MESSAGE.
        """

    async def send(self, frame: bytes) -> None:
        """Write `frame`. Raises ConnectionClosed if the connection is gone."""

    async def aclose(self) -> None:
        """Close; harmless the second time. Cancelled, it closes without saying goodbye."""


async def close(socket: Socket, within: float) -> None:
    """Close `socket`, with a goodbye of at most `within` seconds; none if we are cancelled.

    What runs the socket may be cancelled with us and then never hears the other end's goodbye.
    """
    patience = 0 if trio.current_effective_deadline() == -math.inf else within
    with trio.move_on_after(patience, shield=True):
        await socket.aclose()
