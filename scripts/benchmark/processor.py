"""The processor time and the memory of what takes part in a measurement, by part.

Programs that run to their end within a measurement, such as senders, are all this program's own
children: what they used is known once they have ended. Long-lived ones are read while they run,
with the children that they have had (`--fork`).
"""

import os
import resource
from collections.abc import Mapping
from pathlib import Path

import attrs

_TICK = os.sysconf("SC_CLK_TCK")

CLIENTS = "clients"


def processor_time(pid: int) -> float:
    """User and system time so far, in seconds, of a process and its children, ended or not."""
    while True:
        children = _children(pid)
        used = sum(map(int, _status(pid)[11:15])) / _TICK + sum(map(processor_time, children))
        if _children(pid) == children:  # else one was counted twice, or not at all
            return used


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []  # it has ended this moment
    return [int(child) for child in text.split()]


def _status(pid: int) -> list[str]:
    """The fields of proc(5)'s stat after the command's name; zeros where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["0"] * 15


def peak_memory(pid: int) -> int:
    """The most resident memory since `forget_peak`, in bytes (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid}: no VmHWM")


def forget_peak(pid: int) -> None:
    """Have the peak begin anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@attrs.define(slots=True)
class Clock:
    """Processor time by part, from `start` to `read`. `parts` are process ids by part."""

    parts: Mapping[str, list[int]]
    _before: dict[str, float] = attrs.field(factory=dict)

    def start(self) -> None:
        self._before = self._now()

    def read(self) -> dict[str, float]:
        """Seconds by part, the clients that have ended meanwhile among them."""
        return {part: used - self._before[part] for part, used in self._now().items()}

    def _now(self) -> dict[str, float]:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = {part: sum(map(processor_time, pids)) for part, pids in self.parts.items()}
        return {**used, CLIENTS: ended.ru_utime + ended.ru_stime}
