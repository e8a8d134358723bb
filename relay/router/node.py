"""One Router's state, and what people may do to it.

`Node` is what the listener, the openings and the REST share. Each change goes to the table that
keeps it; then the associations that rested on what is gone are ended, and the Bridge is told.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import structlog
import trio

from relay.audit.audit import Audit
from relay.audit.events import AuditEvent
from relay.audit.sender import Sender
from relay.database import Database
from relay.errors import (
    AssociationRejected,
    DatabaseError,
    HandshakeError,
    IdentityError,
    Refused,
    SignallingError,
)
from relay.identity import Identity, fingerprint
from relay.invitation import Contact
from relay.metrics.turning import Turning
from relay.router import services
from relay.router.aliases import Alias, AliasTable
from relay.router.asked import Asked, AskedTable
from relay.router.asks import Ask, AskTable
from relay.router.auditing import Auditing, Queries
from relay.router.border import Knowledge
from relay.router.commitments import CommitmentTable
from relay.router.counts import Counts
from relay.router.device_tls import DeviceTLS
from relay.router.devices import Device, DeviceTable, is_own_listener
from relay.router.directory import Directory
from relay.router.grants import Grant, GrantTable, Permission
from relay.router.keyring import Keyring
from relay.router.linger import Lingering
from relay.router.live import LiveRegister
from relay.router.membership import Membership
from relay.router.moves import MoveRegister
from relay.router.names import Names
from relay.router.peers import Peer, PeerTable
from relay.router.places import Places
from relay.router.publications import Publisher
from relay.router.rates import Rates
from relay.router.refusals import Refusals
from relay.router.seeking import seek
from relay.router.titles import Titles
from relay.signalling import messages
from relay.signalling.client import SignallingClient
from relay.spool.spool import Spool
from relay.tunnel.allowance import Allowance
from relay.tunnel.ask import open_ask, seal_ask
from relay.tunnel.store import ObjectClient

log = structlog.get_logger()


def unix_time() -> int:
    """This machine's clock, in Unix seconds: what certificates, keys and openings are dated by."""
    return int(time.time())


@attrs.define(slots=True, eq=False)
class Network:
    """What a Router has once it is enrolled."""

    membership: Membership
    peers: PeerTable
    directory: Directory
    publisher: Publisher
    client: SignallingClient
    objects: ObjectClient
    allowance: Allowance = attrs.field(factory=Allowance)


def _unheard(title: str) -> None:
    """Nobody asks how devices fare."""


