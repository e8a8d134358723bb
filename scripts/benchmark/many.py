"""Many small objects queued for a destination that is paused: memory, answers, a crash, and then
their delivery.

They are of a few hundred bytes, a hundred to a study, and come from a few senders at once over
associations of at most 1,000, with as many operations outstanding as the Router grants. What is
measured once is so because it takes long, or because there is one crash in a run.
"""

import signal
import statistics
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import trio

from relay import association, scu
from relay.dicom.negotiation import propose, request
from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from relay.errors import RelayError
from scripts.benchmark import work
from scripts.benchmark.hospitals import ASKING, QueueSite, resident_memory
from scripts.benchmark.installed import PROGRAM
from scripts.benchmark.small import CT_IMAGE, send, small, uid
from tests.interop import peers

CALLED = "STORESCP"

LISTED = 100

# How many of the objects are queued when memory is read, in percent.
STAGES = (10, 50, 100)

# A question is asked so often; the median counts.
QUESTIONS = 5

# Between two tries of whether the Router is there again.
RETRY = 0.01
START_DEADLINE = 120.0


async def many(options: Namespace, directory: Path) -> dict[str, Any]:
    """Memory in bytes, answers in milliseconds, readiness in seconds, objects a second."""
    directory.mkdir(parents=True)
    async with (
        peers.storescp(directory, "--ignore") as scp,
        QueueSite.running(directory / "net", {CALLED: scp.port}) as site,
    ):
        await send(site.address(CALLED), 0, options.small // 100)  # what is loaded once, is
        await site.delivered(CALLED)
        await site.near.relay("queue", "pause", CALLED)
        cell: dict[str, Any] = {"objects": options.small, "object_bytes": len(small(0).data_set())}
        memory = {"0": resident_memory(site.near)}
        sent, seconds = 0, 0.0
        for stage in STAGES:
            until = options.small * stage // 100
            began = time.perf_counter()
            await send(site.address(CALLED), 1_000_000 + sent, until - sent)
            seconds += time.perf_counter() - began
            sent = until
            memory[str(stage)] = resident_memory(site.near)
        cell["intake_per_second"] = options.small / seconds
        cell["answers"] = await _answers(site)
        memory["answers"] = resident_memory(site.near)
        peak = site.near.peak_memory()
        await site.near.stop(signal.SIGKILL)
        cell["ready"] = await _ready(site)
        memory["after the crash"] = resident_memory(site.near)
        if (waiting := await site.waiting(CALLED)) != options.small:
            raise RuntimeError(f"{waiting} objects after the crash, not {options.small}")
        began = time.perf_counter()
        await site.near.relay("queue", "resume", CALLED)
        await site.delivered(CALLED)
        cell["delivery_per_second"] = options.small / (time.perf_counter() - began)
        memory["after delivery"] = resident_memory(site.near)
        return cell | {"memory": memory, "peak_memory": max(peak, site.near.peak_memory())}


# --- the questions --------------------------------------------------------------------------------


async def _answers(site: QueueSite) -> dict[str, float]:
    """Milliseconds of each question, as a person and as a program asks it."""
    answers: dict[str, float] = {}
    rest: dict[str, tuple[str, dict[str, str]]] = {
        "GET /v1/queue": ("/v1/queue", {}),
        "GET /v1/queue/count": ("/v1/queue/count", {}),
        "GET /v1/queue/count?calling=": ("/v1/queue/count", {"calling": work.CALLING}),
        f"GET /v1/queue/items, {LISTED}": ("/v1/queue/items", {"limit": str(LISTED)}),
        f"GET /v1/queue/items, the latest {LISTED}": (
            "/v1/queue/items",
            {"limit": str(LISTED), "latest": "true"},
        ),
        "GET /v1/queue/items?study=": ("/v1/queue/items", {"study": uid("study", 10_000)}),
        f"GET /v1/queue/studies, {LISTED}": ("/v1/queue/studies", {"limit": str(LISTED)}),
        "GET /metrics": ("/metrics", {}),
    }
    async with site.near.rest(ASKING) as client:
        await client.get("/v1/queue")  # the connection is made
        for name, (path, query) in rest.items():

            async def ask(path: str = path, query: dict[str, str] = query) -> None:
                (await client.get(path, params=query)).raise_for_status()

            answers[name] = await _timed(ask)
    for command in (("list",), ("list", "--items"), ("list", "--studies")):

        async def run(command: tuple[str, ...] = command) -> None:
            configuration = ("--config", str(site.near.configuration))
            (await peers.run(*PROGRAM, "queue", *command, *configuration)).check()

        answers[f"relay queue {' '.join(command)}"] = await _timed(run)
    return answers


async def _timed(ask: Callable[[], Awaitable[None]]) -> float:
    times = []
    for _ in range(QUESTIONS):
        began = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


# --- the crash ------------------------------------------------------------------------------------


async def _ready(site: QueueSite) -> dict[str, float]:
    """Start the near Router; the seconds until it does each thing again."""
    found: dict[str, float] = {}
    began = time.perf_counter()

    async def await_first(name: str, attempt: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(OSError, RelayError, httpx.HTTPError):  # it is not there yet
                await attempt()
                found[name] = time.perf_counter() - began
                return
            await trio.sleep(RETRY)

    with trio.fail_after(START_DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.near.start)
            nursery.start_soon(await_first, "association", lambda: _associate(site))
            nursery.start_soon(await_first, "queue", lambda: _overview(site))
    return found


async def _associate(site: QueueSite) -> None:
    """An association for objects, accepted and released."""
    target = site.address(CALLED)
    opened = await association.connect(target.host, target.port)
    try:
        contexts = propose([(CT_IMAGE, [IMPLICIT_VR_LITTLE_ENDIAN])])
        await scu.negotiate(opened, request(target.ae_title, work.CALLING, contexts))
        await scu.release(opened)
    finally:
        await opened.aclose()


async def _overview(site: QueueSite) -> None:
    await site.ask("/v1/queue")
