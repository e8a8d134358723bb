"""What a scrape of a Router shows."""

from pathlib import Path

import trio
from prometheus_client.parser import text_string_to_metric_families

from relay.association import TCPAssociation
from relay.dicom.pdu import AAssociateAC, AAssociateRJ, AReleaseRQ
from relay.metrics.described import Type, render
from relay.router import metrics
from relay.router.node import Node
from relay.router.scrape import collect
from relay.scu import respond_to_echo
from tests.router.fakes import proposal, two_hospitals
from tests.router.queue.queues import still_queue

VERIFICATION = "1.2.840.10008.1.1"


async def scp(association: TCPAssociation) -> None:
    await respond_to_echo(association, await association.receive())


class Shown(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """Each sample by its name and labels."""

    def of(self, name: str, **labels: str) -> float:
        return self[name, frozenset(labels.items())]


async def scrape(node: Node, folder: Path) -> Shown:
    folder.mkdir(exist_ok=True)
    async with still_queue(node, folder) as queue:
        text = render(await collect(queue)).decode()
    return Shown(
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )


async def test_every_family_is_a_row_with_its_type_words_and_labels(tmp_path: Path) -> None:
    async with two_hospitals(tmp_path, scp, "echo") as net, still_queue(net.a, tmp_path) as queue:
        net.a.counts.requested("search", "GET", 200, 0.1)
        text = render(await collect(queue)).decode()
    rows = {row.name.removesuffix("_total"): row for row in metrics.METRICS}
    shown = {family.name: family for family in text_string_to_metric_families(text)}
    assert shown.keys() <= rows.keys()
    # The audit's are there once there is one.
    assert all(name.startswith("relay_audit") for name in rows.keys() - shown.keys())
    for name in shown:
        row = rows[name]
        assert (shown[name].type, shown[name].documentation) == (row.type.value, row.words)
        assert row.name.endswith("_total") is (row.type is Type.COUNTER)
        for sample in shown[name].samples:
            assert set(sample.labels) - {"le"} == set(row.labels)


async def test_a_relayed_association_is_counted_at_both_ends(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with two_hospitals(tmp_path, scp, "echo") as net:
            device, answer = await net.call(proposal(VERIFICATION))
            assert isinstance(answer, AAssociateAC)
            near = await scrape(net.a, tmp_path / "qa")
            line = {"direction": "out", "work": "relayed", "device": "WS"}
            assert near.of("relay_associations_live", hospital="Hospital RELAY_B", **line) == 1
            await device.send(AReleaseRQ())
            await device.receive()
            await device.aclose()
            await net.a.live.wait_empty()
            await net.b.live.wait_empty()
            near, far = await scrape(net.a, tmp_path / "qa"), await scrape(net.b, tmp_path / "qb")
    line |= {"hospital": "Hospital RELAY_B", "outcome": "released", "reason": ""}
    assert near.of("relay_associations_total", **line) == 1
    line |= {"direction": "in", "hospital": "Hospital RELAY_A", "device": "PACS"}
    assert far.of("relay_associations_total", **line) == 1
    assert near.of("relay_sessions_total", reason="finished") == 1
    assert near.of("relay_tunnel_chunks_total", way="sent") > 0


async def test_titles_that_nobody_knows_are_one(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with two_hospitals(tmp_path, scp, "echo") as net:
            for calling in ("NOBODY", "STRANGER"):
                device, answer = await net.call(proposal(VERIFICATION, calling=calling))
                assert isinstance(answer, AAssociateRJ)
                await device.aclose()
            device, answer = await net.call(proposal(VERIFICATION, called="NOWHERE"))
            assert isinstance(answer, AAssociateRJ)
            await device.aclose()
            shown = await scrape(net.a, tmp_path / "q")
    line = {"direction": "out", "work": "relayed", "outcome": "rejected"}
    strangers = {"device": "unknown", "reason": "calling AE title not recognized"}
    hospital = "Hospital RELAY_B"
    assert shown.of("relay_associations_total", hospital=hospital, **strangers, **line) == 2
    ours = {"device": "WS", "reason": "called AE title not recognized"}
    assert shown.of("relay_associations_total", hospital="", **ours, **line) == 1
    assert "NOBODY" not in str(shown)
    assert "NOWHERE" not in str(shown)
