"""A call that leaves: to whom, by which names, what it rests on; and what is said if it cannot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.dicom import pdu
from relay.dicom.negotiation import UserIdentityRQ, UserIdentityType, find, request
from relay.dicom.pdu import AAssociateRQ
from relay.errors import AssociationRejected
from relay.router.aliases import Alias
from relay.router.devices import Device
from relay.router.live import Side
from relay.router.node import Node
from relay.router.outgoing import OutgoingCall, called_title, live_entry, prepare
from relay.tunnel.handshake import MAXIMUM_REQUEST
from tests.router.fakes import CT, Bridge, hospital, listing, proposal, publication

WS = Device("WS1", "h", published="SOUTH_WS1", resume_window=7.0, answer_wait=11.0)


@asynccontextmanager
async def hospitals(folder: Path, *, enrolled: bool = True) -> AsyncIterator[tuple[Node, Node]]:
    """Ours has a WS1 and a PACS, the other one a WS1, a PACS and a SCANNER."""
    bridge = Bridge()
    folder.mkdir(exist_ok=True)
    async with (
        hospital(folder / "a", "RELAY_A", bridge.caller, enrolled=enrolled) as ours,
        hospital(folder / "b", "RELAY_B", bridge.callee) as other,
    ):
        await ours.put_device(WS)
        await ours.put_device(Device("PACS", "h", published="SOUTH_PACS"))
        await ours.put_alias(Alias("NORTH_PACS", "PACS"))
        await ours.put_alias(Alias("NORTH_WS1", "WS1"))
        if enrolled:
            titles = ("PACS", "WS1", "SCANNER")
            await ours.joined().directory.take(
                listing(other, publications=[publication(other, t, "store") for t in titles])
            )
        yield ours, other


def call(node: Node, device: Device | None, rq: AAssociateRQ) -> OutgoingCall:
    return prepare(node, device, rq, called_title(node, device, rq))


@pytest.mark.parametrize(
    ("called", "title"), [("NORTH_PACS", "PACS"), ("NORTH_WS1", "WS1"), ("SCANNER", "SCANNER")]
)
async def test_a_call_goes_by_the_networks_names(tmp_path: Path, called: str, title: str) -> None:
    async with hospitals(tmp_path) as (ours, other):
        made = call(ours, WS, proposal(CT, calling="WS1", called=called))
        assert made.title == made.pending.header.called == title
        assert made.peer == other.identity.public
        assert (made.request.calling, made.request.called) == ("SOUTH_WS1", title)
        assert made.limits(ours) == WS


@pytest.mark.parametrize(
    ("calling", "called", "numbers", "words"),
    [
        ("WS1", "RELAY_A", (1, 1, 7), "this Router's own AE title"),
        # Never the other hospital's PACS: what a device here means by it is its own.
        ("WS1", "PACS", (1, 1, 7), "`relay alias add LOCAL PACS`"),
        (None, "PACS", (1, 1, 7), "`relay device test PACS`"),
        ("WS1", "SOUTH_PACS", (1, 1, 7), "not published"),
        ("WS1", "NOBODY", (1, 1, 7), "not published"),
    ],
)
async def test_what_cannot_be_called(
    tmp_path: Path,
    calling: str | None,
    called: str,
    numbers: tuple[int, int, int],
    words: str,
) -> None:
    async with hospitals(tmp_path) as (ours, _):
        device = WS if calling else None
        rq = proposal(CT, calling=calling or "RELAY_A", called=called)
        with pytest.raises(AssociationRejected) as caught:
            call(ours, device, rq)
        error = caught.value
        assert (error.result, error.source, error.reason) == numbers
        assert words in str(error)


async def test_a_title_of_another_hospital_is_no_calling_title(tmp_path: Path) -> None:
    async with hospitals(tmp_path) as (ours, _):
        device = Device("SCANNER", "h")
        with pytest.raises(AssociationRejected, match="`relay device add SCANNER … --as AE_TITLE`"):
            call(ours, device, proposal(CT, calling="SCANNER", called="NORTH_PACS"))


async def test_without_an_enrolment_and_without_a_connection(tmp_path: Path) -> None:
    rq = proposal(CT, calling="WS1", called="NORTH_PACS")
    async with hospitals(tmp_path / "one", enrolled=False) as (ours, _):
        with pytest.raises(AssociationRejected, match="relay enroll") as caught:
            call(ours, WS, rq)
        assert caught.value.result == 2
    async with hospitals(tmp_path / "two") as (ours, _):
        ours.joined().client.connected = False  # type: ignore[misc]
        with pytest.raises(AssociationRejected, match="no connection") as caught:
            call(ours, WS, rq)
        assert caught.value.result == 2


async def test_a_request_that_no_opening_holds_is_rejected(tmp_path: Path) -> None:
    async with hospitals(tmp_path) as (ours, _):
        syntaxes = [f"1.2.840.{number:054}" for number in range(20)]
        rq = proposal(*[CT] * 128, transfer_syntaxes=syntaxes, calling="WS1", called="NORTH_PACS")
        assert len(pdu.encode(rq)) > MAXIMUM_REQUEST
        with pytest.raises(AssociationRejected):
            call(ours, WS, rq)


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_user_identity_stays_unless_its_device_may_send_it(
    tmp_path: Path, allowed: bool
) -> None:
    identity = UserIdentityRQ(UserIdentityType.USERNAME, False, b"radiologist")
    rq = request("NORTH_PACS", "WS1", proposal(CT).contexts, identity)
    async with hospitals(tmp_path) as (ours, _):
        device = Device("WS1", "h", published="SOUTH_WS1", user_identity=allowed)
        made = call(ours, device, rq)
        assert bool(find(made.request.user_items, UserIdentityRQ)) is allowed


async def test_the_command_line_has_the_usual_limits(tmp_path: Path) -> None:
    async with hospitals(tmp_path) as (ours, _):
        made = call(ours, None, proposal(CT, calling="RELAY_A", called="NORTH_PACS"))
        assert made.request.calling == "RELAY_A"
        assert made.limits(ours) == Device("RELAY_A", "")
        entry = live_entry(ours, made)
        assert (entry.side, entry.device) == (Side.CALLER, "RELAY_A")
        assert entry.still_permitted()


@pytest.mark.parametrize("what", ["device", "published", "binding", "nothing"])
async def test_what_a_call_rests_on(tmp_path: Path, what: str) -> None:
    async with hospitals(tmp_path) as (ours, _):
        made = call(ours, WS, proposal(CT, calling="WS1", called="NORTH_PACS"))
        entry = live_entry(ours, made)
        assert (entry.device, entry.calling, entry.called) == ("WS1", "SOUTH_WS1", "PACS")
        assert entry.still_permitted()
        if what == "device":
            await ours.remove_device("WS1")
        elif what == "published":
            await ours.put_device(Device("WS1", "h", published="SOUTH_WS2"))
        elif what == "binding":
            stolen = publication(ours, "PACS", "store", serial=9)
            await ours.joined().directory.take(listing(ours, whole=False, publications=[stolen]))
        assert entry.still_permitted() is (what == "nothing")
