"""What the Router's tests share: associations in memory, and short ways to write messages."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
import trio.testing

from relay import listener
from relay.association import TCPAssociation
from relay.database import open_database
from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandSet
from relay.dicom.negotiation import RoleSelection
from relay.dicom.pdu import (
    PDV,
    AAssociateAC,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Atom,
    ContextResult,
    PresentationContext,
    PresentationContextResult,
)
from relay.dicom.upperlayer import Role
from relay.errors import AssociationAborted, LocalProtocolError, SignallingError
from relay.identity import Publication, load_identity
from relay.router.aliases import AliasTable
from relay.router.asks import AskTable
from relay.router.border import Crossing
from relay.router.calling import serve_device
from relay.router.commitments import CommitmentTable
from relay.router.devices import Device, DeviceTable
from relay.router.directory import Directory
from relay.router.grants import Grant, GrantTable
from relay.router.keyring import Keyring
from relay.router.live import LiveRegister
from relay.router.membership import Membership
from relay.router.node import Network, Node, unix_time
from relay.router.opening import serve_opening
from relay.router.peers import PeerTable, Trust
from relay.router.publications import Publisher
from relay.router.schema import MIGRATIONS
from relay.signalling import messages
from relay.signalling.client import ClientStatistics
from relay.signalling.messages import Direction
from relay.tunnel.store import StoreStatistics
from tests.tunnel import fakes as tunnel_fakes

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"
IMPLICIT = uids.IMPLICIT_VR_LITTLE_ENDIAN
JPEG = "1.2.840.10008.1.2.4.50"

NETWORK = bytes(16)


class FakeAssociation:
    """An association whose other end is the test: `say` is heard, `sent` is what it got.

    `refuses` says which atoms the state would not allow; `deaf` makes every send wait for ever.
    """

    def __init__(self) -> None:
        self.cause = ""
        self.sent: list[Atom] = []
        self.aborts: list[tuple[int, int]] = []
        self.refuses: Callable[[Atom], bool] = lambda atom: False
        self.lost = False
        self.deaf = False
        self._send, self._receive = trio.open_memory_channel[Atom](1000)
        self._changed = trio.lowlevel.ParkingLot()

    def say(self, *atoms: Atom) -> None:
        for atom in atoms:
            self._send.send_nowait(atom)

    async def receive(self) -> Atom:
        return await self._receive.receive()

    async def send(
        self, atom: Atom, *, compressible: bool = False, end_of_message: bool = True
    ) -> None:
        await trio.lowlevel.checkpoint()
        if self.deaf:
            await trio.sleep_forever()
        if self.lost:
            raise AssociationAborted(2, 0, "connection lost")
        if self.refuses(atom):
            raise LocalProtocolError(f"{type(atom).__name__} in this state")
        self.sent.append(atom)
        self._changed.unpark_all()

    async def abort(self, source: int = 0, reason: int = 0) -> None:
        self.aborts.append((source, reason))
        self._changed.unpark_all()

    async def aclose(self) -> None:
        pass

    async def got(self, count: int) -> list[Atom]:
        """What was sent here, once it is `count` atoms."""
        while len(self.sent) < count:
            await self._changed.park()
        return self.sent


def proposal(
    *sop_classes: str,
    scp: Sequence[str] = (),
    transfer_syntaxes: Sequence[str] = (IMPLICIT,),
    called: str = "PACS",
    calling: str = "WS",
) -> AAssociateRQ:
    """A request with one context for each SOP class: 1, 3, 5 …"""
    return AAssociateRQ(
        called,
        calling,
        tuple(
            PresentationContext(2 * n + 1, sop_class, tuple(transfer_syntaxes))
            for n, sop_class in enumerate(sop_classes)
        ),
        tuple(RoleSelection(sop_class, scu=True, scp=True).encode() for sop_class in scp),
    )


def acceptance(request: AAssociateRQ) -> AAssociateAC:
    """Yes to everything."""
    return AAssociateAC(
        request.called,
        request.calling,
        tuple(
            PresentationContextResult(c.id, ContextResult.ACCEPTANCE, c.transfer_syntaxes[0])
            for c in request.contexts
        ),
    )


def command(context_id: int, command_set: CommandSet) -> PDV:
    """A command set in one PDV."""
    return PDV(context_id, True, True, command_set.encode())


def data(context_id: int, fragment: bytes = b"data", *, last: bool = True) -> PDV:
    """A fragment of a data set."""
    return PDV(context_id, False, last, fragment)


def echo_rq(message_id: int = 1) -> CommandSet:
    return dimse.request(CommandField.C_ECHO_RQ, message_id, uids.VERIFICATION)


def store_rq(message_id: int = 1, sop_class: str = CT) -> CommandSet:
    return dimse.request(CommandField.C_STORE_RQ, message_id, sop_class, "1.2.3")


def get_rq(message_id: int = 1) -> CommandSet:
    return dimse.request(CommandField.C_GET_RQ, message_id, uids.STUDY_ROOT_GET)


def find_rq(message_id: int = 1) -> CommandSet:
    return dimse.request(CommandField.C_FIND_RQ, message_id, uids.STUDY_ROOT_FIND)


def move_rq(destination: str, message_id: int = 1) -> CommandSet:
    return dimse.request(
        CommandField.C_MOVE_RQ,
        message_id,
        uids.STUDY_ROOT_MOVE,
        extra={dimse.Tag.MOVE_DESTINATION: destination},
    )


def read(pdv: Atom) -> CommandSet:
    """The command set in a PDV."""
    assert isinstance(pdv, PDV)
    assert pdv.is_command
    return CommandSet.decode(pdv.fragment)


@attrs.define
class FakeBorder:
    """A border that lets moves go to `destinations`, and reports come of `awaited` transactions."""

    destinations: Collection[str] = ()
    awaited: Collection[str] = ()
    renames: Callable[[str], str] | None = None
    asked: list[str | None] = attrs.Factory(list)
    implied: list[bool] = attrs.Factory(list)  # of each C-STORE

    def move_asked(self, request: CommandSet) -> Crossing:
        if request.move_destination in self.destinations:
            return Crossing()
        return Crossing(dimse.Status.MOVE_DESTINATION_UNKNOWN, "RELAY: it is unknown")

    def move_cancelled(self, cancel: CommandSet) -> CommandSet:
        return cancel

    def stores(self, request: CommandSet, *, implied: bool) -> Crossing:
        self.implied.append(implied)
        return Crossing()

    def commitment_asked(self, transaction: str | None) -> Crossing:
        self.asked.append(transaction)
        return Crossing()

    def report_sent(self, transaction: str | None) -> Crossing:
        return Crossing(None if transaction in self.awaited else dimse.Status.NOT_AUTHORIZED)

    def move_answered(self, response: CommandSet, *, final: bool) -> Crossing:
        return Crossing()

    def retrieve_title(self) -> Callable[[str], str] | None:
        return self.renames

    def report_received(self, transaction: str | None) -> Crossing:
        return self.report_sent(transaction)


# --- two hospitals --------------------------------------------------------------------------------


class BridgeClient(tunnel_fakes.Client):
    """A SignallingClient of one hospital; its Bridge says yes, and notes what it heard."""

    clock_offset = 0.0

    def __init__(self, network: tunnel_fakes.Network, direction: Direction) -> None:
        super().__init__(network, direction)
        self.told: list[messages.Message] = []
        self.refusals: tuple[str, ...] = ()

    async def send(self, message: messages.Message) -> bool:
        await trio.lowlevel.checkpoint()
        self.ports.pop(message.session, None)
        return self.network.carry(self, message)

    async def request(
        self, build: Callable[[int], messages.Message], deadline: float | None = None
    ) -> messages.Message:
        message = messages.decode(messages.encode(build(1)))
        if isinstance(message, messages.Slots | messages.Resign):
            return await super().request(build)
        await trio.lowlevel.checkpoint()
        if not self.connected:
            raise SignallingError("no connection to the Bridge")
        self.told.append(message)
        return messages.Done(1, self.refusals)

    def statistics(self) -> ClientStatistics:
        return ClientStatistics(self.connected, 1, len(self.ports), 0, "")


class Store(tunnel_fakes.Store):
    def statistics(self) -> StoreStatistics:
        return StoreStatistics(self.puts, self.gets, self.deletes, 0, 0, 0)


class Bridge(tunnel_fakes.Network):
    """Joins two hospitals: `caller` and `callee` are their clients."""

    def __init__(self) -> None:
        super().__init__()
        self.latency = 0.001
        self.clients = (
            BridgeClient(self, Direction.CALLER_TO_CALLEE),
            BridgeClient(self, Direction.CALLEE_TO_CALLER),
        )
        self.caller, self.callee = self.clients
        self.connections = {id(client): 0 for client in self.clients}


@asynccontextmanager
async def hospital(
    folder: Path,
    ae_title: str = "RELAY",
    client: Any = None,
    store: Any = None,
    *,
    trust: Trust = Trust.FIRST_USE,
    enrolled: bool = True,
    maximum_associations: int = 16,
) -> AsyncIterator[Node]:
    """A Router's node on a database of its own, enrolled in the network of all zeroes."""
    folder.mkdir(exist_ok=True)
    identity = load_identity(folder)
    now = unix_time()
    async with open_database(folder / "router.db", MIGRATIONS) as database:
        node = Node(
            database=database,
            identity=identity,
            ae_title=ae_title,
            keyring=await Keyring.load(database, identity, now),
            devices=await DeviceTable.load(database),
            aliases=await AliasTable.load(database),
            grants=await GrantTable.load(database),
            asks=AskTable(database),
            commitments=await CommitmentTable.load(database),
            live=LiveRegister(maximum_associations),
        )
        if enrolled:
            peers = await PeerTable.load(database, trust, NETWORK)
            node.network = Network(
                membership=Membership(
                    NETWORK, bytes(32), "https://bridge.example", f"Hospital {ae_title}"
                ),
                peers=peers,
                directory=await Directory.load(database, peers, NETWORK, identity.public),
                publisher=Publisher(
                    database, identity, NETWORK, node.keyring, node.devices, node.grants
                ),
                client=client or Bridge().caller,
                objects=store or Store(),
            )
        yield node