@attrs.define(slots=True, eq=False)
class Node:
    """One Router. `network` is None until it is enrolled."""

    database: Database
    identity: Identity
    ae_title: str
    keyring: Keyring
    devices: DeviceTable
    aliases: AliasTable
    grants: GrantTable
    asks: AskTable
    commitments: CommitmentTable
    live: LiveRegister
    spool: Spool | None = None
    listening: Sequence[tuple[str, int]] = ()
    network: Network | None = None
    federation_title: str = ""  # by which devices here call all that there is (DESIGN §7)
    configuration: Sequence[Mapping[str, Any]] = ()  # relay.toml, as people see it
    asked: AskedTable = attrs.field(
        default=attrs.Factory(lambda self: AskedTable(self.database), takes_self=True)
    )
    refusals: Refusals = attrs.field(factory=Refusals)
    # Is told the published title of each device that has taken an association or an object.
    reached: Callable[[str], None] = _unheard
    auditing: Auditing = attrs.field(factory=Auditing)
    audit: Audit | None = None
    audit_sender: Sender | None = None
    rates: Rates = attrs.field(
        default=attrs.Factory(lambda self: Rates(self.live.carried), takes_self=True)
    )
    device_tls: DeviceTLS = attrs.field(factory=DeviceTLS)
    places: Places = attrs.field(
        default=attrs.Factory(lambda self: Places(self.live.maximum), takes_self=True)
    )
    lingering: Lingering = attrs.field(
        default=attrs.Factory(lambda self: Lingering(self.places), takes_self=True)
    )
    moves: MoveRegister = attrs.field(factory=MoveRegister)
    counts: Counts = attrs.field(
        default=attrs.Factory(lambda self: Counts(self.live), takes_self=True)
    )
    turning: Turning = attrs.field(factory=Turning)
    _together: int = 0
    _untold: bool = False  # something has changed since the last publication began
    _publishing: trio.Lock = attrs.field(factory=trio.Lock)
    _naming: trio.Lock = attrs.field(factory=trio.Lock)

    @property
    def contact(self) -> Contact:
        """What people of other hospitals compare. Raises Refused (409) while not enrolled: the
        name comes with the enrolment."""
        return Contact(self.identity.public, self.joined().membership.name)

    def joined(self) -> Network:
        """The network. Raises Refused (409) while the Router is not enrolled."""
        if self.network is None:
            raise Refused(409, "this Router is not enrolled yet: `relay enroll INVITATION` first")
        return self.network

    @property
    def names(self) -> Names:
        """This hospital's AE titles and the network's."""
        return Names(self.ae_title, self.devices, self.aliases)

    def owner_of(self, called: str) -> str:
        """Whose device people here mean by `called`: a peer's fingerprint, empty if nobody's."""
        published = self.names.published(called)
        if self.network is None or published is None:
            return ""
        owner = self.network.directory.owner(published)
        return fingerprint(owner) if owner is not None else ""

    def watch(
        self,
        record: Callable[[AuditEvent], None],
        room: Callable[[], Awaitable[None]],
        queries: Queries,
    ) -> None:
        """Have `record` told of all that is audited; `room` waits until something may begin."""
        self.auditing = Auditing(
            ae_title=self.ae_title,
            record=record,
            room=room,
            queries=queries,
            host_of=self._host_of,
            hospital_of=self._hospital_of,
        )
        self.live.on_begun = self.auditing.begun
        self.refusals.on_move = self.auditing.refused_move

    def _host_of(self, ae_title: str) -> str:
        device = self.devices.get(ae_title)
        return device.host if device is not None else ""

    def _hospital_of(self, words: str) -> str:
        """By what name the hospital of this fingerprint goes; empty for one that is not known."""
        if self.network is None:
            return ""
        for peer in self.network.peers:
            if peer.fingerprint == words:
                return peer.name
        return ""

    def knowledge(self) -> Knowledge:
        """What commands that cross are translated by. Raises Refused (409) as `joined` does."""
        return Knowledge(
            names=self.names,
            moves=self.moves,
            commitments=self.commitments,
            directory=self.joined().directory,
            own=self.identity.public,
            clock=unix_time,
            refusals=self.refusals,
        )

    def permission(self, caller: bytes, device: Device, calling: str) -> Permission:
        """What `caller` may do with `device`: what is granted, and published still."""
        granted = self.grants.permission(caller, device.published, calling)
        return attrs.evolve(granted, services=granted.services & device.services)

    # --- devices ------------------------------------------------------------------------------

    async def put_device(self, device: Device) -> bool:
        """Add or replace a device; returns whether anything changed.

        Raises Refused (400) for an address that is this Router's own, (409) for an AE title that
        is another's.
        """
        if await is_own_listener(device, self.listening):
            raise Refused(400, f"{device.host}:{device.port} is this Router itself")
        async with self._naming:  # of two of one name, the second is to find the first
            before = self.devices.get(device.ae_title)
            if device != before:
                self._titles.check_device(device)
            changed = await self.devices.put(device)
            if before is not None and before.published != device.published:
                # Else another device of that title would be open to whoever may use this one.
                await self.grants.rename(before.published, device.published)
        if changed:
            log.info("device set", ae_title=device.ae_title)
            await self._devices_changed()
        return changed

    async def remove_device(self, ae_title: str) -> list[Grant]:
        """Forget a device and what is granted of it, which is returned; its associations end."""
        async with self._naming:
            device = self.devices.get(ae_title)
            # First: another device of that AE title must never be open to whoever could use this.
            gone = [g for g in self.grants if device and g.ae_title == device.published]
            try:
                for grant in gone:
                    await self.grants.remove(grant.id)
                    log.info("grant removed", grant=grant.id, ae_title=grant.ae_title)
                await self.devices.remove(ae_title)
                log.info("device removed", ae_title=ae_title)
            finally:
                self.live.recheck()  # also where the disk failed in the middle
        await self._devices_changed()
        return gone

    def title_refusal(self, device: Device) -> str | None:
        """Why the Bridge does not publish `device`, if it said so, and what to do.

        As of the last connection.
        """
        if self.network is None or not device.services:
            return None
        words = self.network.publisher.refusal_of(device.published)
        if words is None or not self.network.publisher.is_taken(device.published):
            return words
        fact, already, _ = words.partition(" already")
        remedy = self._titles.remedy(device)
        return f"{fact}{already}: publish it under another title with {remedy}"

    # --- aliases ------------------------------------------------------------------------------

    async def put_alias(self, alias: Alias) -> bool:
        """Give another hospital's published title a local one; returns whether it is new.

        Raises Refused (409) where either of them is in use.
        """
        async with self._naming:
            if self.aliases.published_of(alias.local) != alias.published:
                self._titles.check_alias(alias)
            new = await self.aliases.put(alias)
        if new:
            log.info("alias set", local=alias.local, published=alias.published)
            self.live.recheck()
        return new

    async def remove_alias(self, local: str) -> Alias:
        """Forget the alias of this local title, and return it. Raises Refused (404)."""
        alias = await self.aliases.remove(local)
        log.info("alias removed", local=alias.local, published=alias.published)
        self.live.recheck()
        return alias

    def name_federation(self, title: str) -> None:
        """Keep `title` for the federation. Raises Refused (409) if it is somebody's already."""
        attrs.evolve(self._titles, federation=title).check_federation()
        self.federation_title = title

    @property
    def _titles(self) -> Titles:
        titles = Titles(
            self.ae_title,
            tuple(self.devices),
            self.aliases,
            None,
            federation=self.federation_title,
        )
        if self.network is None:
            return titles
        directory, hospital = self.network.directory, self.network.membership.name
        return attrs.evolve(titles, directory=directory, hospital=hospital)

    # --- grants -------------------------------------------------------------------------------

    async def add_grant(self, grant: Grant) -> Grant:
        """Make a grant. Raises Refused (409) for what the device does not publish."""
        async with self._naming:  # a device that is removed meanwhile takes this grant with it
            device = self.devices.published_as(grant.ae_title)
            if device is None:
                raise Refused(
                    409,
                    f"{grant.ae_title!r} is no published device: `relay device add` with --publish",
                )
            missing = grant.services - device.services
            if missing:
                words = ", ".join(services.ordered(missing))
                raise Refused(409, f"{grant.ae_title!r} does not publish {words}: publish it first")
            kept = await self.grants.add(grant)
        log.info("granted", grant=kept.id, ae_title=kept.ae_title)
        await self.changed()
        return kept

    async def remove_grant(self, number: int) -> None:
        """Take a grant back; the associations that rest on it end."""
        grant = await self.grants.remove(number)
        log.info("grant removed", grant=number, ae_title=grant.ae_title)
        await self.changed()

    async def ask(self, ask: Ask) -> None:
        """Send a request for a grant to whoever publishes its device.

        Raises Refused (409) if nobody we may speak to does, or another one than the Bridge listed
        before, (400) if the request is too long, (502) if the Bridge does not take it.
        """
        network = self.joined()
        listed = network.directory.listed_owner(ask.ae_title)
        await seek(network, ask.ae_title)
        try:
            route = network.directory.resolve(ask.ae_title, unix_time())
        except AssociationRejected as error:
            raise Refused(409, str(error)) from None
        peer = route.peer
        if listed is not None and listed != peer.identity:
            # Whoever asks has read the listing, and means that hospital.
            raise Refused(
                409,
                f"not sent: the Bridge lists {ask.ae_title} as of {fingerprint(listed)}, and it is"
                f" signed by {peer.name} ({peer.fingerprint}): ask the Bridge's administrator",
            )
        missing = ask.services - route.services
        if missing:
            raise Refused(
                409,
                f"{ask.ae_title} of {peer.name} does not publish"
                f" {', '.join(services.ordered(missing))}; it publishes"
                f" {', '.join(services.ordered(route.services))}",
            )
        try:
            sealed = seal_ask(
                self.identity,
                network.membership.network,
                peer.identity,
                route.key.public,
                ask.to_request(),
                unix_time(),
            )
        except (HandshakeError, IdentityError) as error:
            raise Refused(400, str(error)) from None
        try:
            reply = await network.client.request(
                lambda number: messages.Ask(number, peer.identity, sealed)
            )
        except SignallingError as error:
            raise Refused(502, f"not sent: {error}") from None
        if isinstance(reply, messages.Done) and reply.refusals:
            raise Refused(502, f"not sent: {reply.refusals[0]}")
        await self.asked.put(Asked(peer.identity, ask.ae_title, ask.services, unix_time()))

    async def take_ask(self, message: messages.Ask) -> None:
        """A peer asks for a grant: keep it for a person, or log why not."""
        network = self.joined()
        now = unix_time()
        try:
            if network.peers.get(message.router) is None:
                raise Refused(403, "ask from an unknown Router")
            request = open_ask(
                self.identity,
                self.keyring.pairs,
                network.membership.network,
                message.router,
                message.sealed,
                now,
            )
            await self.asks.keep(Ask.from_request(message.router, request), message.sealed, now)
        except (HandshakeError, Refused) as error:
            log.warning("ask refused", why=str(error))
        else:
            log.info("ask received", ae_title=request.ae_title)

    async def accept_ask(self, number: int) -> Grant:
        """Make the grant that a peer has asked for; the ask is answered with it."""
        ask = await self.asks.get(number)
        grant = await self.add_grant(Grant(ask.asker, ask.ae_title, ask.services, ask.calling))
        await self.asks.remove(number)
        return grant

    # --- peers --------------------------------------------------------------------------------

    async def verify_peer(self, contact: Contact) -> Peer:
        """A person has compared this contact."""
        if contact.public == self.identity.public:
            raise Refused(400, "that is this hospital's own contact")
        peer = await self.joined().peers.verify(contact)
        log.info("peer verified", peer=peer.fingerprint)
        return peer

    async def confirm_peer(self, words: str) -> Peer:
        """A person has compared the fingerprint `words` by telephone. Raises Refused."""
        peer = await self.joined().peers.compared(words)
        log.info("peer verified", peer=peer.fingerprint)
        return peer

    async def accept_peer(self, words: str) -> tuple[Peer, list[str]]:
        """A person accepts that `words`' titles are its own now; returns the titles too."""
        network = self.joined()
        peer = network.peers.by_fingerprint(words)
        titles = await network.directory.accept(peer)
        self.live.recheck()
        return peer, titles

    # --- after a change -----------------------------------------------------------------------

    async def changed(self) -> None:
        """End what is no longer permitted, and tell the Bridge, now or with the next connection."""
        self.live.recheck()
        self._untold = True  # also for a publication that goes out now, of what was before
        if self._together or self.network is None or not self.network.client.connected:
            return
        try:
            await self.publish()
        except (SignallingError, DatabaseError) as error:
            log.warning("not published yet", why=str(error))

    async def publish(self) -> None:
        """Tell the Bridge what it should know. Raises SignallingError."""
        network = self.joined()
        async with self._publishing:  # what is told last is what is true
            self._untold = True
            while self._untold:
                self._untold = False
                await self.renew_key()
                await network.publisher.publish(network.client, unix_time())

    async def renew_key(self) -> bool:
        """Make a new HPKE key if one is due and the disk takes it; whether there is a new one."""
        if not self.keyring.due(unix_time()):
            return False
        try:
            await self.keyring.renew(unix_time())
        except DatabaseError as error:
            log.error("no new HPKE key", why=str(error))
            return False
        log.info("new HPKE key")
        return True

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Several changes, of which the Bridge is told once, at the end."""
        self._together += 1
        try:
            yield
        finally:
            self._together -= 1
            await self.changed()  # also of what was changed before something failed

    async def _devices_changed(self) -> None:
        if self.network is not None:
            self.network.publisher.devices_changed()
        await self.changed()
