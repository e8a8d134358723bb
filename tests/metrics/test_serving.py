"""GET /metrics."""

import httpx
from prometheus_client.core import Metric
from starlette.applications import Starlette
from starlette.routing import Route

from relay.metrics.described import Described, Type
from relay.metrics.serving import metrics_handler

THINGS = Described("relay_things_total", Type.COUNTER, "Things.")


async def test_each_scrape_is_asked_anew() -> None:
    counts = [1, 2]

    async def collect() -> list[Metric]:
        return [THINGS.only(counts.pop(0))]

    app = Starlette(routes=[Route("/metrics", metrics_handler(collect))])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://relay") as http:
        for count in (1, 2):
            response = await http.get("/metrics")
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/plain; version=")
            assert f"relay_things_total {count}.0" in response.text
