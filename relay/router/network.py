"""The Router's side of the network: the enrolment, the connection, and the sessions of peers.

    invitation -> enrolled -> signalling -> Directory, Ask, Open -> a task for each session

Nothing here ends the process: what the Bridge or a peer brings about ends one session at most.
"""

import ssl
from collections import Counter
from collections.abc import Sequence
from functools import partial

import attrs
import structlog
import trio

from relay import tracing
from relay.errors import Refusal, Refused, RelayError, leaves
from relay.invitation import Invitation
from relay.router import membership
from relay.router.directory import Directory
from relay.router.live import number
from relay.router.membership import Membership
from relay.router.node import Network, Node
from relay.router.opening import serve_opening
from relay.router.peers import PeerTable, Trust
from relay.router.publications import Publisher
from relay.router.queue.state import Queue
from relay.signalling import messages
from relay.signalling.authentication import NOT_LET_IN
from relay.signalling.client import SignallingClient
from relay.tunnel.allowance import Allowance, open_allowance
from relay.tunnel.handshake import refuse_opening
from relay.tunnel.store import ObjectClient, open_object_client

log = structlog.get_logger()

# Openings that are looked at beside the associations that run: most come to nothing at once.
SPARE_OPENINGS = 64

# Of all openings, what one peer cannot have: the sessions that it does not end, and those that come
# to nothing, must not keep every other hospital out. As relay.router.places has it of places.
OTHERS_SHARE = 1 / 4


@attrs.frozen(slots=True, kw_only=True)
class Outside:
    """How this Router reaches the outside."""

    ssl_context: ssl.SSLContext
    proxy: str | None
    allowed_origins: Sequence[str]
    trust: Trust


