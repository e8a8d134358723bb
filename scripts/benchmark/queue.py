"""The cells of queued delivery, and what they say as Markdown."""

import os
import platform
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.benchmark.dead import LIVE, dead
from scripts.benchmark.delivery import delivery
from scripts.benchmark.ingest import SENDERS, ingest
from scripts.benchmark.many import many

CELLS = {"ingest": ingest, "delivery": delivery, "dead": dead, "many": many}


async def measure_queue(options: Namespace, directory: Path) -> dict[str, Any]:
    """Run the cells that are asked for, each between hospitals of its own."""
    results: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "runs": options.runs,
    }
    for name in options.cells:
        results[name] = await CELLS[name](options, directory / name)
    return results


def queue_table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"Measured {results['when']} on {results['machine']}, Python {results['python']}; medians"
        f" of {results['runs']} runs, the ways of each table in turn. Everything on one machine:"
        " senders, devices, two Routers and a Bridge that serves TLS share its cores. DCMTK has"
        " `TCP_NODELAY=1`.",
    ]
    for name, rows in (
        ("ingest", _ingest),
        ("delivery", _delivery),
        ("dead", _dead),
        ("many", _many),
    ):
        if name in results:
            lines += ["", *rows(results[name])]
    return "\n".join(lines) + "\n"


def _ingest(cell: dict[str, Any]) -> list[str]:
    size = cell["bytes"] / cell["objects"] / 1e3
    head = " | ".join(f"{count} sender{'s' if count > 1 else ''}" for count in SENDERS)
    lines = [
        f"Into custody, {cell['objects']} CT of {size:.0f} kB from each sender (DCMTK storescu, one"
        " association each), objects/s:",
        "",
        f"| | {head} |",
        "|---|" + "---|" * len(SENDERS),
    ]
    for name, words in (
        ("two_syncs", "each object synced, and its row: alone, from memory"),
        ("one_sync", "one sync for both, as Relay does it: alone, from memory"),
        ("custody", "Relay's custody alone, from memory"),
        ("storescp", "DCMTK storescp, which syncs nothing"),
        ("relay", "Relay"),
    ):
        rates = " | ".join(f"{cell[str(count)][name]['per_second']:.0f}" for count in SENDERS)
        lines.append(f"| {words} | {rates} |")
    for name, words in (
        ("custody_of_two_syncs", "Relay's custody, of two syncs"),
        ("custody_of_one_sync", "Relay's custody, of one sync"),
        ("relay_of_two_syncs", "Relay with its senders, of two syncs from memory"),
        ("relay_of_storescp", "Relay, of storescp"),
    ):
        ratios = " | ".join(f"{cell[str(count)][name]:.2f}" for count in SENDERS)
        lines.append(f"| {words} | {ratios} |")
    return lines


def _delivery(cell: dict[str, Any]) -> list[str]:
    megabytes = cell["bytes"] / 1e6
    lines = [
        f"Delivery of {cell['objects']} CT that were queued, to a storescp that ignores them:"
        f" {cell['per_second']:.0f} objects/s, {cell['megabytes_per_second']:.0f} MB/s. Processor"
        " time for each MB, ms:",
        "",
        "| process | taken in | delivered |",
        "|---|---|---|",
    ]
    for name, seconds in cell["processor"]["delivery"].items():
        taken = cell["processor"]["intake"][name]
        lines.append(
            f"| {name} | {taken / megabytes * 1e3:.1f} | {seconds / megabytes * 1e3:.1f} |"
        )
    return lines


def _dead(cell: dict[str, Any]) -> list[str]:
    rates, ratios = cell["per_second"], cell["ratio"]
    lines = [
        f"{cell['objects']} CT to each of {len(LIVE)} live devices, while a third sender sends as"
        " many to another of the same hospital; from the first association to the last arrival at"
        " the live ones:",
        "",
        "| the third sender's device | objects/s at the live ones | of the rate without |",
        "|---|---|---|",
    ]
    for kind, words in (
        ("without", "(no third sender)"),
        ("paused", "paused: taken in, and not tried"),
        ("dead", "dead: nothing listens"),
        ("silent", "dead: accepts the connection, never answers"),
        ("dead before", "dead: nothing listens; its objects were taken in before"),
        ("silent before", "dead: never answers; its objects were taken in before"),
    ):
        lines.append(f"| {words} | {rates[kind]:.0f} | {ratios[kind]:.2f} |")
    return lines


def _many(cell: dict[str, Any]) -> list[str]:
    memory = {name: value / 2**20 for name, value in cell["memory"].items()}
    stages = ", ".join(f"{memory[stage]:.0f} MiB at {stage}%" for stage in ("0", "10", "50", "100"))
    lines = [
        f"{cell['objects']:,} objects of {cell['object_bytes']} bytes for a destination that is"
        f" paused, from a few senders with asynchronous windows: {cell['intake_per_second']:.0f}"
        f" objects/s into custody. The near Router's memory: {stages}, and"
        f" {cell['peak_memory'] / 2**20:.0f} MiB at most, delivery included. Killed (SIGKILL)"
        f" and started, it accepts an association after {cell['ready']['association']:.1f} s and"
        f" answers `/v1/queue` after {cell['ready']['queue']:.1f} s. Then they are delivered to a"
        f" storescp that ignores them: {cell['delivery_per_second']:.0f} objects/s.",
        "",
        "| question, all of them queued | ms |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {value:.0f} |" for name, value in cell["answers"].items()]
    return lines
