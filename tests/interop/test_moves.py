"""C-MOVE across sites, with names that two hospitals share, and others' software at every end."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import httpx
import pydicom
import pytest
import trio

from tests.hospitals import ct_image, make
from tests.images import Image, shipped
from tests.interop import peers
from tests.network import Network, network
from tests.tap import Tap, messages, tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

C_STORE_RQ, C_MOVE_RSP = 0x0001, 0x8021
MOVE_ORIGINATOR, MOVE_ORIGINATOR_ID = 0x1030, 0x1031
COMPLETED, FAILED, WARNING = 0x1021, 0x1022, 0x1023

DESTINATION_UNKNOWN = 0xA801
CANCELLED = 0xFE00

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


@attrs.frozen(slots=True)
class Hospital:
    """A hospital that owns a `PACS` and a `WS1`."""

    letter: str
    pacs: peers.Peer
    workstation: peers.Peer
    workstation_tap: Tap

    def received(self) -> list[bytes]:
        """The data sets that its workstation holds."""
        return [peers.data_set_of(path) for path in self.workstation.stored()]


@asynccontextmanager
async def hospitals(
    directory: Path, *letters: str, via_router: bool = False
) -> AsyncIterator[tuple[Network, list[Hospital]]]:
    """Hospitals that all own a `PACS` and a `WS1`, and call each other's `A_PACS`, `B_WS1` …

    Of hospital A these are aliases: it came first, and publishes its own titles as they are. The
    others publish theirs as they are called. Every PACS knows every other hospital's workstation at
    its own Router, or only that Router.
    """
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(network(directory / "net", *letters))
        made = []
        for letter in letters:
            router = net.routers[letter]
            known = [f"RELAY_{letter}"] if via_router else [f"{other}_WS1" for other in letters]
            pacs = await stack.enter_async_context(
                peers.dcmqrscp(
                    directory / f"pacs{letter}",
                    ae_title="PACS",
                    move_destinations=[peers.Address(router.port, title) for title in known],
                )
            )
            workstation = await stack.enter_async_context(
                peers.storescp(directory / f"ws{letter}", ae_title="WS1")
            )
            tapped = await stack.enter_async_context(tap(peers.Address(workstation.port, "WS1")))
            via = ("--move-via", "router") if via_router else ()
            for title, port, services in (
                ("PACS", pacs.port, "store,query,retrieve"),
                ("WS1", tapped.address.port, "store"),
            ):
                published = () if letter == "A" else ("--as", f"{letter}_{title}")
                await net.publish(letter, title, port, services, *published, *via)
                if letter != "A":
                    await router.relay("alias", "add", f"A_{title}", title)
            made.append(Hospital(letter, pacs, workstation, tapped))
        yield net, made


async def fill(pacs: peers.Peer, series: Sequence[Image]) -> list[bytes]:
    """Store at the PACS directly; the data sets that it then holds."""
    result = await peers.storescu(pacs, *[image.path for image in series], calling="FILLER")
    assert result.status == 0, result.output
    return [peers.data_set_of(path) for path in pacs.stored() if path.name != "index.dat"]


def study_of(image: Image) -> str:
    study = pydicom.dcmread(image.path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID
    return f"StudyInstanceUID={study}"


async def move(net: Network, asker: str, holder: str, destination: str, image: Image) -> Tap:
    """C-MOVE the image's study from `holder`, as WS1 of hospital `asker`; what its socket saw."""
    async with tap(net.address(asker, holder)) as near:
        await peers.movescu(
            near.address, destination, "QueryRetrieveLevel=STUDY", study_of(image), calling="WS1"
        )
        return near


def final(near: Tap) -> tuple[int | None, ...]:
    """Status of the last C-MOVE-RSP, and its counts of completed, failed, warning."""
    [association] = near.associations
    *_, last = (m for m in messages(bytes(association.answered)) if m.field == C_MOVE_RSP)
    return (last.status, *(last.number(element) for element in (COMPLETED, FAILED, WARNING)))


