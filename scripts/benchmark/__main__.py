"""Command line of the benchmark: run the cells, print the table, keep it in docs/ if asked."""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio
import zstandard

from scripts.benchmark import work
from scripts.benchmark.document import (
    CONFIRMED,
    DOCUMENT,
    FAR,
    FEDERATED,
    QUEUED,
    RESULTS,
    write_results,
    write_section,
)
from scripts.benchmark.federation import federation_table, measure_federation
from scripts.benchmark.installed import PROGRAM
from scripts.benchmark.plot import PICTURE, draw
from scripts.benchmark.profile import profiled
from scripts.benchmark.queue import CELLS, measure_queue, queue_table
from scripts.benchmark.wan import KEPT, LINKS, WORKS, chosen, measure_wan
from scripts.benchmark.wan_table import wan_table
from tests import images
from tests.interop import peers
from tests.interop.peers import Address
from tests.network import Network, Site, network

EVERYTHING = "echo,store,query,retrieve"
ANSWERS = 1000

# "100,000 small objects", and as many as take a minute.
SMALL_ALL, SMALL = 100_000, 5_000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each cell; medians are shown")
    parser.add_argument("--objects", type=int, default=300, help="CT objects in a C-STORE run")
    parser.add_argument("--echoes", type=int, default=200, help="C-ECHOs in a run")
    parser.add_argument("--finds", type=int, default=20, help="C-FINDs with one answer in a run")
    parser.add_argument("--profile", action="store_true", help="one more run, under py-spy")
    parser.add_argument("--queue", action="store_true", help="queued delivery alone")
    parser.add_argument("--wan", action="store_true", help="over distance alone")
    parser.add_argument("--federation", action="store_true", help="the federation alone")
    parser.add_argument(
        "--cells",
        type=lambda text: text.split(","),
        help=f"which of queued delivery: {','.join(CELLS)}; or over distance: WORK@LINK, with * for"
        f" any; works: {','.join(WORKS)}; links: {','.join(LINKS)}, or others of that form".replace(
            "%", "%%"
        ),
    )
    parser.add_argument("--mr", type=int, default=2000, help="MR objects over distance")
    parser.add_argument("--frames", type=int, default=2**30, help="bytes of one large object")
    parser.add_argument(
        "--ways",
        type=lambda text: frozenset(text.split(",")),
        default=frozenset(),
        help="over distance: only these, such as relay,direct",
    )
    parser.add_argument("--resume", action="store_true", help=f"leave out what {KEPT} has already")
    parser.add_argument(
        "--small", type=int, default=SMALL, help="small objects that queued delivery piles up"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help=f"{SMALL_ALL:,} small objects; over distance: every work on every link",
    )
    parser.add_argument(
        "--directory", type=Path, help="where all is kept: the disk that syncs are measured on"
    )
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT} and {RESULTS}")
    options = parser.parse_args()
    if options.wan:
        try:
            options.cells = chosen(options.cells, options.all)
        except ValueError as error:
            parser.error(f"--cells: {error}")
    else:
        options.cells = options.cells or list(CELLS)
        if unknown := set(options.cells) - CELLS.keys():
            wrong, known = ", ".join(sorted(unknown)), ", ".join(CELLS)
            parser.error(f"--cells: no {wrong}; there are {known}")
    if options.all:
        options.small = SMALL_ALL
    return options


class Processor:
    """Processor time that each process of the network uses while a block runs."""

    def __init__(self, sites: list[Site]) -> None:
        self._sites = sites
        self.seconds: dict[str, list[float]] = {site.name: [] for site in sites}

    async def during(self, job: Callable[[], Awaitable[Any]]) -> Any:
        before = [site.processor_time() for site in self._sites]
        result = await job()
        for site, began in zip(self._sites, before, strict=True):
            self.seconds[site.name].append(site.processor_time() - began)
        return result

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(times) for name, times in self.seconds.items()}


