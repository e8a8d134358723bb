"""Overview: is all well, what moves now, what waits, and what failed last.

Its parts are blocks that are sent anew as they change (relay.pages.live).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.pages.rest import Rest
from relay.pages.site import Site
from relay.router.pages import explaining
from relay.router.pages.chart import chart
from relay.router.pages.first_steps import FirstSteps, Step

# What fits beside the rest without a person's scrolling; all of it is a page away.
FAILURES = 8
# Looked through for them: a study that fails is one trouble, and has hundreds of objects.
FAILED_ITEMS = 100
FINISHED = 8
LIVE = 50

# The blocks, by the ids of their elements, in the order of the page.
BLOCKS = ("state", "moving", "associations", "waiting", "failures", "finished")


@attrs.frozen(slots=True)
class OverviewPage:
    """The first page."""

    site: Site
    steps: FirstSteps

    def routes(self) -> Sequence[Route]:
        return [
            Route("/", self.show, methods=["GET"]),
            Route("/live/overview", self.live, methods=["GET"]),
        ]

    async def show(self, request: Request) -> Response:
        rest = self.site.rest.of(request)
        status = await rest.get("/v1/status")
        step = self.steps.next(status)
        if step is Step.ENROL:
            return await self.site.page(
                request, "enrol.html", title="Join the network", ae_title=status["ae_title"]
            )
        who = self.site.who(request)
        blocks = {name: await self._block(rest, who, name) for name in BLOCKS}
        return await self.site.page(
            request,
            "overview.html",
            blocks=blocks,
            step=step.name.lower(),
            router=status,
            live="/live/overview",
        )

    async def live(self, request: Request) -> Response:
        rest, who = self.site.rest.of(request), self.site.who(request)
        return self.site.live(
            request, {name: partial(self._block, rest, who, name) for name in BLOCKS}
        )

    async def _block(self, rest: Rest, who: Any, name: str) -> str:
        values = await _VALUES[name](rest)
        return self.site.fragment("overview_blocks.html", block=name, who=who, **values)


async def _state(rest: Rest) -> dict[str, Any]:
    status = await rest.get("/v1/status")
    warnings = await rest.get("/v1/warnings")
    asks = await rest.get("/v1/asks")
    return {
        "router": status,
        "remedy": explaining.of_connection(status),
        "warnings": [(warning, explaining.of_warning(warning)) for warning in warnings],
        "asks": len(asks),
    }


async def _moving(rest: Rest) -> dict[str, Any]:
    return {"chart": chart(await rest.get("/v1/rates"))}


async def _associations(rest: Rest) -> dict[str, Any]:
    rows = await rest.get("/v1/associations")
    return {"rows": rows[:LIVE], "more": max(0, len(rows) - LIVE)}


async def _finished(rest: Rest) -> dict[str, Any]:
    rows = await rest.get("/v1/associations/recent")
    return {"rows": _grouped(rows, "calling", "called", "work", "how", "why")[:FINISHED]}


async def _waiting(rest: Rest) -> dict[str, Any]:
    queue = await rest.get("/v1/queue")
    return {"destinations": queue["destinations"], "room": queue["room"]}


async def _failures(rest: Rest) -> dict[str, Any]:
    """Calls that were refused, and objects that were given up, the newest first."""
    refusals = await rest.get("/v1/refusals")
    failed = await rest.get("/v1/queue/items", state="failed", latest="true", limit=FAILED_ITEMS)
    grouped = _grouped(refusals, "calling", "called", "why", "destination")
    rows = [_refused(refusal) for refusal in grouped]
    rows += [_failed(item) for item in _grouped(failed["items"], "device", "called", "reason")]
    rows.sort(key=lambda row: -float(row["time"]))
    return {"rows": rows[:FAILURES], "more": max(0, len(rows) - FAILURES)}


def _grouped(rows: Sequence[Mapping[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Rows that are equal in `names` as their first, with how many there were: a device that calls
    each second is one trouble."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        known = found.setdefault(tuple(row[name] for name in names), {**row, "times": 0})
        known["times"] += 1
    return list(found.values())


def _refused(refusal: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "time": refusal["time"],
        "calling": refusal["calling"],
        "called": refusal["called"],
        "why": refusal["why"],
        "times": refusal["times"],
        "remedy": explaining.of_refusal(refusal),
    }


def _failed(item: Mapping[str, Any]) -> dict[str, Any]:
    label = f"Object {item['number']}"
    href = explaining.link("/transfers/item", number=str(item["number"]))
    if item["times"] > 1:
        label = "See them"
        href = explaining.link("/transfers/items", called=item["called"], state="failed")
    return {
        "time": item["ended"] or item["accepted"],
        "calling": item["device"],
        "called": item["local"],
        "why": item["reason"] or "given up",
        "times": item["times"],
        "remedy": attrs.evolve(explaining.of_item(item), label=label, href=href),
    }


_VALUES = {
    "state": _state,
    "moving": _moving,
    "associations": _associations,
    "waiting": _waiting,
    "failures": _failures,
    "finished": _finished,
}