async def test_a_study_moves_to_the_askers_own_workstation_and_to_a_third_hospital(
    tmp_path: Path,
) -> None:
    """In each direction, though all three hospitals own a PACS and a WS1."""
    image = ct_image()
    async with hospitals(tmp_path, "A", "B", "C") as (net, [a, b, c]):
        held = await fill(b.pacs, [image])
        await net.grant(owner="B", grantee="A", ae_title="B_PACS", services="query,retrieve")
        near = await move(net, "A", "B_PACS", "WS1", image)
        assert final(near) == (0, 1, 0, 0)
        assert (a.received(), b.received(), c.received()) == (held, [], [])
        assert originators(a) == [("WS1", 1)]

        # To the third, that must have granted it to who holds the objects; A's word is not enough.
        assert final(await move(net, "A", "B_PACS", "C_WS1", image))[0] == DESTINATION_UNKNOWN
        await net.grant(owner="C", grantee="A", ae_title="C_WS1", services="store")
        assert final(await move(net, "A", "B_PACS", "C_WS1", image))[0] == DESTINATION_UNKNOWN
        await net.grant(owner="C", grantee="B", ae_title="C_WS1", services="store")
        await granted_to_us(net, "B", "C_WS1")
        near = await move(net, "A", "B_PACS", "C_WS1", image)
        assert final(near) == (0, 1, 0, 0)
        assert (len(a.received()), b.received(), c.received()) == (1, [], held)
        assert originators(c) == [("A_WS1", 1)]  # who asked, by the name that C has for it

        # To a device of the holder's own hospital only where A could store by itself.
        assert final(await move(net, "A", "B_PACS", "B_WS1", image))[0] == DESTINATION_UNKNOWN
        await net.grant(owner="B", grantee="A", ae_title="B_WS1", services="store")
        for destination in ("NOWHERE", "RELAY_A", "RELAY_B", "A_PACS2", "C_PACS"):
            near = await move(net, "A", "B_PACS", destination, image)
            assert final(near)[0] == DESTINATION_UNKNOWN, destination
        assert (len(a.received()), b.received(), c.received()) == (1, [], held)

        # And back: B's workstation fetches from A's archive of the same name as its own.
        held = await fill(a.pacs, [image])
        await net.grant(owner="A", grantee="B", ae_title="PACS", services="query,retrieve")
        near = await move(net, "B", "A_PACS", "WS1", image)
        assert final(near) == (0, 1, 0, 0)
        assert (len(a.received()), b.received(), c.received()) == (1, held, held)
        assert originators(b) == [("WS1", 1)]


async def granted_to_us(net: Network, letter: str, title: str) -> None:
    """Wait until the Router of a hospital knows that `title` grants it something."""
    with trio.fail_after(20):
        while True:
            rows = await net.routers[letter].ask("peer", "list")
            titles = [published for row in rows for published in row["publishes"]]
            if any(t["ae_title"] == title and t["granted"] for t in titles):
                return
            await trio.sleep(0.05)


def originators(hospital: Hospital) -> list[tuple[str | None, int | None]]:
    """Move Originator and its Message ID of each C-STORE that reached a workstation."""
    return originators_of(hospital.workstation_tap)


def originators_of(tapped: Tap) -> list[tuple[str | None, int | None]]:
    """The same of any device."""
    return [
        (message.text(MOVE_ORIGINATOR), message.number(MOVE_ORIGINATOR_ID))
        for association in tapped.associations
        for message in messages(bytes(association.requested))
        if message.field == C_STORE_RQ
    ]


@pytest.mark.parametrize("omits", [False, True], ids=["names-originator", "omits-originator"])
async def test_a_holder_that_knows_only_its_router_moves_to_several_destinations_at_once(
    tmp_path: Path, omits: bool
) -> None:
    """Each object reaches the destination that was meant, or is reported as failed."""
    images = [i for i in shipped() if (i.sop_class, i.transfer_syntax) == (CT, EXPLICIT)][:3]
    assert len(images) == 3
    served = make(tmp_path / "served")
    for image in images:
        shutil.copy(image.path, served)
    async with hospitals(tmp_path, "A", "B", "C", via_router=True) as (net, [a, b, c]):
        router = net.routers["B"]
        options = ["--destination", f"RELAY_B={router.port}", "--slow", "0.5"]
        if omits:
            options.append("--no-originator")
        async with peers.pynetdicom_holder(tmp_path / "holder", served, *options) as holder:
            await net.publish("B", "HOLDER", holder.port, "retrieve", "--move-via", "router")
            for grantee in ("A", "C"):
                await net.grant(owner="B", grantee=grantee, ae_title="HOLDER", services="retrieve")
            await net.seen("B", "C_WS1")
            outcomes = {}

            async def ask(hospital: Hospital) -> None:
                near = await move(net, hospital.letter, "HOLDER", "WS1", images[0])
                outcomes[hospital.letter] = final(near)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, a)
                nursery.start_soon(ask, c)
            for hospital in (a, c):
                status, completed, *_ = outcomes[hospital.letter]
                assert len(hospital.received()) == (completed or 0), outcomes
                assert (status == 0) == (completed == len(images)), outcomes
                if not omits:
                    assert status == 0, outcomes
                    assert originators(hospital) == [("WS1", 1)] * len(images)
            assert b.received() == []
            assert len(outcomes) == 2
            if omits:  # one after the other it can
                await ask(a)
                assert outcomes["A"][:2] == (0, len(images))


