"""pynetdicom: its own requestors, and the scripts beside this file that do as a test tells them.

What a script can be told its `--help` lists.
"""

import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.interop.processes import Peer, Result, Target, acceptor, run

# pynetdicom warns of what it is told to do wrong; a test reads what it printed.
_PYTHON = (sys.executable, "-W", "ignore")


def _script(name: str) -> str:
    return str(Path(__file__).with_name(name))


@asynccontextmanager
async def _acceptor(
    name: str, directory: Path, ae_title: str, *options: str, command: tuple[str, ...] = ()
) -> AsyncIterator[Peer]:
    """The script `name`, perhaps one `command` of it, as an acceptor."""
    directory.mkdir(parents=True, exist_ok=True)

    def arguments(port: int) -> list[str]:
        return [
            *(*_PYTHON, _script(name), *command, "--port", str(port)),
            *("--ae-title", ae_title, "--directory", str(directory), *options),
        ]

    async with acceptor(arguments, ae_title, directory) as peer:
        yield peer


def pynetdicom_scp(
    directory: Path, *options: str, ae_title: str = "PYNETDICOM"
) -> AbstractAsyncContextManager[Peer]:
    """The acceptor of pynetdicom_scp.py: storage and query, and misbehaves as told."""
    return _acceptor("pynetdicom_scp.py", directory, ae_title, *options)


def pynetdicom_holder(
    directory: Path, serve: Path, *options: str, ae_title: str = "HOLDER"
) -> AbstractAsyncContextManager[Peer]:
    """The archive of pynetdicom_holder.py, that sends what is in `serve` where a C-MOVE says."""
    return _acceptor("pynetdicom_holder.py", directory, ae_title, "--serve", str(serve), *options)


def pynetdicom_archive(
    directory: Path, *options: str, ae_title: str = "ARCHIVE"
) -> AbstractAsyncContextManager[Peer]:
    """The archive of pynetdicom_archive.py, whose C-FIND matches what it holds."""
    return _acceptor("pynetdicom_archive.py", directory, ae_title, *options)


def pynetdicom_tls_scp(
    directory: Path, *options: str, ae_title: str = "PYNETDICOM"
) -> AbstractAsyncContextManager[Peer]:
    """The acceptor of pynetdicom_tls.py: storage over TLS."""
    return _acceptor("pynetdicom_tls.py", directory, ae_title, *options, command=("serve",))


def pynetdicom_services(
    directory: Path, *options: str, ae_title: str = "SERVICES"
) -> AbstractAsyncContextManager[Peer]:
    """The acceptor of pynetdicom_services.py: worklist, MPPS, commitment, print and their like."""
    return _acceptor("pynetdicom_services.py", directory, ae_title, *options)


async def pynetdicom(application: str, peer: Target, *options: str, calling: str) -> Result:
    """One of pynetdicom's own requestors: `echoscu`, `storescu`, `findscu`, `getscu`, ..."""
    return await run(
        *(sys.executable, "-m", "pynetdicom", application, peer.host, str(peer.port)),
        *("-aet", calling, "-aec", peer.ae_title, *options),
    )


async def pynetdicom_scu(
    scenario: str, peer: Target, *options: str, calling: str
) -> list[dict[str, Any]]:
    """The steps of a scenario of pynetdicom_scu.py; raises `PeerError` if it did not end."""
    done = await run(
        *(*_PYTHON, _script("pynetdicom_scu.py")),
        *(scenario, peer.host, str(peer.port), "--calling", calling, "--called", peer.ae_title),
        *options,
    )
    steps: list[dict[str, Any]] = json.loads(done.check().output)
    return steps


async def pynetdicom_asker(
    peer: Target, pairs: Iterable[tuple[str, str]], directory: Path, *, calling: str
) -> set[tuple[str, str]]:
    """Those of the pairs of abstract and transfer syntax that `peer` accepts of `calling`."""
    file = directory / "pairs.json"
    file.write_text(json.dumps(list(pairs)))
    done = await run(
        *(*_PYTHON, _script("pynetdicom_asker.py"), peer.host, str(peer.port), str(file)),
        *("--calling", calling, "--called", peer.ae_title),
    )
    return {(abstract, syntax) for abstract, syntax in json.loads(done.check().output)}
