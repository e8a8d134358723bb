"""C-MOVE into a queued destination: the holder is done at once, the requestor hears the truth."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from tests.hospitals import ct_image, make
from tests.images import Image, shipped
from tests.interop import peers
from tests.interop.test_moves import (
    C_MOVE_RSP,
    CT,
    EXPLICIT,
    final,
    granted_to_us,
    move,
    originators_of,
    study_of,
)
from tests.network import Network, network
from tests.tap import Message, Tap, messages, tap

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

IMPLICIT = "1.2.840.10008.1.2"
PENDING, CANCELLED = 0xFF00, 0xFE00
REMAINING = 0x1020

# From what is awaited to its coming, at most.
DELIVERY = 60.0


@attrs.frozen(slots=True)
class There:
    """Hospital A's WS1 asks; hospital B's HOLDER has `images`, and queues what goes to A."""

    net: Network
    images: list[Image]
    directory: Path

    async def destination(self, title: str, port: int) -> None:
        """A device of A that B's objects are queued for."""
        takes = self.directory / "takes.json"  # said, so that it need not be found out
        takes.write_text(json.dumps({CT: [EXPLICIT, IMPLICIT]}))
        await self.net.publish("A", title, port, "store", "--declares", str(takes))
        await self.net.grant(owner="A", grantee="B", ae_title=title, services="store")
        await granted_to_us(self.net, "B", title)
        await self.net.routers["B"].relay("destination", "add", title, "--queued")

    async def move(self, title: str) -> Tap:
        return await move(self.net, "A", "HOLDER", title, self.images[0])


@asynccontextmanager
async def there(directory: Path, *titles: str, slow: float = 0.0) -> AsyncIterator[There]:
    """Whose HOLDER knows these destinations."""
    images = [i for i in shipped() if (i.sop_class, i.transfer_syntax) == (CT, EXPLICIT)][:4]
    assert len(images) == 4
    served = make(directory / "served")
    for image in images:
        shutil.copy(image.path, served)
    async with network(directory / "net", "A", "B") as net:
        known = [f"{title}={net.routers['B'].port}" for title in titles]
        options = [option for entry in known for option in ("--destination", entry)]
        async with peers.pynetdicom_holder(
            directory / "holder", served, "--slow", str(slow), *options
        ) as holder:
            await net.device("A", "WS1")
            await net.publish("B", "HOLDER", holder.port, "retrieve")
            await net.grant(owner="B", grantee="A", ae_title="HOLDER", services="retrieve")
            yield There(net, images, directory)


def responses(near: Tap) -> list[Message]:
    """Each C-MOVE-RSP that has come by now, in order."""
    answered = b"".join(bytes(association.answered) for association in near.associations)
    return [message for message in messages(whole(answered)) if message.field == C_MOVE_RSP]


def whole(stream: bytes) -> bytes:
    """The stream without a PDU of which not all has come (PS3.8 §9.3.1)."""
    at = 0
    while (end := at + 6 + int.from_bytes(stream[at + 2 : at + 6], "big")) <= len(stream) > at:
        at = end
    return stream[:at]


def statuses(near: Tap) -> list[int | None]:
    return [response.status for response in responses(near)]


def remaining(near: Tap) -> list[int | None]:
    return [response.number(REMAINING) for response in responses(near)]


async def test_the_final_response_says_what_the_destination_answered(tmp_path: Path) -> None:
    """PS3.4 §C.4.2.1.5: though the holder was told 0000 for each of them."""
    answers = {"FINE": "0000", "WARNS": "B007", "REFUSES": "A900"}
    async with there(tmp_path, *answers) as b:
        for title, status in answers.items():
            async with peers.pynetdicom_scp(
                tmp_path / title, "--status", status, ae_title=title
            ) as workstation:
                await b.destination(title, workstation.port)
                near = await b.move(title)
            expected = {"FINE": (0, 4, 0, 0), "WARNS": (0xB000, 0, 0, 4)}
            assert final(near) == expected.get(title, (0xA702, 0, 4, 0))
            *_, last = responses(near)
            names = [image.sop_instance.encode() for image in b.images]
            named = [name for name in names if name in (last.data_set or b"")]
            assert named == (names if title == "REFUSES" else [])


