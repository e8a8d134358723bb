"""Acceptance from knowledge: what another hospital's device takes of one of ours (DESIGN §6).

An object is taken into the queue only if the device that it is for is known to take it as it is.
Its owner's Router says that in a knowledge session (PROTOCOL.md §10.4); here it is held, durably,
until it expires. What is unknown is refused.

    destination -> learn -> held -> accepted -> renewed a day before it expires
                                  \\-> refused at a delivery: not accepted any more, asked anew

Both titles are published ones. What a peer has said counts while the title is that peer's.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import attrs
import structlog
import trio

from relay.database import Database
from relay.errors import DatabaseError, Refused, RelayError, RemoteProtocolError
from relay.router.node import Node, unix_time
from relay.router.pairs import Pair, Pairs
from relay.router.queue.asking import ask
from relay.router.queue.destinations import DestinationTable, Mode
from relay.router.queue.held import Held, Key, read, write
from relay.router.queue.pauses import Pauses
from relay.router.schema import change
from relay.tunnel.notes import Knowledge

log = structlog.get_logger()

# From the opening of a knowledge session to its end: a Router that has to probe its device first
# says within this that it does not know yet (relay.router.queue.knowledge.ANSWER_WAIT).
DEADLINE = 60.0

# Seconds before it expires that knowledge is asked for again: a weekend's outage of the network
# begins on a Friday, and what is known then should last.
RENEWAL = 86400

# Each is a way that images go, from one device to another. The pairs of each take some 20 KiB of
# memory where a peer's devices are all different, and next to nothing where they are the same.
MAXIMUM_HELD = 1024

# Called titles that are asked for at the same time. More only hurry where all are new.
AT_ONCE = 8

# Between two looks at what is due, where nothing has changed.
LOOK = 30.0

# After a failure to learn: a far Router that is away comes back within the hour, and a device that
# is probed costs its hospital forty associations each time.
PAUSES = Pauses(first=60.0, factor=2.0, cap=3600.0)


@attrs.define(slots=True, eq=False)
class _Asking:
    """Those who want to know of one key: one asks, the others wait for the same."""

    lock: trio.Lock = attrs.field(factory=trio.Lock)
    waiting: int = 0
    begun: int = 0
    completed: int = 0  # the number of the last one that was


@attrs.frozen(slots=True)
class _Failure:
    """Asking in vain: how often in a row, and when to ask again, by trio's clock."""

    count: int
    again: float


