"""STOW-RS (PS3.18 §10.5) as a gateway into a cloud does it, as a program at the sender's site.

    python -m scripts.benchmark.stow URL CA_FILE CONNECTIONS FILE ...

One object a request, over so many connections that stay open, with TLS.
"""

import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import trio

BOUNDARY = "relay-benchmark"
HEADERS = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}

DEADLINE = 600.0


async def main(url: str, ca_file: str, connections: int, files: list[Path]) -> None:
    todo: Iterator[Path] = iter(files)
    context = ssl.create_default_context(cafile=ca_file)
    async with (
        httpx.AsyncClient(verify=context, timeout=DEADLINE, trust_env=False) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(connections):
            nursery.start_soon(_send, client, url, todo)


async def _send(client: httpx.AsyncClient, url: str, todo: Iterator[Path]) -> None:
    for path in todo:
        body = b"".join(
            [
                f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode(),
                path.read_bytes(),
                f"\r\n--{BOUNDARY}--\r\n".encode(),
            ]
        )
        answer = await client.post(url, headers=HEADERS, content=body)
        if answer.status_code != 200:
            raise RuntimeError(f"{path.name}: {answer.status_code} {answer.text[:500]}")


if __name__ == "__main__":
    address, authority, count, *names = sys.argv[1:]
    trio.run(main, address, authority, int(count), [Path(name) for name in names])
