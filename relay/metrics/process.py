"""What every process of Relay shows of itself: its build, its time and memory, its event loop."""

import platform
from collections.abc import Iterator

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric

from relay import __version__
from relay.metrics.described import Described, Type
from relay.metrics.turning import Turning

BUILD = Described(
    "relay_build_info",
    Type.GAUGE,
    "Always 1: which version of Relay runs, in which mode, on which Python.",
    ("mode", "version", "python"),
)
DELAY = Described(
    "relay_event_loop_delay_seconds",
    Type.GAUGE,
    "By how much the event loop was late at the most, in the last minute.",
)
# Read from /proc by the library: the names and units that every dashboard knows.
PROCESS = (
    Described(
        "process_cpu_seconds_total",
        Type.COUNTER,
        "Total user and system CPU time spent in seconds.",
    ),
    Described("process_virtual_memory_bytes", Type.GAUGE, "Virtual memory size in bytes."),
    Described("process_resident_memory_bytes", Type.GAUGE, "Resident memory size in bytes."),
    Described(
        "process_start_time_seconds",
        Type.GAUGE,
        "Start time of the process since unix epoch in seconds.",
    ),
    Described("process_open_fds", Type.GAUGE, "Number of open file descriptors."),
    Described("process_max_fds", Type.GAUGE, "Maximum number of open file descriptors."),
)
METRICS = (BUILD, DELAY, *PROCESS)


def process_metrics(mode: str, turning: Turning) -> Iterator[Metric]:
    """The metrics of this process, now."""
    yield BUILD.of({(mode, __version__, platform.python_version()): 1})
    yield DELAY.only(turning.delay)
    yield from ProcessCollector(registry=None).collect()
