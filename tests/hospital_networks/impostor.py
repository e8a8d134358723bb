"""Something that answers HTTP where a Bridge, or a device, was meant to be.

    impostor.py PORT [--certificate CHAIN_AND_KEY] [--ahead SECONDS] [--page]

It answers every request as a Bridge answers /healthz, with a clock that is `--ahead`, or with a
page for people. Without a certificate it speaks plain HTTP.
"""

import argparse
import ssl
import time
from email.utils import formatdate
from functools import partial
from pathlib import Path

import trio

HEALTHY = b'{"status": "ok"}'
PAGE = b"<html><body>Welcome to the hospital's network</body></html>"


async def answer(ahead: float, page: bool, stream: trio.abc.Stream) -> None:
    body, kind = (PAGE, "text/html") if page else (HEALTHY, "application/json")
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"Date: {formatdate(time.time() + ahead, usegmt=True)}\r\n\r\n"
    )
    try:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(head.encode() + body)
    except trio.BrokenResourceError:
        return  # a client that does not trust us hangs up


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--ahead", type=float, default=0.0)
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    handler = partial(answer, given.ahead, given.page)
    if given.certificate is None:
        trio.run(trio.serve_tcp, handler, given.port)
    else:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(given.certificate)
        trio.run(
            partial(trio.serve_ssl_over_tcp, https_compatible=True), handler, given.port, context
        )


if __name__ == "__main__":
    main()
