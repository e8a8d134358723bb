"""What a scrape of a Bridge shows."""

import trio
from prometheus_client.parser import text_string_to_metric_families

from relay.bridge import metrics
from relay.metrics.both_modes import METRICS as BOTH
from relay.metrics.described import Type
from relay.signalling.messages import End, EndReason

from .conftest import PATIENCE, Bridge, connected

# The audit's are there once it has something to say of.
OPTIONAL = {row.name.removesuffix("_total") for row in BOTH}


async def scrape(bridge: Bridge):
    answer = await bridge.control.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value(shown, name: str, **labels: str) -> float:
    [found] = [
        sample.value
        for family in shown.values()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found


async def test_every_family_is_a_row_with_its_type_words_and_labels(bridge: Bridge) -> None:
    rows = {row.name.removesuffix("_total"): row for row in metrics.METRICS}
    shown = await scrape(bridge)
    assert shown.keys() <= rows.keys()
    assert rows.keys() - shown.keys() <= OPTIONAL
    for name, family in shown.items():
        row = rows[name]
        assert (family.type, family.documentation) == (row.type.value, row.words)
        assert row.name.endswith("_total") is (row.type is Type.COUNTER)
        assert all(set(sample.labels) == set(row.labels) for sample in family.samples)


async def test_routers_sessions_and_messages_are_counted(bridge: Bridge) -> None:
    north, south = await bridge.enrol("North"), await bridge.enrol("South")
    publish = (south.publication("PACS"),)
    grants = ((north.id, "PACS", ("store",)),)
    async with (
        connected(bridge, south, publish=publish, grants=grants),
        connected(bridge, north) as caller,
    ):
        message = north.opening(south, "PACS")
        await caller.client.send(message)
        with trio.fail_after(PATIENCE):
            while value(shown := await scrape(bridge), "relay_bridge_sessions_begun_total") == 0:
                await trio.sleep(0.01)
        assert value(shown, "relay_bridge_routers", state="connected") == 2
        assert value(shown, "relay_bridge_routers", state="enrolled") == 2
        assert value(shown, "relay_bridge_sessions_live") == 1
        assert value(shown, "relay_bridge_signalling_messages_total", kind="open") == 1
        assert value(shown, "relay_bridge_signalling_messages_total", kind="held") == 2
        await caller.client.send(End(message.session, EndReason.FINISHED))
        with trio.fail_after(PATIENCE):
            while not (shown := await scrape(bridge))["relay_bridge_sessions"].samples:
                await trio.sleep(0.01)
    assert value(shown, "relay_bridge_sessions_total", reason="finished") == 1
    assert value(shown, "relay_bridge_sessions_live") == 0
    assert value(shown, "relay_bridge_provider_up", provider="disk") == 1


async def test_without_a_token_the_network_port_shows_no_figures(bridge: Bridge) -> None:
    answer = await bridge.web.get("/metrics")
    assert not answer.is_success
    assert "relay_bridge" not in answer.text
