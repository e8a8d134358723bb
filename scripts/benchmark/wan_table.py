"""What the cells over distance say, as Markdown: the goals, every cell, and what it cost."""

from collections.abc import Sequence
from typing import Any

from scripts.benchmark.goals import GOALS, ROUTERS, Cell, Cells, median, ratio

# Beside Relay's own processes; a cell in which these take more than half is marked.
OUTSIDE = ("link", "devices", "clients")
MARK = "†"
# A way that was measured in another run than Relay.
APART = "‡"

NAMES = {
    "relay": "Relay",
    "relay-queued": "Relay, queued",
    "direct": "DCMTK, 1 association",
    "direct-4": "DCMTK, 4 at once",
    "direct-8": "DCMTK, 8 at once",
    "orthanc": "DCMTK to Orthanc",
    "pynetdicom": "DCMTK to pynetdicom",
    "stow": "STOW-RS over TLS to Orthanc, 4 at once",
}

_GOALS = ("| what | on | goal | reached | |", "|---|---|---|---|---|")

_STORED = (
    "Rates are of objects as they are, from the first association to the last arrival; steady:"
    " between a tenth and nine tenths of the objects. Begin: when the first was there. Processor"
    " time in ms for each MB: of the line, of the programs at its ends, of both Routers and the"
    f" Bridge. {MARK}: the first two took more than half. {APART}: measured in another run than"
    " Relay.",
    "",
    "| work | link | way | s | begin, s | MB/s | steady, MB/s | ms an object | Relay is faster"
    " | link | ends | Router A | Router B | Bridge | peak, MiB |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)

_ASKED = (
    "| question | link | Relay, ms | direct, ms | Relay's, of direct's |",
    "|---|---|---|---|---|",
)


def wan_table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    cells: Cells = results["cells"]
    when = sorted(cell["when"] for cell in cells.values())
    kinds = sorted({cell["line"]["kind"] for cell in cells.values()} - {"loopback"})
    runs = sorted({len(runs) for cell in cells.values() for runs in cell["ways"].values()})
    ratios = sorted({f"{c['zstd_1_ratio']:.2f}" for c in cells.values() if "zstd_1_ratio" in c})
    lines = [
        f"Measured {when[0]} to {when[-1]} on {results['machine']}, Python {results['python']};"
        f" {', '.join(kinds) or 'no line'}, congestion control {results['congestion_control']}"
        f" for all, the kernel's own buffers. Medians of {_span(runs)} runs, all ways of a cell in"
        " turn in each. Objects: real 16-bit CT and MR, tiled, with seeded noise; zstd 1 ratio"
        f" {_span(ratios)}. Every data set that Relay and DCMTK's receiver got was compared with"
        " what was sent (SHA-256).",
        "",
    ]
    for head, rows in (
        (_GOALS, _goals(cells)),
        (_STORED, [row for name, cell in cells.items() for row in _stored(name, cell)]),
        (_ASKED, [row for name, cell in cells.items() for row in _asked(name, cell)]),
    ):
        if rows:
            lines += [*head, *rows, ""]
    return "\n".join(lines) + "\n"


def _span(values: Sequence[object]) -> str:
    if not values:
        return "none"
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _goals(cells: Cells) -> list[str]:
    lines = []
    for goal in GOALS:
        value = goal.reached(cells)
        if value is None:
            continue
        links = [name.partition("@")[2] for name in goal.cells]
        lines.append(
            f"| {goal.words} | {links[0] if len(links) == 1 else f'{links[0]} to {links[-1]}'} |"
            f" {'at most' if goal.at_most else 'at least'} {goal.target:g} |"
            f" {value:.2f} | {'yes' if goal.holds(value) else '**no**'} |"
        )
    return lines


def _stored(name: str, cell: Cell) -> list[str]:
    work, _, link = name.partition("@")
    if "bytes" not in cell:
        return []
    return [f"| {work} | {link} | {_row(cell, way)} |" for way in cell["ways"]]


def _row(cell: Cell, way: str) -> str:
    used = _processor(cell, way)
    megabytes = cell["bytes"] / 1e6
    inner = ("Router A", "Router B", "Bridge")
    beside = sum(used[part] for part in OUTSIDE)
    mark = MARK if beside > sum(used[part] for part in inner) and way.startswith("relay") else ""
    faster = "" if way == "relay" else _faster(cell, way)
    memory = max(size for run in cell["ways"][way] for size in run["memory"].values()) / 2**20
    figures = [
        NAMES.get(way, way) + mark + (APART if way in cell.get("apart", ()) else ""),
        f"{median(cell, way, 'seconds'):.2f}",
        f"{median(cell, way, 'start_up'):.2f}",
        f"{median(cell, way, 'megabytes_per_second'):.1f}",
        f"{median(cell, way, 'steady_megabytes_per_second'):.1f}",
        f"{1e3 / median(cell, way, 'steady_objects_per_second'):.1f}",
        faster,
        f"{used['link'] / megabytes * 1e3:.1f}",
        f"{(used['devices'] + used['clients']) / megabytes * 1e3:.1f}",
    ]
    if way.startswith("relay"):
        figures += [f"{used[part] / megabytes * 1e3:.1f}" for part in inner]
        figures.append(f"{memory:.0f}")
    else:
        figures += ["", "", "", ""]
    return " | ".join(figures)


def _faster(cell: Cell, way: str) -> str:
    return f"{ratio(cell, way, 'relay', 'seconds'):.2f} times" if "relay" in cell["ways"] else ""


def _processor(cell: Cell, way: str) -> dict[str, float]:
    """Means over the runs, in seconds: a clock tick is coarse for one."""
    runs = cell["ways"][way]
    parts = (*ROUTERS, "Bridge", *OUTSIDE)
    return {part: sum(run["processor"][part] for run in runs) / len(runs) for part in parts}


def _asked(name: str, cell: Cell) -> list[str]:
    if "bytes" in cell or not {"relay", "direct"} <= cell["ways"].keys():
        return []
    work, _, link = name.partition("@")
    relay, direct = (median(cell, way, "milliseconds") for way in ("relay", "direct"))
    share = ratio(cell, "relay", "direct", "milliseconds")
    return [f"| {work} | {link} | {relay:.1f} | {direct:.1f} | {share:.2f} |"]
