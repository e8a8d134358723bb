"""The cells of the benchmark over distance: which work on which link, run one after the other.

A cell is called WORK@LINK, as queued-ct@100ms-1000M. What each gave is kept at once, so that a
long run may be broken off and taken up again.
"""

import fnmatch
import json
import os
import platform
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from scripts.benchmark import retrieves, stores
from scripts.benchmark.links import CONGESTION_CONTROL, Link
from scripts.benchmark.objects import Series
from scripts.benchmark.setting import Sizes, Work, setting

WORKS: dict[str, Work] = {
    "queued-ct": stores.queued_ct,
    "confirmed-ct": stores.confirmed_ct,
    "queued-mr": stores.queued_mr,
    "senders": stores.senders,
    "compressed": stores.compressed,
    "frames": stores.frames,
    "confirmed-frames": stores.confirmed_frames,
    "large-16": stores.large_16,
    "echo": retrieves.echo,
    "find-1": retrieves.find_1,
    "find-1000": retrieves.find_1000,
    "get": retrieves.get,
    "move": retrieves.move,
}

LINKS = [
    "loopback",
    *(f"{trip}ms-{rate}M" for rate in (1000, 100) for trip in (20, 50, 100, 200)),
    "100ms-1000M-0.1%",
]

# What there are goals for (scripts.benchmark.goals).
USUAL = [
    *(f"queued-ct@{trip}ms-1000M" for trip in (20, 50, 100, 200)),
    "queued-ct@50ms-100M",
    "queued-mr@100ms-100M",
    *(f"confirmed-ct@{trip}ms-1000M" for trip in (20, 50, 100, 200)),
    *(f"{work}@100ms-1000M" for work in ("echo", "find-1000", "get", "move")),
    "queued-ct@loopback",
    "large-16@200ms-1000M",
]

ALL = [f"{work}@{link}" for link in LINKS for work in WORKS]

# Between runs; what is kept for good goes to docs/.
KEPT = Path("build/distance.json")


def chosen(patterns: list[str] | None, everything: bool) -> list[str]:
    """Names of the cells to run, in the order of their links. Raises ValueError."""
    names = USUAL if patterns is None and not everything else ALL
    found = [
        name
        for name in names
        if patterns is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]
    for pattern in patterns or ():
        work, _, link = pattern.partition("@")
        if pattern not in found and work in WORKS and link and "*" not in link:
            Link.named(link)  # one that is not among the usual
            found.append(pattern)
    if not found:
        raise ValueError(f"no such cells; there are {', '.join(ALL)}")
    return sorted(found, key=lambda name: name.partition("@")[2])


@attrs.frozen(slots=True)
class Kept:
    """Results on the disk, by cell: those of earlier runs stay until they are measured anew."""

    path: Path
    cells: dict[str, Any]

    @classmethod
    def opened(cls, path: Path) -> "Kept":
        """What earlier runs have left, or nothing."""
        return cls(path, json.loads(path.read_text())["cells"] if path.exists() else {})

    @property
    def results(self) -> dict[str, Any]:
        """The cells, in the usual order, and what they were measured on."""
        names = [*(name for name in ALL if name in self.cells), *self.cells]
        return {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
            "python": platform.python_version(),
            "congestion_control": CONGESTION_CONTROL,
            "cells": {name: self.cells[name] for name in names},
        }

    def add(self, name: str, cell: dict[str, Any]) -> None:
        """Keep a cell, now, beside what others have kept meanwhile.

        Ways that an earlier run of the same work has, and this one has not, stay; `apart` names
        those that were not in the same run as Relay.
        """
        self.cells.update(Kept.opened(self.path).cells)
        old = self.cells.get(name)
        if old is not None and _work(old) == _work(cell):
            others = old["ways"].keys() - cell["ways"].keys()
            new = others if "relay" in cell["ways"] else cell["ways"].keys()
            apart = {*old.get("apart", ()), *new} - (cell["ways"].keys() - new)
            cell = {**cell, "ways": {**old["ways"], **cell["ways"]}, "apart": sorted(apart)}
        self.cells[name] = cell
        self.path.parent.mkdir(exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.results, indent=1) + "\n")
        new.replace(self.path)


async def measure_wan(options: Namespace, directory: Path) -> dict[str, Any]:
    """Run the cells that are asked for, those of a link between the same hospitals; all results."""
    kept = Kept.opened(KEPT)
    sizes = Sizes(options.runs, options.objects, options.mr, options.frames, options.ways)
    todo: dict[str, list[str]] = {}
    for name in options.cells:
        if not options.resume or name not in kept.cells:
            todo.setdefault(name.partition("@")[2], []).append(name)
    series: dict[str, Series] = {}
    for link, names in todo.items():
        async with setting(Link.named(link), sizes, directory, series, tell) as ready:
            line = {"kind": ready.line.kind, "rate": ready.line.link.rate, **ready.found}
            print(f"{link}: {ready.line.kind}, {_words(ready.found)}", flush=True)
            for name in names:
                print(f"{name}:", flush=True)
                cell = await WORKS[name.partition("@")[0]](ready)
                when = datetime.now(UTC).isoformat(timespec="seconds")
                kept.add(name, {"when": when, "line": line, **cell})
    return kept.results


def _work(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What must be the same for two runs to be of the same cell."""
    return cell.get("bytes"), cell.get("zstd_1_ratio"), cell["line"].get("rate")


def _words(found: dict[str, float]) -> str:
    units = {"ping": "ms", "iperf3": "Mbit/s"}
    return ", ".join(f"{name} {value:.1f} {units[name]}" for name, value in found.items())


def tell(way: str, measured: dict[str, Any]) -> None:
    """Print what a run gave."""
    used = ", ".join(f"{part} {time:.2f}" for part, time in measured["processor"].items())
    if "milliseconds" in measured:
        said = f"{measured['milliseconds']:.1f} ms"
    else:
        said = (
            f"{measured['seconds']:.2f} s (begins after {measured['start_up']:.2f}),"
            f" {measured['megabytes_per_second']:.1f} MB/s, steady"
            f" {measured['steady_megabytes_per_second']:.1f} MB/s ="
            f" {1e3 / measured['steady_objects_per_second']:.1f} ms an object"
        )
    print(f"  {way}: {said}; processor s: {used}", flush=True)
