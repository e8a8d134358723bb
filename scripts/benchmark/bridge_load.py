"""The Bridge under load: memory, latency and processor time with so many Routers connected.

    python -m scripts.benchmark.bridge_load --routers 500,1000,2000

A Bridge as a process, which serves TLS, on one core alone; Routers that have enrolled, each with
its own identity, TLS and WebSocket, in processes on the other cores. Every Router publishes a few
AE titles and grants them to a few others, is told the whole directory, and pairs of them exchange
in-line messages over sessions. Then one publishes anew, one leaves and comes back, and at last the
Bridge is started anew and all come back at once.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from scripts.benchmark.bridge_network import Load, running
from scripts.benchmark.hospitals import resident_memory
from scripts.benchmark.profile import profiled

# Dialling at once while the Bridge is first filled; after its restart there is no such order.
AT_ONCE = 32

# How long is waited for all to come back, in seconds. The processes that hold them share what core
# the Bridge leaves them, and each Router takes a whole directory: at two thousand they are slower
# than the Bridge.
BACK_WITHIN = 60.0

# A Router leaves and comes back so often, somewhere: at two thousand, each once in an hour.
LEAVING = 2.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--routers",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[500, 1000, 2000],
        help="how many, for each run",
    )
    parser.add_argument("--rate", type=float, default=1000, help="messages a second, in all")
    parser.add_argument("--seconds", type=float, default=20, help="of each exchange")
    parser.add_argument("--clients", type=int, default=1, help="processes that hold the Routers")
    parser.add_argument("--profile", action="store_true", help="one more exchange, under py-spy")
    parser.add_argument("--directory", type=Path, help="where the Bridge's data is")
    parser.add_argument("--json", type=Path, help="a file for all that was measured")
    return parser.parse_args()


# --- what is measured -----------------------------------------------------------------------------


async def _timed(load: Load, job: Callable[[], Awaitable[Any]]) -> tuple[Any, float, float]:
    """What `job` gives, its seconds, and the Bridge's processor seconds meanwhile."""
    began, used = time.perf_counter(), load.bridge.processor_time()
    result = await job()
    return result, time.perf_counter() - began, load.bridge.processor_time() - used


async def _exchange(load: Load, options: argparse.Namespace, leaving: float = 0) -> dict[str, Any]:
    """Latencies in milliseconds, and what the Bridge used."""
    answers, took, used = await _timed(
        load,
        lambda: load.all(
            "exchange",
            seconds=options.seconds,
            rate=options.rate / len(load.clients),
            leaving=leaving * len(load.clients),
        ),
    )
    latencies = [latency for answer in answers for latency in answer["latencies"]]
    cuts = statistics.quantiles(latencies, n=1000)
    return {
        "messages": len(latencies),
        "rate": len(latencies) / took,
        "p50": cuts[499] * 1e3,
        "p99": cuts[989] * 1e3,
        "p999": cuts[998] * 1e3,
        "maximum": max(latencies) * 1e3,
        "late": max(answer["late"] for answer in answers) * 1e3,
        "processor": used / took,
    }


async def _news(load: Load, what: str, messages: int) -> dict[str, Any]:
    """One Router does something of which all are told."""

    async def tell() -> list[dict[str, Any]]:
        said = await load.clients[-1].do(what)
        heard = await load.all("told", messages=messages)
        return [said, *heard]

    await load.all("forget")
    (said, *heard), _, used = await _timed(load, tell)
    return {
        "seconds": max(answer["at"] for answer in heard) - said["at"],
        "processor": used,
        "bytes": sum(answer["bytes"] for answer in heard),
        "messages": sum(answer["messages"] for answer in heard),
    }


