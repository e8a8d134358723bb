"""Passes TCP connections on, from any family of addresses to any: DCMTK 3.6.7 speaks IPv4 only.

forward.py PORT HOST PORT
"""

import sys
from functools import partial

import trio

PIECE = 256 * 1024


async def forward(host: str, port: int, near: trio.SocketStream) -> None:
    try:
        async with (
            near,
            await trio.open_tcp_stream(host, port) as far,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_pump, near, far, nursery.cancel_scope)
            nursery.start_soon(_pump, far, near, nursery.cancel_scope)
    except* (trio.BrokenResourceError, OSError):
        print("lost a connection", flush=True)  # either side may end one in any way


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, end: trio.CancelScope) -> None:
    while data := await source.receive_some(PIECE):
        await sink.send_all(data)
    end.cancel()


if __name__ == "__main__":
    own, host, port = sys.argv[1:]
    trio.run(trio.serve_tcp, partial(forward, host, int(port)), int(own))
