"""Metrics and health of real processes, as Prometheus and a probe ask for them."""

import re
import ssl
from pathlib import Path

import httpx
import pytest
import trio

from tests.network import POLL, Site, network

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

DEADLINE = 40.0


def value(text: str, name: str) -> float:
    (found,) = re.findall(rf"(?m)^{re.escape(name)} (\S+)$", text)
    return float(found)


async def ask(site: Site, path: str) -> httpx.Response:
    async with site.rest() as client:
        return await client.get(path)


async def until(site: Site, part: str, state: str) -> httpx.Response:
    """The readiness once that part of it is so."""
    with trio.fail_after(DEADLINE):
        while (answer := await ask(site, "/readyz")).json()["parts"][part] != state:
            await trio.sleep(POLL)
    return answer


async def test_a_scrape_needs_a_token_and_a_probe_none(tmp_path: Path) -> None:
    async with network(tmp_path, "A") as net:
        trust = ssl.create_default_context(cafile=str(net.ca_file))
        url = f"https://127.0.0.1:{net.wire.port}"
        token = (
            await net.bridge.relay("person", "token", "add", "prometheus", "--role", "viewer")
        ).split()[-1]
        async with httpx.AsyncClient(base_url=url, verify=trust, trust_env=False) as client:
            stranger = await client.get("/metrics")
            assert (stranger.status_code, "relay_" in stranger.text) == (401, False)
            bearer = {"authorization": f"Bearer {token}"}
            scrape = await client.get("/metrics", headers=bearer)
            assert scrape.status_code == 200
            assert value(scrape.text, 'relay_bridge_routers{state="connected"}') == 1
            assert (await client.get("/healthz")).json()["status"] == "ok"
            ready = await client.get("/readyz")
        assert ready.json()["parts"] == {"database": "ok", "object store": "ok"}


async def test_a_router_says_when_it_loses_the_bridge(tmp_path: Path) -> None:
    async with network(tmp_path, "A") as net:
        near = net.routers["A"]
        assert (await until(near, "bridge", "ok")).status_code == 200
        text = (await ask(near, "/metrics")).text
        assert value(text, "relay_signalling_connected") == 1
        assert value(text, "relay_enrolled") == 1
        assert value(text, "process_resident_memory_bytes") > 2**20
        await net.bridge.stop()
        assert (await until(near, "bridge", "not connected")).status_code == 503
        assert (await ask(near, "/healthz")).status_code == 200
        text = (await ask(near, "/metrics")).text
        assert value(text, "relay_signalling_connected") == 0
        await net.bridge.start()
        await until(near, "bridge", "ok")
        text = (await ask(near, "/metrics")).text
        assert value(text, "relay_signalling_connections_total") == 2