async def measure(options: argparse.Namespace, directory: Path, count: int) -> dict[str, Any]:
    """One run."""
    async with running(directory, count, options.clients) as load:
        bridge = load.bridge
        found: dict[str, Any] = {"routers": count, "alone": resident_memory(bridge)}
        answers, took, used = await _timed(
            load, lambda: load.all("connect", at_once=AT_ONCE // len(load.clients))
        )
        found["connect"] = {
            "seconds": took,
            "processor": used,
            "dials": sum(answer["dials"] for answer in answers),
            "directory_bytes": answers[0]["directory_bytes"],
        }
        found["connected"] = resident_memory(bridge)
        _, took, used = await _timed(load, partial(trio.sleep, options.seconds / 2))
        found["idle"] = used / took
        answers, took, used = await _timed(load, lambda: load.all("open"))
        found["open"] = {
            "sessions": sum(answer["sessions"] for answer in answers),
            "seconds": took,
            "processor": used,
        }
        found["exchange"] = await _exchange(load, options)
        if options.profile:
            found["profile"] = await profiled([bridge], lambda: _exchange(load, options))
        found["publish"] = await _news(load, "publish", 1)
        found["leave"] = await _news(load, "leave", 1)
        found["exchange_with_news"] = await _exchange(load, options, LEAVING)
        found["before_restart"] = resident_memory(bridge)
        await bridge.stop()
        await bridge.start()
        answers, took, used = await _timed(load, lambda: load.all("again", seconds=BACK_WITHIN))
        back = sum(answer["back"] for answer in answers)
        found["restart"] = {"back": back, "seconds": took, "processor": used}
        found["after_restart"] = resident_memory(bridge)
        found["peak"] = bridge.peak_memory()
        return found


# --- what is told ---------------------------------------------------------------------------------

MEBI, KIBI = 2**20, 2**10

# (heading, how a run's value is found), for each table.
COLUMNS: dict[str, list[tuple[str, Callable[[dict[str, Any]], str]]]] = {
    "The Bridge's memory (resident, MiB), and what all Routers' first connecting costs it": [
        ("alone", lambda run: f"{run['alone'] / MEBI:.0f}"),
        ("all connected", lambda run: f"{run['connected'] / MEBI:.0f}"),
        (
            "KiB for each Router",
            lambda run: f"{(run['connected'] - run['alone']) / run['routers'] / KIBI:.0f}",
        ),
        ("at most, restart included", lambda run: f"{run['peak'] / MEBI:.0f}"),
        ("directory, kB", lambda run: f"{run['connect']['directory_bytes'] / 1e3:.0f}"),
        ("seconds", lambda run: f"{run['connect']['seconds']:.1f}"),
        (
            "processor time, ms for each",
            lambda run: f"{run['connect']['processor'] / run['routers'] * 1e3:.1f}",
        ),
        (
            "back after a restart",
            lambda run: f"{run['restart']['back']:,} in {run['restart']['seconds']:.0f} s",
        ),
    ],
    "In-line messages from one Router to another, ms; share of the Bridge's core": [
        ("messages/s", lambda run: f"{run['exchange']['rate']:.0f}"),
        ("p50", lambda run: f"{run['exchange']['p50']:.1f}"),
        ("p99", lambda run: f"{run['exchange']['p99']:.1f}"),
        ("p99.9", lambda run: f"{run['exchange']['p999']:.1f}"),
        ("core", lambda run: f"{run['exchange']['processor']:.0%}"),
        ("core, idle", lambda run: f"{run['idle']:.0%}"),
        ("p99 while Routers come and go", lambda run: f"{run['exchange_with_news']['p99']:.1f}"),
        ("core then", lambda run: f"{run['exchange_with_news']['processor']:.0%}"),
    ],
    "One change told to all: seconds to the last, the Bridge's processor time in ms, kB sent": [
        ("a publication: s", lambda run: f"{run['publish']['seconds']:.2f}"),
        ("ms", lambda run: f"{run['publish']['processor'] * 1e3:.0f}"),
        ("kB", lambda run: f"{run['publish']['bytes'] / 1e3:.0f}"),
        ("a Router gone and back: s", lambda run: f"{run['leave']['seconds']:.2f}"),
        ("ms", lambda run: f"{run['leave']['processor'] * 1e3:.0f}"),
        ("kB", lambda run: f"{run['leave']['bytes'] / 1e3:.0f}"),
    ],
}


def table(runs: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = []
    for title, columns in COLUMNS.items():
        lines += [f"{title}:", ""]
        lines.append("| Routers | " + " | ".join(heading for heading, _ in columns) + " |")
        lines.append("|---" * (len(columns) + 1) + "|")
        for run in runs:
            cells = " | ".join(find(run) for _, find in columns)
            lines.append(f"| {run['routers']:,} | {cells} |")
        lines.append("")
    for run in runs:
        for name, rows in run.get("profile", {}).items():
            lines += [f"Where {name} spends its time with {run['routers']:,} Routers (py-spy):", ""]
            lines += [*(f"- {share:.0%} {where}" for where, share in rows), ""]
    return "\n".join(lines)


def main() -> int:
    options = arguments()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    runs = []
    for count in options.routers:
        with tempfile.TemporaryDirectory(prefix="relay-bench-", dir=options.directory) as directory:
            runs.append(trio.run(measure, options, Path(directory), count))
    if options.json is not None:
        options.json.write_text(json.dumps(runs, indent=1) + "\n")
    print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
