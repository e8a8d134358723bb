"""Two hospitals that both own a PACS and a WS1: all goes where it was meant."""

import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pydicom
import trio

from tests import images
from tests.hospitals import EVERYTHING, make
from tests.interop import peers
from tests.interop.peers import Peer
from tests.network import LOOPBACK, POLL, START_DEADLINE, Network, network


async def may_use(net: Network, hospital: str, *titles: str) -> None:
    """Wait until `hospital` is told that others grant it something of each of `titles`."""
    with trio.fail_after(START_DEADLINE):
        while True:
            rows = await net.routers[hospital].ask("peer", "list")
            granted = {t["ae_title"] for row in rows for t in row["publishes"] if t["granted"]}
            if granted >= set(titles):
                return
            await trio.sleep(POLL)


async def test_the_second_of_one_name_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    async with network(tmp_path, "A", "B") as net:
        a, b = net.routers["A"], net.routers["B"]
        await net.publish("A", "PACS", 104, "echo,store")
        await net.seen("B", "PACS")
        said = await b.relay(
            *("device", "add", "PACS", LOOPBACK, "104", "--publish", "echo,store"), check=False
        )
        advice = f"`relay device add PACS {LOOPBACK} --as PACS_HB`"
        refusal = (
            "PACS is published by Hospital A already: publish it under another title with " + advice
        )
        assert said == f"relay: PACS is set, but not published: {refusal}\n"
        # It is not lost, and it is not published.
        (device,) = await b.ask("device", "list")
        assert (device["ae_title"], device["refusal"]) == ("PACS", refusal)
        assert refusal in await b.relay("device", "list")
        assert await a.ask("peer", "list") == [
            row | {"publishes": []} for row in await a.ask("peer", "list")
        ]
        # What it said is done, to the letter.
        done = await b.relay(*shlex.split(advice.strip("`"))[1:])
        assert "changed: published as: PACS -> PACS_HB\n" in done
        await net.seen("A", "PACS_HB")
        (device,) = await b.ask("device", "list")
        assert (device["services"], device["refusal"]) == (["echo", "store"], None)
        # From there A's PACS needs another name, and is told from B's own.
        said = await b.relay("alias", "add", "PACS", "PACS", check=False)
        assert said == "relay: 'PACS' is the device PACS: choose another local title\n"
        assert "PACS_A is here for PACS of Hospital A" in await b.relay(
            *("alias", "add", "PACS_A", "PACS")
        )


@attrs.frozen
class Hospital:
    """The devices of one: both know themselves, and their hospital, by the usual names."""

    pacs: Peer
    ws: Peer


@asynccontextmanager
async def hospital(directory: Path) -> AsyncIterator[Hospital]:
    async with (
        peers.dcmqrscp(make(directory), ae_title="PACS") as pacs,
        peers.storescp(directory / "ws", ae_title="WS1") as ws,
    ):
        yield Hospital(pacs, ws)


@asynccontextmanager
async def two_of_each(tmp_path: Path) -> AsyncIterator[tuple[Network, Hospital, Hospital]]:
    """A came first, and is known as it is; B's go by other names, and A's do at B."""
    async with (
        network(tmp_path / "network", "A", "B") as net,
        hospital(tmp_path / "a") as a,
        hospital(tmp_path / "b") as b,
    ):
        await net.publish("A", "PACS", a.pacs.port, EVERYTHING)
        await net.publish("A", "WS1", a.ws.port, "echo,store")
        await net.publish("B", "PACS", b.pacs.port, EVERYTHING, "--as", "PACS_B")
        await net.publish("B", "WS1", b.ws.port, "echo,store", "--as", "WS1_B")
        for published in ("PACS", "WS1"):
            await net.routers["B"].relay("alias", "add", f"{published}_A", published)
        for owner, grantee in (("A", "B"), ("B", "A")):
            for title, services in (("PACS", EVERYTHING), ("WS1", "echo,store")):
                await net.routers[owner].relay(  # by its local title, at both
                    *("grant", "add", f"Hospital {grantee}", title, "--services", services)
                )
        await may_use(net, "A", "PACS_B", "WS1_B")
        await may_use(net, "B", "PACS", "WS1")
        yield net, a, b


async def test_objects_and_queries_go_where_they_are_meant(tmp_path: Path) -> None:
    shipped = {image.path.name: image for image in images.shipped()}
    first, second = shipped["CT_small.dcm"], shipped["MR_small.dcm"]
    async with two_of_each(tmp_path) as (net, a, b):
        ways = (
            # who calls whom by which name, what it sends, how it is seen, whose objects these are
            ("A", "PACS_B", "WS1_B", first, "WS1_A", b),
            ("B", "PACS_A", "WS1_A", second, "WS1_B", a),
        )
        for caller, pacs, ws, image, seen_as, there in ways:
            target = net.address(caller, pacs)
            (await peers.echoscu(target, calling="WS1")).check()
            (await peers.storescu(target, image.path, calling="WS1")).check()
            assert f"{seen_as} -> PACS" in there.pacs.output()
            assert there.ws.stored() == []
            (await peers.storescu(net.address(caller, ws), image.path, calling="WS1")).check()
            assert images_of(there.ws) == {image.sop_instance}
        assert (images_of(a.pacs), images_of(b.pacs)) == (
            {second.sop_instance},
            {first.sop_instance},
        )
        for caller, pacs, *_, image, _, _ in ways:
            keys = ("QueryRetrieveLevel=STUDY", "PatientID", "RetrieveAETitle")
            found = (await peers.findscu(net.address(caller, pacs), *keys, calling="WS1")).check()
            responses = [line for line in found.output.splitlines() if "(0010,0020)" in line]
            assert sum(f"[{patient(image)}" in line for line in responses) == 1
            # Where to retrieve it from, by the name that the caller has for that.
            assert f"[{pacs}" in found.output


def images_of(peer: Peer) -> set[str]:
    """The SOP Instance UIDs of all that it stored."""
    return {
        str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        for path in peer.stored()
        if path.name != "index.dat"
    }


def patient(image: images.Image) -> str:
    return str(pydicom.dcmread(image.path, stop_before_pixels=True).PatientID)