async def test_it_waits_for_a_destination_that_is_away(tmp_path: Path) -> None:
    """And says meanwhile how many remain; then all of them are there."""
    async with there(tmp_path, "FINE") as b:
        # It was there once, so that it is known what it takes.
        async with peers.pynetdicom_scp(tmp_path / "FINE", ae_title="FINE") as workstation:
            await b.destination("FINE", workstation.port)
            assert final(await b.move("FINE")) == (0, 4, 0, 0)
        for path in (tmp_path / "FINE").glob("*.dataset"):
            path.unlink()

        async with tap(b.net.address("A", "HOLDER")) as near, trio.open_nursery() as nursery:
            keys = ("QueryRetrieveLevel=STUDY", study_of(b.images[0]))
            nursery.start_soon(partial(peers.movescu, near.address, "FINE", *keys, calling="WS1"))
            with trio.fail_after(DELIVERY):
                while 4 not in remaining(near)[4:]:  # the holder has none left by then
                    await trio.sleep(0.1)
            assert PENDING in statuses(near)
            assert set(statuses(near)) == {PENDING}
            async with peers.pynetdicom_scp(tmp_path / "FINE", ae_title="FINE") as workstation:
                await b.net.publish("A", "FINE", workstation.port, "store")
                with trio.fail_after(DELIVERY):
                    while statuses(near)[-1] == PENDING:
                        await trio.sleep(0.1)
        assert final(near) == (0, 4, 0, 0)
        assert len(list((tmp_path / "FINE").glob("*.dataset"))) == 4


async def test_who_cancels_need_not_wait(tmp_path: Path) -> None:
    async with there(tmp_path, "FINE", slow=0.2) as b:
        async with peers.pynetdicom_scp(tmp_path / "FINE", ae_title="FINE") as workstation:
            await b.destination("FINE", workstation.port)
            assert final(await b.move("FINE"))[0] == 0
        async with tap(b.net.address("A", "HOLDER")) as near:
            keys = ("QueryRetrieveLevel=STUDY", study_of(b.images[0]))
            with trio.fail_after(DELIVERY):
                await peers.movescu(
                    near.address, "FINE", *keys, options=["-S", "--cancel", "1"], calling="WS1"
                )
        assert statuses(near)[-1] == CANCELLED


async def test_a_holder_that_knows_only_its_router_moves_into_the_queue(tmp_path: Path) -> None:
    """To one destination; to two at once its objects go through confirmed."""
    async with there(tmp_path, "RELAY_B", slow=0.3) as b, AsyncExitStack() as stack:
        via = ("--move-via", "router")
        holder = await b.net.routers["B"].ask("device", "list")
        (port,) = [row["port"] for row in holder if row["ae_title"] == "HOLDER"]
        await b.net.publish("B", "HOLDER", port, "retrieve", *via)
        for title, status in (("FINE", "0000"), ("WARNS", "B007")):
            workstation = await stack.enter_async_context(
                peers.pynetdicom_scp(tmp_path / title, "--status", status, ae_title=title)
            )
            await b.destination(title, workstation.port)
        assert final(await b.move("FINE")) == (0, 4, 0, 0)
        assert final(await b.move("WARNS")) == (0xB000, 0, 0, 4)
        log = b.net.routers["B"].output()
        assert log.count('"event": "move answered"') == 2

        outcomes = {}

        async def ask(title: str) -> None:
            outcomes[title] = final(await b.move(title))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "FINE")
            nursery.start_soon(ask, "WARNS")
        assert outcomes == {"FINE": (0, 4, 0, 0), "WARNS": (0xB000, 0, 0, 4)}


async def test_dcmtk_and_orthanc_hold_what_is_queued(tmp_path: Path) -> None:
    """Each sends it as it does without a queue, and each requestor hears that it arrived."""
    image = ct_image()
    async with network(tmp_path / "net", "A", "B") as net, AsyncExitStack() as stack:
        router = net.routers["B"]
        async with (
            peers.storescp(tmp_path / "ws", ae_title="WS1") as workstation,
            peers.dcmqrscp(
                tmp_path / "dcmqrscp",
                ae_title="DCMQRSCP",
                move_destinations=[peers.Address(router.port, "WS1")],
            ) as dcmqrscp,
            peers.orthanc(
                tmp_path / "orthanc", ae_title="ORTHANC_B", modalities=[net.address("B", "WS1")]
            ) as orthanc,
        ):
            stored = await peers.storescu(dcmqrscp, image.path, calling="FILLER")
            assert stored.status == 0, stored.output
            await orthanc.upload(image.path)
            b = There(net, [image], tmp_path)
            tapped = await stack.enter_async_context(tap(peers.Address(workstation.port, "WS1")))
            await b.destination("WS1", tapped.address.port)
            for title, port in (("DCMQRSCP", dcmqrscp.port), ("ORTHANC_B", orthanc.port)):
                await net.publish("B", title, port, "query,retrieve")
                await net.grant(owner="B", grantee="A", ae_title=title, services="query,retrieve")
                assert final(await move(net, "A", title, "WS1", image)) == (0, 1, 0, 0), title
                assert originators_of(tapped)[-1] == ("WS1", 1)
                (path,) = workstation.stored()
                assert image.sop_instance.encode() in peers.data_set_of(path)
                path.unlink()
