"""DCMTK's programs.

Acceptors run with `-dhl` where the program has it: otherwise they look the caller's name up first.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from tests.interop.processes import RUN_DEADLINE, Address, Peer, Result, Target, acceptor, run


@asynccontextmanager
async def storescp(
    directory: Path, *options: str, ae_title: str = "STORESCP"
) -> AsyncIterator[Peer]:
    """DCMTK storescp, one process for each association, writing data exactly as read.

    The files in `directory` are Part 10; `data_set_of` gives the bytes that came over the wire.
    It takes every storage SOP class, private ones too, in every transfer syntax that it knows.
    """
    directory.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> list[str]:
        return [
            *("storescp", "-v", "-dhl", "+B", "+xa", "-pm", "--fork"),
            *("-aet", ae_title, "-od", str(directory), *options, str(port)),
        ]

    async with acceptor(command, ae_title, directory) as peer:
        yield peer


@asynccontextmanager
async def dcmqrscp(
    directory: Path,
    *options: str,
    ae_title: str = "DCMQRSCP",
    move_destinations: Sequence[Address] = (),
) -> AsyncIterator[Peer]:
    """DCMTK dcmqrscp with one storage area: C-STORE, C-FIND, C-GET, and C-MOVE where it may go.

    `Peer.stored()` holds its index file beside the images.
    """
    storage = directory / "storage"
    storage.mkdir(parents=True, exist_ok=True)
    hosts = [
        f"host{number} = ({address.ae_title}, {address.host}, {address.port})"
        for number, address in enumerate(move_destinations)
    ]
    configuration = directory / "dcmqrscp.cfg"
    configuration.write_text(
        "\n".join(
            [
                "MaxPDUSize = 131072",
                "MaxAssociations = 64",
                *("HostTable BEGIN", *hosts, "HostTable END"),
                *("VendorTable BEGIN", "VendorTable END"),
                "AETable BEGIN",
                f"{ae_title} {storage} RW (10000, 65536mb) ANY",
                "AETable END",
                "",
            ]
        )
    )

    def command(port: int) -> list[str]:
        return [
            *("dcmqrscp", "-v", "-dhl", "+B", "-c", str(configuration)),
            *options,
            str(port),
        ]

    async with acceptor(command, ae_title, directory) as peer:
        yield attrs.evolve(peer, directory=storage)


@asynccontextmanager
async def wlmscpfs(
    directory: Path, *options: str, ae_title: str = "WORKLIST"
) -> AsyncIterator[Peer]:
    """DCMTK wlmscpfs: Modality Worklist from the files `*.wl` in `Peer.directory`.

    It answers in the character set of each file.
    """
    files = directory / ae_title
    files.mkdir(parents=True, exist_ok=True)
    (files / "lockfile").touch()

    def command(port: int) -> list[str]:
        return [
            *("wlmscpfs", "-v", "-dhl", "-csk", "-dfp", str(directory)),
            *options,
            str(port),
        ]

    async with acceptor(command, ae_title, directory) as peer:
        yield attrs.evolve(peer, directory=files)


async def echoscu(peer: Target, *options: str, calling: str = "ECHOSCU") -> Result:
    """DCMTK echoscu: one C-ECHO. Unlike the program itself it fails where the C-ECHO did."""
    result = await run(
        *("echoscu", "-v", "-aet", calling, "-aec", peer.ae_title),
        *(*options, peer.host, str(peer.port)),
    )
    # An A-ABORT in place of the response leaves DCMTK 3.6.7's exit status at 0.
    return attrs.evolve(result, status=result.status or "Echo Failed" in result.output)


async def storescu(
    peer: Target,
    *files: Path,
    options: Sequence[str] = (),
    calling: str = "STORESCU",
    deadline: float = RUN_DEADLINE,
) -> Result:
    """DCMTK storescu: C-STORE of Part 10 files, or of all in the folders given.

    It proposes uncompressed syntaxes; say `-xs`, `-xv` and the like for compressed files.
    """
    return await run(
        *("storescu", "-v", "+sd", "+r", "-aet", calling, "-aec", peer.ae_title),
        *(*options, peer.host, str(peer.port), *map(str, files)),
        deadline=deadline,
    )


def _query(keys: Sequence[str]) -> list[str]:
    return [part for key in keys for part in ("-k", key)]


async def findscu(
    peer: Target, *keys: str, options: Sequence[str] = ("-S",), calling: str = "FINDSCU"
) -> Result:
    """DCMTK findscu with `-k` for each key; Study Root unless told otherwise (`-W` worklist)."""
    return await run(
        *("findscu", "-v", "-aet", calling, "-aec", peer.ae_title),
        *(*options, *_query(keys), peer.host, str(peer.port)),
    )


async def getscu(
    peer: Target,
    directory: Path,
    *keys: str,
    options: Sequence[str] = ("-S",),
    calling: str = "GETSCU",
) -> Result:
    """DCMTK getscu: C-GET into `directory`, data sets exactly as they came."""
    directory.mkdir(parents=True, exist_ok=True)
    return await run(
        *("getscu", "-v", "+B", "-aet", calling, "-aec", peer.ae_title),
        *("-od", str(directory), *options, *_query(keys), peer.host, str(peer.port)),
    )


async def movescu(
    peer: Target,
    destination: str,
    *keys: str,
    options: Sequence[str] = ("-S",),
    calling: str = "MOVESCU",
) -> Result:
    """DCMTK movescu: C-MOVE to `destination`, which is not this program itself."""
    return await run(
        *("movescu", "-v", "-aet", calling, "-aec", peer.ae_title, "-aem", destination),
        *(*options, *_query(keys), peer.host, str(peer.port)),
    )


# What DCMTK's print programs are told: one printer, and where they keep what was printed.
DCMPSTAT = """
[[GENERAL]]
[APPLICATION]
LogDirectory = {directory}
[PRINT]
Directory = {directory}
[DATABASE]
Directory = {directory}
[NETWORK]
aetitle = DCMPRSCU
[[COMMUNICATION]]
[PRINTER]
Type = LOCALPRINTER
Hostname = {host}
Port = {port}
Aetitle = {ae_title}
Description = a printer
DisplayFormat = 1,1
FilmSizeID = 8INX10IN
MediumType = PAPER
MagnificationType = NONE
Supports12Bit = true
"""


def _dcmpstat(directory: Path, target: Target) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "dcmpstat.cfg"
    configuration.write_text(
        DCMPSTAT.format(
            directory=directory, host=target.host, port=target.port, ae_title=target.ae_title
        )
    )
    return str(configuration)


@asynccontextmanager
async def dcmprscp(directory: Path, *, ae_title: str = "DCMPRSCP") -> AsyncIterator[Peer]:
    """DCMTK dcmprscp: a printer. What it printed is in `directory`: SP_*.dcm, images HG_*.dcm."""
    directory.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> list[str]:
        configuration = _dcmpstat(directory, Address(port, ae_title))
        return ["dcmprscp", "-v", "-c", configuration, "-p", "PRINTER"]

    async with acceptor(command, ae_title, directory) as peer:
        yield peer


async def dcmprscu(peer: Target, file: Path, directory: Path) -> Result:
    """DCMTK dcmpsprt and dcmprscu: print one image, as the caller DCMPRSCU."""
    configuration = _dcmpstat(directory, peer)
    await run("dcmpsprt", "-c", configuration, "-p", "PRINTER", str(file))
    [film] = directory.glob("SP_*.dcm")
    return await run("dcmprscu", "-v", "-c", configuration, "-p", "PRINTER", str(film))