async def store_cell(
    direct: Address, relayed: Address, net: Network, series: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """C-STORE, direct and through Relay, one after the other in each run."""
    size = sum(path.stat().st_size for path in series.iterdir())
    processor = Processor([net.bridge, *net.routers.values()])
    direct_times, relay_times = [], []
    for _ in range(options.runs):
        direct_times.append(await work.store(direct, series))
        relay_times.append(await processor.during(lambda: work.store(relayed, series)))
    cell = {"objects": options.objects, "bytes": size, "processor": processor.medians()}
    for name, times in (("direct", direct_times), ("relay", relay_times)):
        median = statistics.median(times)
        cell[name] = {
            "seconds": times,
            "objects_per_second": options.objects / median,
            "megabytes_per_second": size / median / 1e6,
        }
    cell["ratio"] = statistics.median(d / r for d, r in zip(direct_times, relay_times, strict=True))
    return cell


async def latency_cell(
    direct: Callable[[], Awaitable[list[float]]],
    relayed: Callable[[], Awaitable[list[float]]],
    runs: int,
) -> dict[str, Any]:
    """Latencies in milliseconds, direct and through Relay, one after the other in each run."""
    medians: dict[str, list[float]] = {"direct": [], "relay": []}
    for _ in range(runs):
        medians["direct"].append(statistics.median(await direct()) * 1e3)
        medians["relay"].append(statistics.median(await relayed()) * 1e3)
    cell: dict[str, Any] = {
        name: {"milliseconds": statistics.median(values), "runs": values}
        for name, values in medians.items()
    }
    cell["ratio"] = statistics.median(
        r / d for d, r in zip(medians["direct"], medians["relay"], strict=True)
    )
    return cell


async def measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    series_directory = directory / "ct"
    series_directory.mkdir()
    series = images.make_series(series_directory, options.objects)
    sample = series[0].data_set()
    results: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "runs": options.runs,
        "zstd_1_ratio": len(sample) / len(zstandard.ZstdCompressor(level=1).compress(sample)),
    }
    async with (
        peers.storescp(directory / "scp", "--ignore") as scp,
        peers.pynetdicom_scp(directory / "one", "--answers", "1", ae_title="ONE") as one,
        peers.pynetdicom_scp(
            directory / "many", "--answers", str(ANSWERS), ae_title="MANY"
        ) as many,
        network(directory / "net", "A", "B", tls=True, program=PROGRAM) as net,
    ):
        await net.device("A", work.CALLING)
        for peer in (scp, one, many):
            await net.publish("B", peer.ae_title, peer.port, EVERYTHING)
            await net.grant(owner="B", grantee="A", ae_title=peer.ae_title, services=EVERYTHING)
        here, far = Address(scp.port, "STORESCP"), net.address("A", "STORESCP")
        results["store"] = await store_cell(here, far, net, series_directory, options)
        results["echo"] = await latency_cell(
            lambda: work.echo(here, options.echoes),
            lambda: work.echo(far, options.echoes),
            options.runs,
        )
        for name, peer, count, answers in (
            ("find_1", one, options.finds, 1),
            ("find_1000", many, 1, ANSWERS),
        ):
            direct, relayed = Address(peer.port, peer.ae_title), net.address("A", peer.ae_title)
            results[name] = await latency_cell(
                lambda d=direct, c=count, a=answers: work.find(d, c, a),
                lambda r=relayed, c=count, a=answers: work.find(r, c, a),
                options.runs,
            )
        results["memory"] = {
            site.name: site.peak_memory() for site in (net.bridge, *net.routers.values())
        }
        if options.profile:
            results["profile"] = await profiled(
                [net.bridge, *net.routers.values()], lambda: work.store(far, series_directory)
            )
    return results


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    store = results["store"]
    lines = [
        f"Measured {results['when']} on {results['machine']}, Python {results['python']}; medians"
        f" of {results['runs']} runs, direct and relayed in turn. Everything on one machine: the"
        " sender, the receiver, two Routers and a Bridge that serves TLS share its cores. DCMTK has"
        " `TCP_NODELAY=1`. Objects: real 16-bit CT tiled to 512 x 512 with seeded noise, zstd 1"
        f" ratio {results['zstd_1_ratio']:.2f}.",
        "",
        "| work | direct | through Relay | ratio |",
        "|---|---|---|---|",
    ]
    for unit, key in (("objects/s", "objects_per_second"), ("MB/s", "megabytes_per_second")):
        lines.append(
            f"| C-STORE, {store['objects']} CT, one association, {unit} |"
            f" {store['direct'][key]:.0f} | {store['relay'][key]:.0f} |"
            f" {store['ratio']:.3f} of direct |"
        )
    for name, words in (
        ("echo", "C-ECHO in an open association"),
        ("find_1", "C-FIND, 1 answer"),
        ("find_1000", f"C-FIND, {ANSWERS:,} answers"),
    ):
        cell = results[name]
        lines.append(
            f"| {words}, ms | {cell['direct']['milliseconds']:.2f} |"
            f" {cell['relay']['milliseconds']:.2f} | {cell['ratio']:.1f} times as long |"
        )
    megabytes = store["bytes"] / 1e6
    lines += [
        "",
        "| process | processor time per MB sent, ms | peak memory, MiB |",
        "|---|---|---|",
    ]
    for name, seconds in store["processor"].items():
        lines.append(
            f"| {name} | {seconds / megabytes * 1e3:.1f} | {results['memory'][name] / 2**20:.0f} |"
        )
    if "profile" in results:
        for name, rows in results["profile"].items():
            lines += [
                "",
                f"Where {name} spends its time (py-spy, share of samples, innermost):",
                "",
            ]
            lines += [f"- {share:.0%} {where}" for where, share in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="relay-bench-", dir=options.directory) as directory:
        if options.wan:
            results = trio.run(measure_wan, options, Path(directory))
        elif options.queue:
            results = trio.run(measure_queue, options, Path(directory))
        elif options.federation:
            results = trio.run(measure_federation, options, Path(directory))
        else:
            results = trio.run(measure, options, Path(directory))
    if options.wan:
        ran = {name: results["cells"][name] for name in options.cells}
        shown = results if options.write else results | {"cells": ran}
        name, mark, text = "distance", FAR, wan_table(shown)
    elif options.queue:
        name, mark, text = "queue", QUEUED, queue_table(results)
    elif options.federation:
        name, mark, text = "federation", FEDERATED, federation_table(results)
    else:
        name, mark, text = "", CONFIRMED, table(results)
    print(text)
    if options.write:
        write_results({name: results} if name else results)
        if options.wan and draw(results["cells"]):
            text = f"{text}\n![Rate against round trip]({PICTURE.name})\n"
        write_section(mark, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
