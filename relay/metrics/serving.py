"""GET /metrics: what answers a scrape."""

from collections.abc import Awaitable, Callable, Iterable

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import Metric
from starlette.requests import Request
from starlette.responses import Response

from relay.metrics.described import render

Collect = Callable[[], Awaitable[Iterable[Metric]]]


def metrics_handler(collect: Collect) -> Callable[[Request], Awaitable[Response]]:
    """What answers GET /metrics from `collect`, which is asked anew each time."""

    async def metrics(request: Request) -> Response:
        return Response(render(await collect()), headers={"content-type": CONTENT_TYPE_LATEST})

    return metrics
