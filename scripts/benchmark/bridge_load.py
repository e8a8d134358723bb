"""The Bridge under load: memory, latency and processor time with so many Routers connected.

    python -m scripts.benchmark.bridge_load --routers 500,1000,2000 --write

A Bridge as a process, which serves TLS, on one core alone; Routers that have enrolled, each with
its own identity, TLS and WebSocket, in processes on the other cores. Every Router publishes a few
AE titles and grants them to a few others, is told who there is, and pairs of them exchange in-line
messages over sessions. Then one publishes anew, one leaves and comes back, and at last the
Bridge is started anew and all come back at once.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import trio

from scripts.benchmark.bridge_network import Load, running
from scripts.benchmark.document import BRIDGE, DOCUMENT, RESULTS, write_results, write_section
from scripts.benchmark.hospitals import resident_memory
from scripts.benchmark.profile import profiled

# Dialling at once while the Bridge is first filled; after its restart there is no such order.
AT_ONCE = 32

# How long is waited for all to come back, in seconds. The processes that hold them share what core
# the Bridge leaves them: at two thousand they are slower than the Bridge.
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
    parser.add_argument("--write", action="store_true", help=f"keep it in {DOCUMENT}, {RESULTS}")
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


async def _news(load: Load, what: str, messages: int, *, partners: bool = False) -> dict[str, Any]:
    """One Router does something of which all are told, or its partners: in so many messages."""

    async def tell() -> list[dict[str, Any]]:
        said = await load.clients[-1].do(what)
        heard = await load.all("told", messages=messages, partners=partners)
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
        # Gone, and back.
        found["leave"] = await _news(load, "leave", 2, partners=True)
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
    "One change: seconds to the last who is told, the Bridge's processor time in ms, kB sent": [
        ("a publication, told to all: s", lambda run: f"{run['publish']['seconds']:.2f}"),
        ("ms", lambda run: f"{run['publish']['processor'] * 1e3:.0f}"),
        ("kB", lambda run: f"{run['publish']['bytes'] / 1e3:.0f}"),
        (
            "a Router gone and back, told to its partners: s",
            lambda run: f"{run['leave']['seconds']:.2f}",
        ),
        ("ms", lambda run: f"{run['leave']['processor'] * 1e3:.0f}"),
        ("kB", lambda run: f"{run['leave']['bytes'] / 1e3:.0f}"),
    ],
}


# What the Bridge is to reach, in MiB, messages a second and ms.
MOST_MEMORY, LEAST_RATE, MOST_P99 = 300.0, 1000.0, 20.0


def goals(run: dict[str, Any]) -> str:
    """Whether the largest network stays within what the Bridge is to reach, in a line."""
    memory, exchange = run["connected"] / MEBI, run["exchange"]
    found = (
        (memory < MOST_MEMORY, f"{memory:.0f} MiB (under {MOST_MEMORY:.0f})"),
        (
            # Drawn at random times: some more or less in so many seconds.
            exchange["rate"] > 0.95 * LEAST_RATE,
            f"{exchange['rate']:.0f} messages/s (of {LEAST_RATE:.0f})",
        ),
        (exchange["p99"] < MOST_P99, f"p99 {exchange['p99']:.1f} ms (under {MOST_P99:.0f})"),
        (exchange["processor"] < 1, f"{exchange['processor']:.0%} of one core"),
    )
    said = "; ".join(f"{words}, {'met' if met else 'not met'}" for met, words in found)
    return f"With {run['routers']:,} Routers: {said}."


def table(runs: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [goals(runs[-1]), ""]
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
    if options.write:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        machine = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
        python = platform.python_version()
        ran = f"Measured {when} on {machine}, Python {python}; one run of each."
        write_section(BRIDGE, f"{ran}\n\n{table(runs)}")
        where = {"when": when, "machine": machine, "python": python}
        write_results({"bridge": {**where, "runs": runs}})
    print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