async def test_what_a_destination_answers_is_counted_and_a_move_can_be_cancelled(
    tmp_path: Path,
) -> None:
    """PS3.4 §C.4.2.1.5 and §C.4.2.1.7: statuses and counters are those of the real destination."""
    images = [i for i in shipped() if (i.sop_class, i.transfer_syntax) == (CT, EXPLICIT)][:4]
    served = make(tmp_path / "served")
    for image in images:
        shutil.copy(image.path, served)
    async with network(tmp_path / "net", "A", "B") as net, AsyncExitStack() as stack:
        for title, status in (("FULL", "A700"), ("WARNS", "B007"), ("FINE", "0000")):
            workstation = await stack.enter_async_context(
                peers.pynetdicom_scp(tmp_path / title, "--status", status, ae_title=title)
            )
            await net.publish("A", title, workstation.port, "store")
        known = [f"{title}={net.routers['B'].port}" for title in ("FULL", "WARNS", "FINE")]
        options = [option for entry in known for option in ("--destination", entry)]
        holder = await stack.enter_async_context(
            peers.pynetdicom_holder(tmp_path / "holder", served, "--slow", "0.3", *options)
        )
        await net.device("A", "WS1")
        await net.publish("B", "HOLDER", holder.port, "retrieve")
        await net.grant(owner="B", grantee="A", ae_title="HOLDER", services="retrieve")
        await net.seen("B", "FINE")
        assert final(await move(net, "A", "HOLDER", "FULL", images[0])) == (0xA702, 0, 4, 0)
        assert final(await move(net, "A", "HOLDER", "WARNS", images[0])) == (0xB000, 0, 0, 4)
        async with tap(net.address("A", "HOLDER")) as near:
            keys = ("QueryRetrieveLevel=STUDY", study_of(images[0]))
            options = ["-S", "--cancel", "1"]
            await peers.movescu(near.address, "FINE", *keys, options=options, calling="WS1")
        status, completed, *_ = final(near)
        stored = len(list((tmp_path / "FINE").glob("*.dataset")))
        assert status == CANCELLED
        assert completed == stored
        assert stored < len(images)


async def test_orthanc_and_pynetdicom_ask_orthanc(tmp_path: Path) -> None:
    """The asker's archive is the destination; both hospitals call theirs `PACS`."""
    image = ct_image()
    async with network(tmp_path / "net", "A", "B") as net, AsyncExitStack() as stack:
        archives = {}
        for letter, other in (("A", "B"), ("B", "A")):
            known = [net.address(letter, f"{other}_PACS")]
            archives[letter] = await stack.enter_async_context(
                peers.orthanc(tmp_path / letter, ae_title="PACS", modalities=known)
            )
            await net.publish(
                letter,
                "PACS",
                archives[letter].port,
                "store,query,retrieve",
                *("--as", f"{letter}_PACS"),
            )
        await net.grant(owner="B", grantee="A", ae_title="B_PACS", services="query,retrieve")
        await net.seen("B", "A_PACS")
        await archives["B"].upload(image.path)
        asker = archives["A"]
        query = await asker.call(
            "B_PACS", "query", {"Level": "Study", "Query": {"StudyInstanceUID": ""}}
        )
        async with httpx.AsyncClient(
            base_url=asker.http, trust_env=False, timeout=peers.RUN_DEADLINE
        ) as client:
            answer = await client.post(f"/queries/{query['ID']}/retrieve", content="PACS")
            assert answer.is_success, answer.text
            assert list(await asker.instances()) == [image.sop_instance]
            for stored in (await client.get("/instances")).json():
                await client.delete(f"/instances/{stored}")
        result = await peers.pynetdicom(
            "movescu",
            net.address("A", "B_PACS"),
            *("-aem", "PACS", "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", study_of(image)),
            calling="PACS",
        )
        assert result.status == 0, result.output
        assert list(await asker.instances()) == [image.sop_instance]
