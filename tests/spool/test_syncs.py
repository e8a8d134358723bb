"""Syncs without a thread: the kernel does them, and threads where it does not or is not asked."""

import ctypes
import errno
import os
import platform
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from relay.spool import syncs as module
from relay.spool.files import File, Files
from relay.spool.syncs import MAXIMUM_SYNCS, KernelSyncs
from relay.workers import Workers

# Where the kernel is known to do it, it must: elsewhere the same is asked of threads.
SURELY = sys.platform == "linux" and platform.machine() == "x86_64"

MORE = MAXIMUM_SYNCS + 10


class Kernel:
    """Takes the system calls, and does what was asked for when it is told to."""

    def __init__(self) -> None:
        self.fail: dict[str, int] = {}
        self.calls: list[str] = []
        self.asked: list[tuple[int, int, int]] = []  # number, descriptor, eventfd
        self.done: list[tuple[int, int]] = []  # number, result

    def call(self, number: int, *arguments: object) -> int:
        known = module._CALLS["x86_64"]
        names = {known.setup: "setup", known.destroy: "destroy", known.submit: "submit"}
        name = names.get(number, "getevents")
        if (error := self.fail.get(name)) is not None:
            raise OSError(error, os.strerror(error))
        self.calls.append(name)
        if name == "submit":
            requests = arguments[2]
            assert isinstance(requests, ctypes.Array)
            place = ctypes.cast(requests, ctypes.POINTER(ctypes.c_void_p))[0]
            assert place is not None
            request = module._IOCB.unpack(ctypes.string_at(place, module._IOCB.size))
            self.asked.append((request[0], request[5], request[-1]))
            return 1
        if name == "getevents":
            events = arguments[3]
            assert isinstance(events, ctypes.Array)
            for at, (which, result) in enumerate(self.done):
                module._EVENT.pack_into(events, at * module._EVENT.size, which, 0, result, 0)
            count, self.done = len(self.done), []
            return count
        return 0

    def finish(self, at: int = 0, result: int = 0) -> None:
        """What was asked for at this place is done."""
        number, _, told = self.asked.pop(at)
        self.done.append((number, result))
        os.eventfd_write(told, 1)


class Threads:
    """The syncs that were not the kernel's, by the thread that each was made in."""

    def __init__(self) -> None:
        self.used: list[int] = []
        self.fail = 0

    def sync(self, file: File) -> None:
        self.used.append(threading.get_ident())
        if self.fail:
            raise OSError(self.fail, os.strerror(self.fail))
        os.fsync(file.descriptor)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    threads = Threads()
    monkeypatch.setattr(File, "sync", lambda file: threads.sync(file))
    return threads


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(module, "_call", kernel.call)
    monkeypatch.setattr(module, "_is_known_abi", lambda: True)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return kernel


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(2)
    yield workers
    workers.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    file = Files(tmp_path).create("one")
    file.write(b"content")
    yield file
    file.close()


@asynccontextmanager
async def running(syncs: KernelSyncs) -> AsyncIterator[None]:
    """`run` runs meanwhile, and does not end by itself."""
    ended = False

    async def run() -> None:
        nonlocal ended
        await syncs.run()
        ended = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        yield
        await wait_all_tasks_blocked()
        assert not ended
        nursery.cancel_scope.cancel()
    assert not syncs.serving


async def test_the_kernel_does_it_and_no_thread(
    workers: Workers, file: File, threads: Threads
) -> None:
    syncs = KernelSyncs(workers)
    async with running(syncs):
        assert syncs.serving or not SURELY
        for _ in range(3):
            with trio.fail_after(5):
                await syncs.sync(file)
        assert len(threads.used) == (0 if syncs.serving else 3)
    assert not workers.busy


async def test_what_is_asked_for_is_a_sync_of_that_file(
    kernel: Kernel, workers: Workers, file: File, threads: Threads, nursery: trio.Nursery
) -> None:
    syncs = KernelSyncs(workers)
    async with running(syncs):
        nursery.start_soon(syncs.sync, file)
        await wait_all_tasks_blocked()
        ((_, descriptor, told),) = kernel.asked
        assert descriptor == file.descriptor
        assert told == syncs._told
        assert kernel.calls == ["setup", "submit"]
        kernel.finish()
    assert kernel.calls[-1] == "destroy"
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(told)
    assert not threads.used


async def test_where_nothing_runs_a_thread_does_it(
    workers: Workers, file: File, threads: Threads
) -> None:
    syncs = KernelSyncs(workers)
    assert not syncs.serving
    await syncs.sync(file)
    async with running(syncs):
        pass
    await syncs.sync(file)
    assert len(threads.used) == 2
    assert threading.get_ident() not in threads.used