def router_row(node: Node, *, connected: bool = True) -> tuple[bytes, str, bytes, bool]:
    """A node as the directory shows it."""
    return (node.identity.public, node.contact.name, node.keyring.statement(NETWORK), connected)


def publication(node: Node, ae_title: str, *services: str, serial: int = 1) -> bytes:
    """A node's signed publication."""
    return Publication(NETWORK, ae_title, services, serial).sign(node.identity)


def listing(*nodes: Node, whole: bool = True, publications: Sequence[bytes] = ()) -> Any:
    """A Directory message."""
    return messages.Directory(whole, tuple(map(router_row, nodes)), tuple(publications), (), ())


@attrs.define
class TwoHospitals:
    """A calls, B owns the PACS; `bridge` is between them, `port` is where the PACS listens."""

    a: Node
    b: Node
    bridge: Bridge
    store: Store
    pacs: Device
    port: int
    nursery: trio.Nursery

    async def call(
        self, request: AAssociateRQ, *, local: bool = False, at: Node | None = None
    ) -> tuple[TCPAssociation, Atom]:
        """An association of a device in A, or `at` the other, and the first that it hears."""
        near, far = trio.testing.memory_stream_pair()
        device = TCPAssociation(near, Role.REQUESTOR, host="127.0.0.1")
        router = TCPAssociation(far, Role.ACCEPTOR, host="" if local else "127.0.0.1")
        self.nursery.start_soon(self._serve, router, local, at)
        await device.send(request)
        return device, await device.receive()

    async def listen(self, scp: Callable[[TCPAssociation], Awaitable[None]]) -> int:
        """The port of one more device, behind a real socket."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.nursery.start_soon(listener.serve, listeners, scp)
        return int(listeners[0].socket.getsockname()[1])

    async def publish(self, *devices: Device) -> None:
        """Devices of A that the network, and so B, knows of."""
        for device in devices:
            await self.a.put_device(device)
        statements = [publication(self.a, d.published, *d.services) for d in devices]
        shown = listing(self.a, whole=False, publications=statements)
        await self.b.joined().directory.take(shown)
        await self.a.joined().directory.take(shown)

    async def _serve(
        self, association: TCPAssociation, local: bool, at: Node | None = None
    ) -> None:
        try:
            await serve_device(at or self.a, association, local=local)
        finally:
            await association.aclose()


@asynccontextmanager
async def two_hospitals(
    folder: Path,
    scp: Callable[[TCPAssociation], Awaitable[None]],
    *services: str,
    published: Sequence[str] | None = None,
    trust: Trust = Trust.FIRST_USE,
) -> AsyncIterator[TwoHospitals]:
    """WS in A may use `services` of PACS in B, which is `scp` behind a real socket."""
    bridge, store = Bridge(), Store()
    async with (
        hospital(folder / "a", "RELAY_A", bridge.caller, store) as a,
        hospital(folder / "b", "RELAY_B", bridge.callee, store, trust=trust) as b,
        trio.open_nursery() as carrying,  # outlives the sessions, so that they can say goodbye
        trio.open_nursery() as nursery,
    ):
        carrying.start_soon(bridge.run)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(listener.serve, listeners, scp)
        words = list(published if published is not None else services)
        pacs = Device("PACS", "127.0.0.1", port, services=frozenset(words))
        await b.put_device(pacs)
        await a.put_device(Device("WS", "127.0.0.1", 104))
        await a.joined().directory.take(
            listing(b, publications=[publication(b, "PACS", *words)] if words else [])
        )
        await b.joined().directory.take(listing(a))
        if services:
            await b.add_grant(Grant(a.identity.public, "PACS", frozenset(services)))

        def on_open(message: messages.Open) -> None:
            callee, caller = (b, a) if message.router == b.identity.public else (a, b)
            opened = attrs.evolve(message, router=caller.identity.public)
            nursery.start_soon(serve_opening, callee, opened)

        bridge.on_open = on_open
        with trio.fail_after(20):
            yield TwoHospitals(a, b, bridge, store, pacs, port, nursery)
            # What still runs is aborted as a stopping Router does it.
            for node in (a, b):
                for entry in node.live:
                    entry.scope.cancel()
                await node.live.wait_empty()
            while any(client.ports for client in bridge.clients):
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
        carrying.cancel_scope.cancel()


async def yes_to_all(association: TCPAssociation) -> None:
    """A device that accepts everything and answers each request with success."""
    request = await association.receive()
    assert isinstance(request, AAssociateRQ)
    await association.send(acceptance(request))
    reader = dimse.CommandReader()
    asked = None
    while True:
        match await association.receive():
            case PDV() as pdv:
                asked = reader.feed(pdv) or asked
                if asked is not None and not reader.message_open:
                    if asked.command_field != CommandField.C_CANCEL_RQ:
                        response = dimse.response_to(asked, 0)
                        await association.send(command(pdv.context_id, response))
                    asked = None
            case AReleaseRQ():
                await association.send(AReleaseRP())
                return
            case _:
                return
