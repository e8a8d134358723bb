"""One id gives an association's whole story, in the logs of three processes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.tracing import LOCAL
from tests.hospitals import ct_image, make, publish, two_hospitals
from tests.interop import peers
from tests.network import POLL, Network, Site

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

DEADLINE = 30.0

Line = dict[str, Any]


def lines(site: Site) -> list[Line]:
    return [json.loads(line) for line in site.output().splitlines()]


def grep(site: Site, word: str) -> list[Line]:
    return [json.loads(line) for line in site.output().splitlines() if word in line]


async def story(
    net: Network, *, begun: str = "association begun", ends: int = 1, **facts: str
) -> dict[str, list]:
    """What the three logs have of the association that began in A with these facts, once over.

    In A that is said `ends` times: of the session, and of the socket.
    """
    near, far = net.routers["A"], net.routers["B"]
    with trio.fail_after(DEADLINE):
        while True:
            for first in lines(near):
                if first["event"] == begun and facts.items() <= first.items():
                    number = first["association"]
                    found = {s.name: grep(s, number) for s in (near, far, net.bridge)}
                    over = [_ends(events(told)) for told in found.values()]
                    if over[0] >= ends and all(over):
                        return found
            await trio.sleep(POLL)


def _ends(events: Sequence[str]) -> int:
    return sum("ended" in event or "refused" in event for event in events)


def events(told: Sequence[Line]) -> list[str]:
    return [line["event"] for line in told]


def last(told: Sequence[Line], event: str) -> Line:
    return [line for line in told if line["event"] == event][-1]


async def test_the_id_is_in_all_three_logs_from_the_beginning_to_the_end(tmp_path: Path) -> None:
    image = ct_image()
    stored = make(tmp_path / "stored")
    async with (
        peers.storescp(stored, ae_title="STORESCP") as scp,
        two_hospitals(tmp_path / "net", "STORESCU") as net,
    ):
        await publish(net, "STORESCP", scp.port, "echo,store")
        sent = await peers.storescu(net.address("A", "STORESCP"), image.path)
        assert sent.status == 0, sent.output
        told = await story(net, calling="STORESCU", work="relayed", ends=2)
        # Before there was a session the call had a name of its own, and the story says which.
        first = told["Hospital A"][0]
        own = grep(net.routers["A"], first["before"])
        ended = [line for line in own if line["event"] == "association ended"]

    near, far, bridge = told["Hospital A"], told["Hospital B"], told["Bridge"]
    for side, router in (("caller", near), ("callee", far)):
        assert events(router)[:2] == ["association begun", "association negotiated"]
        begun, over = router[0], last(router, "relayed association ended")
        assert (begun["side"], begun["called"]) == (side, "STORESCP")
        assert last(router, "association negotiated")["accepted"] > 0
        assert (over["how"], over["by"]) == ("released", "requestor")
        assert over["bytes_outward"] > image.path.stat().st_size // 2
        assert over["messages"] == {"C-STORE-RQ": 1, "C-STORE-RSP": 1}
    assert near[0]["before"].startswith(LOCAL)
    assert [line["event"] for line in own] == ["association asked for", "association begun"]
    assert not ended, "the socket's end is part of the session's story"
    socket = last(near, "association ended")
    assert (socket["why"], socket["bytes_received"] > 0) == ("released", True)
    assert events(bridge) == ["session begun", "session answered", "session ended"]
    assert (bridge[0]["called"], bridge[-1]["reason"]) == ("STORESCP", "FINISHED")
    assert bridge[0]["association"] == near[0]["association"] == far[0]["association"]


async def test_a_call_that_is_refused_has_its_story_too(tmp_path: Path) -> None:
    """The device is switched off: the far Router says so, and the caller hears a rejection."""
    async with two_hospitals(tmp_path / "net", "ECHOSCU") as net:
        await publish(net, "STORESCP", peers.free_port(), "echo,store")
        echoed = await peers.echoscu(net.address("A", "STORESCP"))
        assert echoed.status != 0
        told = await story(net, calling="ECHOSCU", work="relayed")
    near, far, bridge = told["Hospital A"], told["Hospital B"], told["Bridge"]
    over = last(near, "relayed association ended")
    assert over["how"] == "rejected"
    assert "is busy or does not answer its Router" in over["why"]
    refused = last(far, "opening refused")
    assert (refused["refusal"], "device does not answer" in refused["why"]) == ("BUSY", True)
    assert events(bridge) == ["session begun", "session ended"]


async def test_what_is_queued_goes_on_under_the_delivery_s_id(tmp_path: Path) -> None:
    image = ct_image()
    stored = make(tmp_path / "stored")
    async with (
        peers.storescp(stored, ae_title="STORESCP") as scp,
        two_hospitals(tmp_path / "net", "STORESCU") as net,
    ):
        await publish(net, "STORESCP", scp.port, "echo,store")
        near = net.routers["A"]
        await near.relay("destination", "add", "STORESCP", "--queued")
        sent = await peers.storescu(net.address("A", "STORESCP"), image.path)
        assert sent.status == 0, sent.output
        told = await story(net, called="STORESCP", work="delivery")
        taken = last(lines(near), "queued association ended")
        taking = grep(near, taken["association"])
    delivery = last(told["Hospital A"], "delivery ended")
    assert delivery["batch"] == taken["batch"], "the batch joins what was taken in and its delivery"
    assert (delivery["sent"], delivery["delivered"]) == (1, 1)
    assert {"association begun", "association negotiated"} <= set(events(told["Hospital B"]))
    assert events(taking)[0] == "association begun"
    assert taking[0]["work"] == "queued"
    assert taken["association"] != delivery["association"]
    assert events(told["Bridge"])[-1] == "session ended"
