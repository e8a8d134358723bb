"""Both directions of a session at one of its ends: what is written here, and what is read here."""

import attrs
import trio
from trio.lowlevel import ParkingLot

from relay.signalling.client import SessionPort, SignallingClient
from relay.signalling.messages import Direction, FlowProgress, Progress
from relay.tunnel.allowance import Allowance
from relay.tunnel.keys import SessionKeys
from relay.tunnel.outbox import Outbox
from relay.tunnel.pulse import Pulse
from relay.tunnel.reader import CloudReader, ReaderStatistics
from relay.tunnel.seal import ChunkOpener, ChunkSealer
from relay.tunnel.slots import SlotSupply
from relay.tunnel.store import ObjectClient
from relay.tunnel.writer import CloudWriter, Throttle, WriterStatistics

# Connections that are made before a session with many objects needs them: each costs two round
# trips, and one that begins so late does so at the slowest. As many as it has PUTs or GETs at once.
WARM = 8


@attrs.frozen(slots=True)
class TunnelStatistics:
    """What has passed so far, each way."""

    writer: WriterStatistics
    reader: ReaderStatistics


class Flows:
    """A CloudWriter in direction `writes` and a CloudReader in the other, and their progress."""

    def __init__(
        self,
        client: SignallingClient,
        port: SessionPort,
        objects: ObjectClient,
        pulse: Pulse,
        *,
        peer: bytes,
        writes: Direction,
        allowance: Allowance,
        resume_window: float,
        throttle: Throttle | None = None,
        bulk: bool = False,
    ) -> None:
        """`bulk`: many objects go from caller to callee, one behind the other.

        `peer` is the identity of the Router at the other end.
        """
        self._session = port.session
        self._writes = writes
        changed = ParkingLot()
        self._slots = SlotSupply(client.request, port.session, resume_window)
        self._objects = objects
        self._bulk = bulk
        self._peer = peer
        self._paths = allowance.paths
        self._writes_bulk = writes_bulk = bulk and writes is Direction.CALLER_TO_CALLEE
        self._outbox = Outbox(
            slots=self._slots,
            objects=objects,
            budget=allowance.writing,
            resume_window=resume_window,
            changed=changed,
            bulk=writes_bulk,
            known=self._paths.recall(peer) if writes_bulk else None,
        )
        self.writer = CloudWriter(
            session=port.session,
            transmit=port.send,
            outbox=self._outbox,
            workers=allowance.workers,
            changed=changed,
            resume_window=resume_window,
            throttle=throttle,
            bulk=writes_bulk,
        )
        self.reader = CloudReader(
            session=port.session,
            request=client.request,
            objects=objects,
            allowance=allowance,
            resume_window=resume_window,
            changed=pulse.want,
            bulk=bulk and writes is Direction.CALLEE_TO_CALLER,
        )

    async def prepare(self) -> None:
        """What needs no keys, and may be done while they are on their way: have slots to write in,
        and connections to the store where many objects are to cross."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._slots.ask_early)
            if self._bulk:
                await self._objects.warm(WARM)

    async def run(self, keys: SessionKeys) -> None:
        """Carry what is written and read until the peer's final chunk is opened, or for ever.

        Raises ChunkError, ProviderError or SignallingError as the writer and the reader do.
        """
        key = {
            Direction.CALLER_TO_CALLEE: keys.caller_to_callee,
            Direction.CALLEE_TO_CALLER: keys.callee_to_caller,
        }
        writes, reads = self._writes, self._writes.other
        async with trio.open_nursery() as nursery:
            bulk = self._writes_bulk
            sealer = ChunkSealer(key[writes], keys.transcript, writes, bulk=bulk)
            nursery.start_soon(self.writer.run, sealer)
            await self.reader.run(ChunkOpener(key[reads], keys.transcript, reads))
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        """Give back what all sessions share: nothing more is written or read.

        What was found out of the path stays, for the next that writes as much.
        """
        window = self._outbox.window
        if self._writes_bulk and window.path is not None:
            self._paths.remember(self._peer, window.path, window.arrived)
        self._outbox.close()
        self.reader.close()

    @property
    def outstanding(self) -> bool:
        """Something announced, here or there, is not opened yet as far as this end knows."""
        return self.writer.outstanding or self.reader.outstanding

    def progress(self) -> Progress:
        """Where this end stands with both directions."""
        flows = {
            self._writes: self.writer.progress(),
            self._writes.other: self.reader.progress(),
        }
        outward, inward = (attrs.astuple(flows[direction]) for direction in Direction)
        return Progress(self._session, outward, inward, self.reader.slots)

    def take_progress(self, progress: Progress) -> bool:
        """Where the peer stands; True if it does not know where this end does.

        Raises SessionEnded if it cannot stand there.
        """
        flows = FlowProgress(*progress.outward), FlowProgress(*progress.inward)
        self.writer.heard(flows[self._writes])
        return self.reader.heard(flows[self._writes.other])

    def statistics(self) -> TunnelStatistics:
        """Counts since the session began."""
        return TunnelStatistics(self.writer.statistics(), self.reader.statistics())
