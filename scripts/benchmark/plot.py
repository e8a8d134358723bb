"""Rate against round trip, for Relay and for what people do without it: a picture for docs/."""

from collections import defaultdict
from pathlib import Path

from scripts.benchmark.goals import Cells, median
from scripts.benchmark.links import Link
from scripts.benchmark.wan_table import NAMES

PICTURE = Path("docs/distance.png")

# Which work, and by its rate in which state. Loss has a place of its own in the table.
WORK, RATE = "queued-ct", "steady_megabytes_per_second"
CONFIRMED = "confirmed-ct"
LABELS = {WORK: "Relay, queued", CONFIRMED: "Relay, confirmed"}

Curves = dict[str, list[tuple[int, float]]]


def curves(cells: Cells, rate: int) -> Curves:
    """(round trip in ms, MB/s) by way, on links of `rate` Mbit/s."""
    found: Curves = defaultdict(list)
    for name, cell in cells.items():
        work, _, place = name.partition("@")
        link = Link.named(place)
        if work not in (WORK, CONFIRMED) or link.rate != rate or link.loss:
            continue
        for way in cell["ways"]:
            if work == WORK or way == "relay":
                label = LABELS[work] if way == "relay" else NAMES.get(way, way)
                found[label].append((link.round_trip, median(cell, way, RATE)))
    return {label: sorted(points) for label, points in found.items()}


def draw(cells: Cells, path: Path = PICTURE) -> bool:
    """Write the picture; False if there is nothing to draw. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = {rate: curves(cells, rate) for rate in (1000, 100)}
    drawn = {rate: found for rate, found in drawn.items() if found}
    if not drawn:
        return False
    figure, axes = pyplot.subplots(1, len(drawn), figsize=(6.5 * len(drawn), 4.5), squeeze=False)
    for axis, (rate, found) in zip(axes[0], drawn.items(), strict=True):
        for label, points in found.items():
            ours = label.startswith("Relay")
            axis.plot(*zip(*points, strict=True), marker="o", label=label, lw=2.5 if ours else 1.2)
        axis.set(
            title=f"CT of 526 KB over {rate} Mbit/s",
            xlabel="round trip from hospital to hospital, ms",
            ylabel="steady rate, MB/s",
            yscale="log",
        )
        axis.grid(True, which="both", alpha=0.3)
        axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True