@pytest.mark.parametrize("runs", [False, True])
async def test_what_cannot_be_synced_is_said(workers: Workers, runs: bool) -> None:
    """A pipe has nothing to sync, and what was closed behind a file's back is none."""
    syncs = KernelSyncs(workers)
    reading, writing = os.pipe()

    async def fail() -> None:
        gone = os.dup(writing)
        os.close(gone)
        for descriptor, number in ((writing, errno.EINVAL), (gone, errno.EBADF)):
            with trio.fail_after(5), pytest.raises(OSError) as raised:  # noqa: PT011
                await syncs.sync(File(descriptor))
            assert raised.value.errno == number
        assert syncs.waited == 0

    if runs:
        async with running(syncs):
            await fail()
    else:
        await fail()
    os.close(reading)
    os.close(writing)


async def test_more_at_a_time_than_the_kernel_takes_are_all_done(
    workers: Workers, file: File, threads: Threads
) -> None:
    syncs, done = KernelSyncs(workers), 0

    async def sync() -> None:
        nonlocal done
        await syncs.sync(file)
        done += 1

    async with running(syncs):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(MORE):
                    nursery.start_soon(sync)
        assert done == MORE
        assert len(threads.used) == (MORE - MAXIMUM_SYNCS if syncs.serving else MORE)
        assert syncs.waited == 0


