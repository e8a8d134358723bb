"""Cells over distance: which are run, what is kept of them, what is said of them."""

import itertools
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmark import wan
from scripts.benchmark.goals import GOALS, Goal, line_share, ratio, router_time
from scripts.benchmark.plot import curves
from scripts.benchmark.wan import ALL, USUAL, Kept, chosen, measure_wan
from scripts.benchmark.wan_table import MARK, wan_table


def run(seconds: float, link: float = 0.1, router: float = 1.0) -> dict[str, Any]:
    """One run of a cell of ten objects of 10 MB."""
    return {
        "seconds": seconds,
        "start_up": 0.5,
        "objects_per_second": 10 / seconds,
        "megabytes_per_second": 100 / seconds,
        "steady_objects_per_second": 10 / seconds,
        "steady_megabytes_per_second": 100 / seconds,
        "wire_bytes": 50_000_000,
        "memory": {"Bridge": 80 << 20, "Router A": 100 << 20, "Router B": 90 << 20},
        "processor": {
            **{"Router A": router, "Router B": router / 2, "Bridge": 0.1},
            **{"link": link, "devices": 0.2, "clients": 0.2},
        },
    }


def cell(relay: list[float], direct: list[float], **more: float) -> dict[str, Any]:
    return {
        "when": "2026-01-01T00:00:00+00:00",
        "line": {"kind": "link.c", "rate": 1000, "ping": 100.0, "iperf3": 80.0},
        "objects": 10,
        "bytes": 100_000_000,
        "zstd_1_ratio": 1.42,
        "ways": {
            "relay": [run(seconds, **more) for seconds in relay],
            "direct": [run(seconds) for seconds in direct],
        },
    }


def results(**cells: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": "2 cores",
        "python": "3.11",
        "congestion_control": "cubic",
        "cells": {name.replace("__", "@").replace("_", "-"): c for name, c in cells.items()},
    }


# --- which cells ----------------------------------------------------------------------------------


def test_the_cells_with_goals_are_the_usual_ones() -> None:
    wanted = {name for goal in GOALS for name in goal.cells}
    assert wanted <= set(USUAL)
    assert set(USUAL) <= set(ALL)
    assert set(chosen(None, everything=False)) == set(USUAL)
    assert set(chosen(None, everything=True)) == set(ALL)


def test_cells_by_pattern_and_links_of_ones_own() -> None:
    assert set(chosen(["echo@*"], everything=False)) == {n for n in ALL if n.startswith("echo@")}
    assert chosen(["echo@7ms-3M"], everything=False) == ["echo@7ms-3M"]


@pytest.mark.parametrize("pattern", ["nothing@100ms-1000M", "echo@far", "echo"])
def test_no_such_cells(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"no such cells|no link"):
        chosen([pattern], everything=False)


def test_the_cells_of_a_link_come_one_after_the_other() -> None:
    links = [name.partition("@")[2] for name in chosen(None, everything=True)]
    assert len([link for link, _ in itertools.groupby(links)]) == len(set(links))


# --- what is kept ---------------------------------------------------------------------------------


def test_what_was_measured_is_kept_at_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "build" / "kept.json"
    line = {"kind": "link", "rate": 1e9}
    Kept.opened(path).add("echo@20ms-1000M", {"ways": {}, "line": line})
    Kept.opened(path).add("echo@loopback", {"ways": {"relay": []}, "line": line})
    found = Kept.opened(path).results
    assert list(found["cells"]) == ["echo@loopback", "echo@20ms-1000M"]  # in the usual order
    assert found["congestion_control"] == "cubic"


