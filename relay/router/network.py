"""The Router's side of the network: the enrolment, the connection, and the sessions of peers.

    invitation -> enrolled -> signalling -> Directory, Ask, Open -> a task for each session

Nothing here ends the process: what the Bridge or a peer brings about ends one session at most.
"""

import ssl
from collections.abc import Sequence
from functools import partial

import attrs
import structlog
import trio

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
from relay.signalling import messages
from relay.signalling.client import SignallingClient
from relay.tunnel.handshake import refuse_opening
from relay.tunnel.store import ObjectClient, open_object_client

log = structlog.get_logger()

# Openings that are looked at beside the associations that run: most come to nothing at once.
SPARE_OPENINGS = 64


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
        self, node: Node, outside: Outside, maximum_associations: int, stopping: trio.Event
    ) -> None:
        self._node = node
        self._outside = outside
        self._maximum_openings = maximum_associations + SPARE_OPENINGS
        self._stopping = stopping
        self._openings = 0
        self._enrolled = trio.Event()
        self._joined = trio.Event()
        self._enrolling = trio.Lock()

    async def enrol(self, invitation: Invitation) -> None:
        """Join the network of `invitation`. Raises Refused (409) if we are in another one."""
        async with self._enrolling:
            node, outside = self._node, self._outside
            if node.network is not None:
                known = node.network.membership
                if (known.network, known.bridge) != (invitation.network, invitation.bridge):
                    raise Refused(
                        409,
                        f"enrolled at {known.url} already; another network needs another data_dir",
                    )
                return
            joined = await membership.enrol(
                invitation,
                node.identity,
                node.name,
                node.keyring.statement(invitation.network),
                ssl_context=outside.ssl_context,
                proxy=outside.proxy,
            )
            await membership.save(node.database, joined)
            log.info("enrolled", bridge=joined.url, name=joined.name)
            self._enrolled.set()
            await self._joined.wait()

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
            open_object_client(
                ssl_context=outside.ssl_context,
                allowed_origins=[joined.origin, *outside.allowed_origins],
                proxy=outside.proxy,
            ) as objects,
            trio.open_nursery() as sessions,
        ):
            node.network = network = await self._join(joined, objects)
            if self._enrolled.is_set():
                self._joined.set()
            else:
                task_status.started()
            await network.client.run(
                on_connected=node.publish,
                on_open=partial(self._on_open, network, sessions),
                on_directory=partial(self._on_directory, network),
                on_ask=self._on_ask,
            )

    async def _join(self, joined: Membership, objects: ObjectClient) -> Network:
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
        )

    # --- what the Bridge says ---------------------------------------------------------------------

    async def _on_directory(self, network: Network, message: messages.Directory) -> None:
        try:
            await network.directory.take(message)
        except RelayError as error:
            log.error("directory not kept", why=str(error))
        self._node.live.recheck()

    async def _on_ask(self, message: messages.Ask) -> None:
        try:
            await self._node.take_ask(message)
        except RelayError as error:
            log.error("ask not kept", why=str(error))

    async def _on_open(
        self, network: Network, sessions: trio.Nursery, message: messages.Open
    ) -> None:
        if self._stopping.is_set() or self._openings >= self._maximum_openings:
            await self._refuse(network, message, Refusal.BUSY)
            return
        self._openings += 1
        sessions.start_soon(self._opening, network, message)

    async def _opening(self, network: Network, message: messages.Open) -> None:
        association = number(message.session)
        failed = False
        try:
            await serve_opening(self._node, message)
        except* RelayError as group:
            for error in leaves(group):
                log.warning("association failed", association=association, why=str(error))
            failed = True
        except* Exception:
            log.exception("association handler failed", association=association)
            failed = True
        finally:
            self._openings -= 1
        if failed:
            # If it has been answered, the session is over and this is one word too many.
            await self._refuse(network, message, Refusal.NOT_SPECIFIED)

    async def _refuse(self, network: Network, message: messages.Open, reason: Refusal) -> None:
        refusal = refuse_opening(self._node.identity, message.opening, reason)
        await network.client.send(messages.Refuse(message.session, refusal))
