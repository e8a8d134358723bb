"""Something opened once for all tests of a module.

pytest-trio has no fixtures wider than a function, and a network of real processes takes seconds to
start. So it is held open by a trio run of its own, in a thread beside the tests':

    @pytest.fixture(scope="module")
    def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
        with kept(lambda: network(tmp_path_factory.mktemp("net"), "A", "B")) as net:
            yield net

What a test awaits runs in the test's own trio: of what is kept it may start programs, connect to
ports and read, but wait for nothing and stop nothing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, TypeVar

import trio

T = TypeVar("T")


@contextmanager
def kept(manager: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """What `manager()` gives, open until the block ends. Raises whatever ended it earlier."""
    opened: Future[tuple[T, trio.lowlevel.TrioToken, trio.Event]] = Future()

    async def hold() -> None:
        leave = trio.Event()
        async with manager() as it:
            opened.set_result((it, trio.lowlevel.current_trio_token(), leave))
            await leave.wait()

    with ThreadPoolExecutor(1) as executor:
        held = executor.submit(trio.run, hold)
        either: list[Future[Any]] = [held, opened]
        wait(either, return_when=FIRST_COMPLETED)
        if held.done():
            held.result()
        it, token, leave = opened.result()
        try:
            yield it
        finally:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(leave.set)
            held.result()
