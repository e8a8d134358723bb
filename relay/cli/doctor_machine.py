"""What `relay doctor` looks at on the machine itself: folder, disk, and the ports to listen on."""

import errno
import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from relay.cli import output
from relay.config import Config, RouterConfig
from relay.errors import RelayError
from relay.providers import Finding
from relay.values import Address
from relay.web.server import listen_tcp
from relay.web.tls import server_tls

# Databases, logs and the Bridge's own store get into trouble together when a disk is full.
LEAST_FREE_SPACE = 1024**3

# Below it Linux lets nobody listen but root and who has the capability
# (net.ipv4.ip_unprivileged_port_start, where it has not been changed).
FIRST_FREE_PORT = 1024


def data_dir(path: Path) -> Iterator[Finding]:
    """Whether the folder is there, ours alone, and on a disk with room."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield Finding(
            f"data_dir {path}",
            False,
            f"{error.strerror}: it is made at the first start, by a user who may write in"
            f" {path.parent}",
        )
        return
    if not stat.S_ISDIR(mode):
        yield Finding(f"data_dir {path}", False, "not a folder")
        return
    open_to_others = mode & 0o077
    yield Finding(
        f"data_dir {path}, for its owner only",
        not open_to_others,
        f"chmod 700 {path}: keys are in it" if open_to_others else "",
    )
    if not os.access(path, os.W_OK):
        yield Finding(f"data_dir {path}", False, "not writable: run this as the user of Relay")
    yield _room(path)


def _room(path: Path) -> Finding:
    free = shutil.disk_usage(path).free
    fine = free >= LEAST_FREE_SPACE
    return Finding(
        f"{output.size(free)} free on its disk",
        fine,
        "" if fine else f"make room on the disk of {path}: databases stop at a full one",
    )


def private(what: str, path: Path) -> Finding:
    """Whether a file with a secret is closed to everybody but its owner and group."""
    named = f"{what} {path}, closed to others"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Finding(named, False, str(error.strerror))
    return Finding(named, not mode & 0o007, f"chmod o= {path}" if mode & 0o007 else "")


def key_of(chain: Path, key: Path) -> Finding:
    """Whether the private key in `key` is that of the certificate in `chain`."""
    what = f"private key {key} is the certificate's"
    try:
        server_tls(chain, key)
    except RelayError as error:
        return Finding(what, False, str(error))
    return Finding(what, True)


def addresses(config: Config) -> list[Address]:
    """Everywhere that the process listens for others than this machine's command line."""
    if isinstance(config, RouterConfig):
        return [*config.listen, *config.tls_listen, *config.dicomweb.listen]
    return [*config.listen]


async def listening(wanted: Iterable[Address]) -> AsyncIterator[Finding]:
    """Whether a process that is down could listen where it is to."""
    for address in wanted:
        what = f"{address} can be listened on"
        try:
            opened = await listen_tcp([(address.host, address.port)])
        except RelayError as error:
            yield Finding(what, False, _no_listening(address, error))
            continue
        for each in opened:
            each.close()
        yield Finding(what, True)


def _no_listening(address: Address, error: RelayError) -> str:
    cause = error.__cause__
    match cause.errno if isinstance(cause, OSError) else None:
        case errno.EADDRINUSE:
            return (
                f"another program listens there already: `ss -ltnp sport = :{address.port}` says"
                " which; end that one, or change `listen`"
            )
        case errno.EACCES:
            return (
                f"ports below {FIRST_FREE_PORT} are for root: let systemd allow it"
                " (AmbientCapabilities=CAP_NET_BIND_SERVICE), or change `listen`"
            )
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address: `ip address` shows those that it has"
    return str(error)