async def test_more_than_so_many_go_by_threads(
    kernel: Kernel, workers: Workers, file: File, threads: Threads
) -> None:
    syncs, done = KernelSyncs(workers), list[int]()

    async def sync(number: int) -> None:
        await syncs.sync(file)
        done.append(number)

    async with running(syncs), trio.open_nursery() as nursery:
        for number in range(MAXIMUM_SYNCS):
            nursery.start_soon(sync, number)
        await wait_all_tasks_blocked()
        assert len(kernel.asked) == MAXIMUM_SYNCS
        for number in range(MAXIMUM_SYNCS, MORE):
            await sync(number)
        assert done == list(range(MAXIMUM_SYNCS, MORE))
        assert len(threads.used) == MORE - MAXIMUM_SYNCS
        kernel.finish(MAXIMUM_SYNCS // 2)
        await wait_all_tasks_blocked()
        assert len(done) == MORE - MAXIMUM_SYNCS + 1
        # There is room for one again.
        nursery.start_soon(sync, MORE)
        await wait_all_tasks_blocked()
        assert len(kernel.asked) == MAXIMUM_SYNCS
        while kernel.asked:
            kernel.finish()
    assert sorted(done) == list(range(MORE + 1))
    assert len(threads.used) == MORE - MAXIMUM_SYNCS


async def test_each_hears_of_its_own(
    kernel: Kernel, workers: Workers, file: File, threads: Threads
) -> None:
    syncs, heard = KernelSyncs(workers), dict[int, str]()
    broken, full = (str(OSError(n, os.strerror(n))) for n in (errno.EIO, errno.ENOSPC))

    async def sync(number: int) -> None:
        try:
            await syncs.sync(file)
        except OSError as error:
            heard[number] = str(error)
        else:
            heard[number] = "done"

    async with running(syncs), trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(sync, number)
            await wait_all_tasks_blocked()
        kernel.finish(2, -errno.EIO)
        await wait_all_tasks_blocked()
        assert heard == {2: broken}
        kernel.finish(0)
        kernel.finish(1, -errno.ENOSPC)
        await wait_all_tasks_blocked()
        assert heard == {2: broken, 0: "done", 3: full}
        kernel.finish(0)
    assert heard == {2: broken, 0: "done", 3: full, 1: "done"}
    assert not threads.used


async def test_what_is_under_way_is_waited_for_at_the_end(
    kernel: Kernel, workers: Workers, file: File, threads: Threads
) -> None:
    syncs, done, ended = KernelSyncs(workers), list[str](), False
    scope = trio.CancelScope()

    async def run() -> None:
        nonlocal ended
        with scope:
            await syncs.run()
        ended = True

    async def sync(name: str) -> None:
        await syncs.sync(file)
        done.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        nursery.start_soon(sync, "one")
        nursery.start_soon(sync, "two")
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert not syncs.serving
        assert (done, ended) == ([], False)
        await sync("by a thread")
        assert (len(threads.used), len(kernel.asked)) == (1, 2)
        kernel.finish()
        await wait_all_tasks_blocked()
        assert (len(done), ended) == (2, False)
        assert "destroy" not in kernel.calls
        kernel.finish()
        await wait_all_tasks_blocked()
        assert (sorted(done), ended) == (["by a thread", "one", "two"], True)
    assert kernel.calls[-1] == "destroy"


async def test_the_kernel_ends_what_it_does_before_the_end(
    workers: Workers, file: File, threads: Threads
) -> None:
    syncs, done = KernelSyncs(workers), 0

    async def sync() -> None:
        nonlocal done
        await syncs.sync(file)
        done += 1

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as inner:
                inner.start_soon(syncs.run)
                await wait_all_tasks_blocked()
                assert syncs.serving or not SURELY
                for _ in range(10):
                    nursery.start_soon(sync)
                await trio.lowlevel.checkpoint()
                inner.cancel_scope.cancel()
            assert not syncs.serving
            assert syncs.waited == 0
    assert done == 10


async def test_who_is_cancelled_waits_nevertheless(
    kernel: Kernel, workers: Workers, file: File
) -> None:
    syncs, done = KernelSyncs(workers), False
    scope = trio.CancelScope()

    async def sync() -> None:
        nonlocal done
        with scope:
            await syncs.sync(file)
            done = True

    async with running(syncs), trio.open_nursery() as nursery:
        nursery.start_soon(sync)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert len(kernel.asked) == 1
        assert not done
        kernel.finish()
    assert done


async def test_who_is_cancelled_has_a_thread_do_it_nevertheless(
    workers: Workers, file: File, threads: Threads
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await KernelSyncs(workers).sync(file)
        assert len(threads.used) == 1


async def test_how_long_the_oldest_is_under_way(
    kernel: Kernel, workers: Workers, file: File, autojump_clock: MockClock
) -> None:
    syncs = KernelSyncs(workers)
    async with running(syncs), trio.open_nursery() as nursery:
        assert syncs.waited == 0
        await trio.sleep(5)
        assert syncs.waited == 0
        nursery.start_soon(syncs.sync, file)
        await wait_all_tasks_blocked()
        await trio.sleep(3)
        nursery.start_soon(syncs.sync, file)
        await wait_all_tasks_blocked()
        assert syncs.waited == pytest.approx(3)
        await trio.sleep(4)
        assert syncs.waited == pytest.approx(7)
        kernel.finish(0)
        await wait_all_tasks_blocked()
        assert syncs.waited == pytest.approx(4)
        kernel.finish(0)
        await wait_all_tasks_blocked()
        assert syncs.waited == 0


async def test_on_a_machine_that_is_not_known_threads_do_it(
    workers: Workers, file: File, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    syncs = KernelSyncs(workers)
    async with running(syncs):
        assert not syncs.serving
        await syncs.sync(file)
        assert len(threads.used) == 1
        assert syncs.waited == 0


async def test_where_its_structures_are_others_threads_do_it(
    kernel: Kernel, workers: Workers, file: File, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_is_known_abi", lambda: False)
    syncs = KernelSyncs(workers)
    async with running(syncs):
        assert not syncs.serving
        await syncs.sync(file)
    assert len(threads.used) == 1
    assert not kernel.calls


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EAGAIN])
async def test_where_the_kernel_is_not_to_be_asked_threads_do_it(
    kernel: Kernel, workers: Workers, file: File, threads: Threads, number: int
) -> None:
    kernel.fail["setup"] = number
    syncs = KernelSyncs(workers)
    async with running(syncs):
        assert not syncs.serving
        await syncs.sync(file)
        assert len(threads.used) == 1
    assert not kernel.calls


async def test_where_no_descriptor_is_left_threads_do_it(
    kernel: Kernel,
    workers: Workers,
    file: File,
    threads: Threads,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(value: int, flags: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "eventfd", fail)
    syncs = KernelSyncs(workers)
    async with running(syncs):
        assert not syncs.serving
        await syncs.sync(file)
        assert len(threads.used) == 1


async def test_what_the_kernel_does_not_take_a_thread_does(
    kernel: Kernel, workers: Workers, file: File, threads: Threads
) -> None:
    syncs = KernelSyncs(workers)
    async with running(syncs):
        kernel.fail["submit"] = errno.EAGAIN
        await syncs.sync(file)
        assert len(threads.used) == 1
        assert syncs.serving
        assert syncs.waited == 0
        threads.fail = errno.EIO
        with pytest.raises(OSError, match="Input/output error"):
            await syncs.sync(file)


async def test_it_runs_again_after_its_end(workers: Workers, file: File, threads: Threads) -> None:
    syncs = KernelSyncs(workers)
    for _ in range(2):
        async with running(syncs):
            assert syncs.serving or not SURELY
            with trio.fail_after(5):
                await syncs.sync(file)
    assert not threads.used or not SURELY


@pytest.mark.parametrize(("number", "serving"), [(errno.EAGAIN, True), (errno.EINVAL, False)])
async def test_what_the_kernel_never_does_it_is_asked_once(
    kernel: Kernel, workers: Workers, file: File, threads: Threads, number: int, serving: bool
) -> None:
    syncs = KernelSyncs(workers)
    async with running(syncs):
        kernel.fail["submit"] = number
        await syncs.sync(file)
        assert len(threads.used) == 1
        assert syncs.serving is serving


async def test_a_signal_does_not_lose_what_is_done(
    kernel: Kernel, workers: Workers, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = KernelSyncs(workers)
    interrupted = 0

    def call(number: int, *arguments: object) -> int:
        nonlocal interrupted
        if number == module._CALLS["x86_64"].getevents and interrupted < 3:
            interrupted += 1
            raise InterruptedError(errno.EINTR, "interrupted")
        return kernel.call(number, *arguments)

    monkeypatch.setattr(module, "_call", call)
    async with running(syncs), trio.open_nursery() as nursery:
        nursery.start_soon(syncs.sync, file)
        await wait_all_tasks_blocked()
        kernel.finish()
    assert interrupted == 3
