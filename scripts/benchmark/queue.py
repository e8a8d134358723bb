"""What queued delivery costs the sender: the rate at which objects are taken into custody.

Beside it, in the same run: the same bytes written and synced in the same pattern by a program that
does nothing else (the disk's share), and DCMTK's storescp, which syncs nothing.
"""

import hashlib
import os
import secrets
import shutil
import statistics
import threading
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from scripts.benchmark import work
from tests import images
from tests.interop import peers
from tests.interop.peers import Address
from tests.network import network

SENDERS = (1, 4)


def write_and_sync(directory: Path, data: list[bytes], writers: int) -> float:
    """Seconds to seal, write, sync and commit each of `data`, in custody's pattern.

    Each writer seals, writes and syncs its file; then whoever comes first syncs the folder and
    commits the rows of all that wait by then (WAL, FULL).
    """
    directory.mkdir()
    connection = apsw.Connection(str(directory / "rows.db"))
    connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE row (id BLOB, digest BLOB, words TEXT)")
    folder = os.open(directory, os.O_RDONLY)
    todo = iter(data)
    taking, committing = threading.Lock(), threading.Lock()
    pending: list[tuple[bytes, bytes, str]] = []

    def commit() -> None:
        with committing:
            rows, pending[:] = list(pending), []
            if not rows:
                return  # taken along by whoever came before
            os.fsync(folder)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO row VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")

    def write() -> None:
        while True:
            with taking:
                plain = next(todo, None)
            if plain is None:
                return
            name, digest = secrets.token_bytes(16), hashlib.sha256(plain).digest()
            sealed = AESGCM(AESGCM.generate_key(256)).encrypt(bytes(12), plain, None)
            file = os.open(directory / name.hex(), os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(file, sealed)
            os.fsync(file)
            os.close(file)
            with taking:
                pending.append((name, digest, "x" * 400))
            commit()

    began = time.perf_counter()
    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - began
    os.close(folder)
    connection.close()
    shutil.rmtree(directory)
    return elapsed


async def senders(target: Address, folders: list[Path]) -> float:
    """Seconds for DCMTK's storescu, one for each folder, all at once."""
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for folder in folders:
            nursery.start_soon(work.store, target, folder)
    return time.perf_counter() - began


async def ingest(options: Namespace, directory: Path) -> dict[str, Any]:
    """Objects a second into custody, with one sender and with four."""
    folders = []
    for number in range(max(SENDERS)):
        folders.append(directory / f"ct{number}")
        folders[-1].mkdir()
        images.make_series(folders[-1], options.objects, seed=number + 1)
    data = [path.read_bytes() for path in sorted(folders[0].iterdir())]
    cells: dict[str, Any] = {}
    async with (
        peers.storescp(directory / "scp") as scp,
        network(directory / "net", "A", "B", tls=True) as net,
    ):
        near = net.routers["A"]
        await net.device("A", work.CALLING, "--maximum-associations", "64")
        await net.publish("B", "STORESCP", scp.port, "echo,store")
        await net.grant(owner="B", grantee="A", ae_title="STORESCP", services="echo,store")
        await near.relay("destination", "add", "STORESCP", "--queued")
        direct, queued = Address(scp.port, "STORESCP"), net.address("A", "STORESCP")
        # What it takes is known then; and nothing is delivered while custody is measured.
        (await peers.echoscu(queued, calling=work.CALLING)).check()
        await work.store(queued, folders[0])
        await near.relay("queue", "pause", "STORESCP")
        for count in SENDERS:
            ways: dict[str, Callable[[], Awaitable[float]]] = {
                "disk": lambda n=count: trio.to_thread.run_sync(
                    write_and_sync, directory / "disk", data * n, n
                ),
                "storescp": lambda n=count: senders(direct, folders[:n]),
                "relay": lambda n=count: senders(queued, folders[:n]),
            }
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(options.runs):
                for name, run in ways.items():
                    times[name].append(await run())
            total = count * len(data)
            cells[str(count)] = {
                name: {"seconds": seconds, "per_second": total / statistics.median(seconds)}
                for name, seconds in times.items()
            }
            for name in ("disk", "storescp"):
                cells[str(count)][f"of_{name}"] = statistics.median(
                    other / mine for other, mine in zip(times[name], times["relay"], strict=True)
                )
    return cells
