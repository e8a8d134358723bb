"""What every process shows of itself."""

import os

from relay import __version__
from relay.metrics.process import METRICS, process_metrics
from relay.metrics.turning import Turning


def test_each_row_is_shown_by_its_name_and_words() -> None:
    shown = {metric.name: metric for metric in process_metrics("router", Turning())}
    rows = {row.name.removesuffix("_total"): row for row in METRICS}
    assert shown.keys() == rows.keys()
    for name, row in rows.items():
        assert (shown[name].type, shown[name].documentation) == (row.type.value, row.words)


def test_the_build_says_mode_and_version() -> None:
    shown = {metric.name: metric for metric in process_metrics("bridge", Turning())}
    labels = shown["relay_build_info"].samples[0].labels
    assert (labels["mode"], labels["version"]) == ("bridge", __version__)
    open_now = len(os.listdir("/proc/self/fd"))
    assert abs(shown["process_open_fds"].samples[0].value - open_now) < 5