class Acceptance:
    """What is held, kept in SQLite and looked up in memory. Made by `load`."""

    def __init__(self, database: Database, rows: Iterable[tuple[Key, Held]] = ()) -> None:
        self._database = database
        self._held: dict[Key, Held] = {}
        self._asking: dict[Key, _Asking] = {}
        self._failures: dict[Key, _Failure] = {}
        self._why: dict[Key, str] = {}  # it could not be learned, the newest last
        self._busy: set[str] = set()  # called titles
        self._news = trio.Event()
        self._writing = trio.Lock()
        for key, held in rows:
            self._held[key] = self._sharing(held)

    @classmethod
    async def load(cls, database: Database) -> "Acceptance":
        """What the database has."""
        return cls(database, await database.run(read))

    def known(self, node: Node, called: str, calling: str, now: int) -> Held | None:
        """What `called` takes of `calling`; None if that is not known, or not any more.

        `now` is Unix seconds.
        """
        held = self._held.get((called, calling))
        if held is None or held.expires <= now or node.network is None:
            return None
        # Also where the Bridge cannot be reached: what a title was bound to is remembered.
        return held if node.network.directory.permits(called, held.peer) else None

    async def wait(self, node: Node, called: str, calling: str, limit: float) -> Held | None:
        """What is known, or can be learned within `limit` seconds."""
        held = self.known(node, called, calling, unix_time())
        if held is None:
            with trio.move_on_after(limit):
                held = await self.learn(node, called, calling)
        return held

    async def learn(
        self, node: Node, called: str, calling: str, *, anew: bool = False
    ) -> Held | None:
        """Ask the owner of `called`, unless that is known; `anew`: also then.

        One asks at a time, whoever else wants the same waits for it. None if it could not be
        learned; the log says why. Raises DatabaseError if it cannot be kept.
        """
        key = called, calling
        with self._wanting(key) as asking:
            # What was asked before something was refused says nothing of that.
            enough = asking.begun if anew else asking.completed
            async with asking.lock:
                if asking.completed <= enough and (
                    anew or self.known(node, called, calling, unix_time()) is None
                ):
                    asking.begun += 1
                    await self._ask(node, key)
                    asking.completed = asking.begun
        return self.known(node, called, calling, unix_time())

    async def refuse(self, called: str, calling: str, pair: Pair) -> None:
        """The device did not take `pair`: it is not accepted from now on, whatever was said.

        Until a later answer has another serial: then the device was asked again. That is done by
        `run`. Raises DatabaseError; it holds for this run of the Router all the same.
        """
        held = self._held.get((called, calling))
        if held is None or pair not in held.pairs or pair in held.refused:
            return
        refused = Pairs.of([*held.refused, pair])
        self._held[called, calling] = attrs.evolve(held, refused=refused)
        log.warning(
            "not accepted any more",
            called=called,
            calling=calling,
            sop_class=pair[0],
            transfer_syntax=pair[1],
        )
        self._failures.pop((called, calling), None)
        self._news.set()
        async with self._writing:
            now = self._held.get((called, calling))
            if now is not None:
                await self._database.run(partial(write, key=(called, calling), held=now))

    async def forget(self, called: str, calling: str) -> None:
        """A destination is gone, and with it what is held for it; `calling` empty: for any."""
        for key in [k for k in self._held if k[0] == called and calling in ("", k[1])]:
            await self._drop(key)
        for tried in (self._why, self._failures):
            for key in [k for k in tried if k[0] == called and calling in ("", k[1])]:
                del tried[key]

    def callers(self, node: Node, called: str, now: int) -> list[str]:
        """The calling titles of which it is known what `called` takes of them."""
        return sorted(
            calling
            for title, calling in self._held
            if title == called and self.known(node, called, calling, now) is not None
        )

    def unknown(self, called: str) -> dict[str, str]:
        """Why it could not be learned what `called` takes, by calling title; for people."""
        return {calling: why for (title, calling), why in self._why.items() if title == called}

    # --- keeping ------------------------------------------------------------------------------

    async def _keep(self, key: Key, peer: bytes, said: Knowledge) -> None:
        """Hold what `peer` says. An answer that is older than the one held is not taken."""
        now = unix_time()
        held = self._sharing(
            Held(
                peer=peer,
                serial=said.serial,
                expires=now + said.lifetime,
                split=said.split,
                window=said.window,
                commitment=bool(said.commitment),
                pairs=Pairs.of_groups(said.groups),
            )
        )
        async with self._writing:
            before = self._held.get(key)
            if before is not None and before.peer == peer and said.serial < before.serial:
                raise RemoteProtocolError(
                    f"knowledge {said.serial} is older than {before.serial}, which is held"
                )
            await self._make_room(key, now)
            await self._database.run(partial(write, key=key, held=_refusing(held, before)))
            # What was refused meanwhile waits to be written.
            self._held[key] = _refusing(held, self._held.get(key))
        log.info(
            "knowledge held",
            called=key[0],
            calling=key[1],
            serial=held.serial,
            sop_classes=len(held.pairs),
            commitment=held.commitment,
        )

    def _sharing(self, held: Held) -> Held:
        """`held` with the pairs that another one of the same has."""
        for other in self._held.values():
            if other.pairs == held.pairs:
                return attrs.evolve(held, pairs=other.pairs)
        return held

    async def _make_room(self, key: Key, now: int) -> None:
        if key in self._held or len(self._held) < MAXIMUM_HELD:
            return
        for other in [other for other, held in self._held.items() if held.expires <= now]:
            await self._drop(other)
        if len(self._held) >= MAXIMUM_HELD:
            raise Refused(409, f"of {MAXIMUM_HELD} ways it is held already: remove destinations")

    async def _drop(self, key: Key) -> None:
        await self._database.run(
            change("DELETE FROM knowledge_held WHERE called = ? AND calling = ?", *key)
        )
        self._held.pop(key, None)

    # --- asking -------------------------------------------------------------------------------

    @contextmanager
    def _wanting(self, key: Key) -> Iterator[_Asking]:
        asking = self._asking.setdefault(key, _Asking())
        asking.waiting += 1
        try:
            yield asking
        finally:
            asking.waiting -= 1
            if not asking.waiting:
                del self._asking[key]

    async def _ask(self, node: Node, key: Key) -> None:
        called, calling = key
        self._why.pop(key, None)
        try:
            with trio.fail_after(DEADLINE):
                peer, said = await ask(node, called, calling, DEADLINE)
            await self._keep(key, peer, said)
        except trio.TooSlowError:
            why = f"no answer within {DEADLINE:g} s"
        except DatabaseError:
            raise
        except RelayError as error:
            why = str(error)
        else:
            return
        log.info("knowledge not learned", called=called, calling=calling, why=why)
        self._why[key] = why
        if len(self._why) > MAXIMUM_HELD:
            del self._why[next(iter(self._why))]

    # --- in the background --------------------------------------------------------------------

    async def run(self, node: Node, destinations: DestinationTable) -> None:
        """Learn what destinations need, and renew it in time, for ever.

        The callers of one destination one after the other: each may have its device probed.
        """
        async with trio.open_nursery() as nursery:
            while True:
                changed, self._news = destinations.changed, trio.Event()
                for called, callings in self._due(node, destinations).items():
                    if called not in self._busy and len(self._busy) < AT_ONCE:
                        self._busy.add(called)
                        nursery.start_soon(self._renew, node, called, callings)
                with trio.move_on_after(LOOK):
                    await _either(changed, self._news)

    def _due(self, node: Node, destinations: DestinationTable) -> dict[str, list[str]]:
        """The calling titles to be asked for, by the called one."""
        due: defaultdict[str, list[str]] = defaultdict(list)
        if node.network is None or not node.network.client.connected:
            return due
        ours = [device.published for device in node.devices]
        for row in destinations:
            # The command line calls as the Router itself: it is asked for once that was used.
            itself = [node.ae_title] if (row.called, node.ae_title) in self._held else []
            for calling in [row.calling] if row.calling else [*ours, *itself]:
                holds = (
                    row.mode is Mode.QUEUED and destinations.for_call(row.called, calling) is row
                )
                failure = self._failures.get((row.called, calling))
                if (
                    holds
                    and self._is_due(node, row.called, calling)
                    and (failure is None or failure.again <= trio.current_time())
                ):
                    due[row.called].append(calling)
        return due

    def _is_due(self, node: Node, called: str, calling: str) -> bool:
        held = self.known(node, called, calling, unix_time() + RENEWAL)
        return held is None or bool(held.refused)

    async def _renew(self, node: Node, called: str, callings: list[str]) -> None:
        try:
            for calling in callings:
                await self._renew_one(node, called, calling)
        except Exception:  # it would end this Router, and with it all that others wait for
            log.exception("knowledge not learned", called=called)
        finally:
            self._busy.discard(called)

    async def _renew_one(self, node: Node, called: str, calling: str) -> None:
        key = called, calling
        try:
            await self.learn(node, called, calling, anew=True)
        except DatabaseError as error:  # a full disk: may be better the next time
            log.error("knowledge not kept", called=called, calling=calling, why=str(error))
        if self._is_due(node, called, calling):
            count = self._failures[key].count + 1 if key in self._failures else 1
            self._failures[key] = _Failure(count, trio.current_time() + PAUSES.next(count))
        else:
            self._failures.pop(key, None)


def _refusing(held: Held, before: Held | None) -> Held:
    """`held` less what the device has refused since the same was said `before`."""
    if before is None or (before.peer, before.serial) != (held.peer, held.serial):
        return held
    return attrs.evolve(held, refused=before.refused)


async def _either(*events: trio.Event) -> None:
    """Return once one of them is set."""
    async with trio.open_nursery() as nursery:

        async def watch(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(watch, event)