def test_ways_of_the_same_work_stay_and_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"

    def add(size: int, **ways: list[int]) -> tuple[dict[str, list[int]], list[str]]:
        line = {"kind": "link", "rate": 1e9}
        Kept.opened(path).add("queued-ct@loopback", {"bytes": size, "line": line, "ways": ways})
        kept = Kept.opened(path).cells["queued-ct@loopback"]
        return kept["ways"], kept.get("apart", [])

    assert add(5, relay=[1], direct=[2]) == ({"relay": [1], "direct": [2]}, [])
    assert add(5, stow=[3]) == ({"relay": [1], "direct": [2], "stow": [3]}, ["stow"])
    assert add(5, relay=[4], stow=[5])[1] == ["direct"]
    assert add(6, relay=[7]) == ({"relay": [7]}, [])  # other work


# --- what is said ---------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_runs_ratios() -> None:
    made = cell([1.0, 2.0, 4.0], [10.0, 10.0, 80.0])
    assert ratio(made, "direct", "relay", "seconds") == 10  # not 10 / 2


def test_the_routers_time_is_of_the_one_that_used_more() -> None:
    assert router_time(cell([1.0], [1.0])) == 10.0  # 1 s for 100 MB


def test_the_share_of_the_line_counts_what_is_sent_on_it() -> None:
    assert line_share(cell([10.0], [10.0])) == 0.5  # 10 MB/s, halved: 40 of 80 Mbit/s


def test_a_goal_that_was_not_measured_is_not_told() -> None:
    goal = Goal("x", ("echo@loopback",), lambda cell: 1.0, 2)
    assert goal.reached({}) is None
    assert goal.reached({"echo@loopback": {}}) == 1.0
    assert not goal.holds(1.0)
    assert Goal("x", ("",), lambda cell: 1.0, 2, at_most=True).holds(1.0)


def test_the_table() -> None:
    text = wan_table(results(queued_ct__100ms_1000M=cell([1.0], [13.0])).copy())
    text = text.replace("  ", " ")
    assert (
        "| queued CT: times faster than direct | 100ms-1000M | at least 12 | 13.00 | yes |" in text
    )
    assert "| queued-ct | 100ms-1000M | DCMTK, 1 association | 13.00 |" in text
    assert f"Relay{MARK}" not in text


def test_a_cell_that_measures_the_line_more_than_relay_is_marked() -> None:
    text = wan_table(results(queued_ct__100ms_1000M=cell([1.0], [13.0], link=3.0)))
    assert f"| Relay{MARK} |" in text


def test_the_curves_of_the_picture() -> None:
    found = curves(
        results(
            queued_ct__100ms_1000M=cell([1.0], [10.0]),
            queued_ct__20ms_1000M=cell([2.0], [10.0]),
            queued_ct__20ms_100M=cell([2.0], [10.0]),
            confirmed_ct__20ms_1000M=cell([5.0], [10.0]),
        )["cells"],
        1000,
    )
    assert found["Relay, queued"] == [(20, 50.0), (100, 100.0)]
    assert found["Relay, confirmed"] == [(20, 20.0)]
    assert found["DCMTK, 1 association"] == [(20, 10.0), (100, 10.0)]


# --- a whole cell ---------------------------------------------------------------------------------


@pytest.mark.interop
@pytest.mark.timeout(300)
async def test_cells_on_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes part but a line; what arrives is compared in there."""
    monkeypatch.setattr(wan, "KEPT", tmp_path / "kept.json")
    options = Namespace(
        cells=["queued-ct@loopback", "move@loopback", "find-1@loopback"],
        **{"runs": 1, "objects": 3, "mr": 3, "frames": 2**20, "resume": False},
        ways=frozenset({"relay", "relay-queued", "direct"}),
    )
    found = await measure_wan(options, tmp_path)
    assert json.loads((tmp_path / "kept.json").read_text()) == found
    assert set(found["cells"]) == set(options.cells)
    [stored] = found["cells"]["queued-ct@loopback"]["ways"]["relay"]
    assert 0 < stored["start_up"] <= stored["seconds"]
    assert "| find-1 | loopback |" in wan_table(found)

    # Taken up again there is nothing left to do.
    options.resume = True
    assert await measure_wan(options, tmp_path / "again") == found