class NetworkSide:
    """The network, from the enrolment on: signalling, and the sessions that peers open."""

    def __init__(
        self,
        node: Node,
        outside: Outside,
        maximum_associations: int,
        stopping: trio.Event,
        queue: Queue | None = None,
    ) -> None:
        self._node = node
        self._queue = queue
        self._outside = outside
        self._maximum_openings = maximum_associations + SPARE_OPENINGS
        self._stopping = stopping
        self._openings = Counter[bytes]()  # by the identity of who opens
        self._enrolled = trio.Event()
        self._joined = trio.Event()
        self._enrolling = trio.Lock()

    async def enrol(self, invitation: Invitation) -> bool:
        """Join the network of `invitation`; False if we came with this very invitation before.

        Raises Refused (409) if we are in a network by another one.
        """
        async with self._enrolling:
            node, outside = self._node, self._outside
            if node.network is not None:
                known = node.network.membership.invitation
                if known == invitation.invitation_id and not _cut_off(node.network):
                    return False
                raise Refused(409, _enrolled_already(node.network))
            joined = await membership.enrol(
                invitation,
                node.identity,
                node.ae_title,
                node.keyring.statement(invitation.network),
                ssl_context=outside.ssl_context,
                proxy=outside.proxy,
            )
            await membership.save(node.database, joined)
            log.info("enrolled", bridge=joined.url, name=joined.name)
            self._enrolled.set()
            await self._joined.wait()
            return True

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Once enrolled, keep the connection and serve sessions, for ever."""
        node, outside = self._node, self._outside
        joined = await membership.load(node.database)
        if joined is None:
            task_status.started()
            await self._enrolled.wait()
            joined = await membership.load(node.database)
            assert joined is not None, "it is saved before `_enrolled` is set"
        async with (
            open_allowance() as allowance,
            open_object_client(
                ssl_context=outside.ssl_context,
                allowed_origins=[joined.origin, *outside.allowed_origins],
                proxy=outside.proxy,
            ) as objects,
            trio.open_nursery() as sessions,
        ):
            node.network = network = await self._join(joined, objects, allowance)
            if self._enrolled.is_set():
                self._joined.set()
            else:
                task_status.started()
            await network.client.run(
                on_connected=self._on_connected,
                on_open=partial(self._on_open, network, sessions),
                on_directory=partial(self._on_directory, network),
                on_ask=self._on_ask,
            )

    async def _join(
        self, joined: Membership, objects: ObjectClient, allowance: Allowance
    ) -> Network:
        node, outside = self._node, self._outside
        peers = await PeerTable.load(node.database, outside.trust, joined.network)
        return Network(
            membership=joined,
            peers=peers,
            directory=await Directory.load(
                node.database, peers, joined.network, node.identity.public
            ),
            publisher=Publisher(
                node.database,
                node.identity,
                joined.network,
                node.keyring,
                node.devices,
                node.grants,
            ),
            client=SignallingClient(
                joined.url,
                node.identity,
                joined.network,
                joined.bridge,
                ssl_context=outside.ssl_context,
                proxy=outside.proxy,
            ),
            objects=objects,
            allowance=allowance,
        )

    # --- what the Bridge says ---------------------------------------------------------------------

    async def _on_connected(self) -> None:
        await self._node.publish()
        if self._queue is not None:
            self._queue.couriers.wake()

    async def _on_directory(
        self,
        network: Network,
        message: messages.Listing | messages.Directory | messages.Granted,
    ) -> None:
        try:
            await network.directory.take(message)
            if isinstance(message, messages.Granted):
                await self._node.asked.settle(network.directory.granted)
        except RelayError as error:
            log.error("directory not kept", why=str(error))
        self._node.live.recheck()
        if self._queue is not None:
            self._queue.couriers.network_changed()
            self._queue.acceptance.network_changed()

    async def _on_ask(self, message: messages.Ask) -> None:
        try:
            await self._node.take_ask(message)
        except RelayError as error:
            log.error("ask not kept", why=str(error))

    async def _on_open(
        self, network: Network, sessions: trio.Nursery, message: messages.Open
    ) -> None:
        if self._stopping.is_set() or not self._has_room(message.router):
            await self._refuse(network, message, Refusal.BUSY)
            return
        self._openings[message.router] += 1
        sessions.start_soon(self._opening, network, message)

    def _has_room(self, peer: bytes) -> bool:
        maximum = self._maximum_openings
        own = maximum - int(OTHERS_SHARE * maximum)
        return self._openings.total() < maximum and self._openings[peer] < own

    async def _opening(self, network: Network, message: messages.Open) -> None:
        association = number(message.session)
        failed = False
        try:
            with tracing.about(association):
                await serve_opening(self._node, message, self._queue)
        except* RelayError as group:
            for error in leaves(group):
                log.warning("association failed", association=association, why=str(error))
            failed = True
        except* Exception:
            log.exception("association handler failed", association=association)
            failed = True
        finally:
            self._openings[message.router] -= 1
            if not self._openings[message.router]:
                del self._openings[message.router]
        if failed:
            # If it has been answered, the session is over and this is one word too many.
            await self._refuse(network, message, Refusal.NOT_SPECIFIED)

    async def _refuse(self, network: Network, message: messages.Open, reason: Refusal) -> None:
        refusal = refuse_opening(self._node.identity, message.opening, reason)
        await network.client.send(messages.Refuse(message.session, refusal))


def _cut_off(network: Network) -> bool:
    """Whether the Bridge shuts us out, as it does whom it has revoked."""
    statistics = network.client.statistics()
    return not statistics.connected and statistics.last_failure.startswith(NOT_LET_IN)


def _enrolled_already(network: Network) -> str:
    """What to tell a person who enrols once more."""
    known, statistics = network.membership, network.client.statistics()
    words = f"this Router is enrolled already, at {known.url} as {known.name}"
    if _cut_off(network):
        return (
            f"{words}, but the Bridge does not let it in: most likely it was revoked. To come back"
            " as a new one, stop it, move its data_dir away, start it, and enroll it with a new"
            " invitation"
        )
    if not statistics.connected and statistics.last_failure:
        words += f", and not connected: {statistics.last_failure}"
    return f"{words}; another network needs another data_dir"
