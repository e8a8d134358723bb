"""Acceptance from knowledge: what another hospital's device takes of one of ours (DESIGN §6).

An object is taken into the queue only if the device that it is for is known to take it as it is.
Its owner's Router says that in a knowledge session (PROTOCOL.md §10.4); here it is held, durably,
until it expires. What is unknown is refused.

    destination -> learn -> held -> accepted -> renewed a day before it expires
                                  \\-> refused at a delivery: not accepted any more, asked anew
                                      until a later answer, or a delivery, says that it is taken

Both titles are published ones. What a peer has said counts while the title is that peer's.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import attrs
import structlog
import trio

from relay.database import Database
from relay.errors import (
    DatabaseError,
    Refused,
    RelayError,
    RemoteProtocolError,
    SignallingError,
)
from relay.router.node import Node, unix_time
from relay.router.pairs import Pair, Pairs
from relay.router.queue.asking import ask
from relay.router.queue.destinations import DestinationTable
from relay.router.queue.held import Held, Key, read, write
from relay.router.queue.renewing import Renewal
from relay.router.schema import change
from relay.tunnel.notes import Knowledge

log = structlog.get_logger()

T = TypeVar("T")

# From the opening of a knowledge session to its end: a Router that has to probe its device first
# says within this that it does not know yet (relay.router.queue.knowledge.ANSWER_WAIT).
DEADLINE = 60.0

# Each is a way that images go, from one device to another. The pairs of each take some 20 KiB of
# memory where a peer's devices are all different, and next to nothing where they are the same.
MAXIMUM_HELD = 1024


@attrs.define(slots=True, eq=False)
class _Asking:
    """Those who want to know of one key: one asks, the others wait for the same."""

    lock: trio.Lock = attrs.field(factory=trio.Lock)
    waiting: int = 0
    begun: int = 0
    completed: int = 0  # the number of the last one that was


class Acceptance:
    """What is held, kept in SQLite and looked up in memory. Made by `load`."""

    def __init__(self, database: Database, rows: Iterable[tuple[Key, Held]] = ()) -> None:
        self._database = database
        self._held: dict[Key, Held] = {}
        self._asking: dict[Key, _Asking] = {}
        self._why: dict[Key, RelayError] = {}  # it could not be learned, the newest last
        # What was granted when it was last asked for, the newest last.
        self._granted: dict[Key, frozenset[str]] = {}
        # What was delivered though the answer of that serial says that it is not taken.
        self._proven: dict[Key, tuple[int, frozenset[Pair]]] = {}
        self._renewal = Renewal(self)
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

        Until a later answer, of another serial, says that it is taken, or `lift`. It is asked for
        by `run`. Raises DatabaseError; it holds for this run of the Router all the same.
        """
        key = called, calling
        held = self._held.get(key)
        if held is None or pair in held.refused:
            return
        self._held[key] = attrs.evolve(held, refused=Pairs.of([*held.refused, pair]))
        log.warning(
            "not accepted any more",
            called=called,
            calling=calling,
            sop_class=pair[0],
            transfer_syntax=pair[1],
        )
        self.ask_soon(called)
        await self._rewrite(key)

    async def lift(self, called: str, calling: str, pairs: Collection[Pair]) -> bool:
        """The device has taken objects of `pairs`: they are accepted, if they were refused.

        Whether any was. Raises DatabaseError; it holds for this run of the Router all the same.
        """
        key = called, calling
        held = self._held.get(key)
        lifted = frozenset(pair for pair in pairs if held is not None and pair in held.refused)
        if held is None or not lifted:
            return False
        serial, proven = self._proven.get(key, (held.serial, frozenset()))
        self._proven[key] = held.serial, (proven if serial == held.serial else frozenset()) | lifted
        refused = Pairs.of(pair for pair in held.refused if pair not in lifted)
        self._held[key] = self._with_proven(key, attrs.evolve(held, refused=refused))
        log.info("accepted again after a delivery", called=called, calling=calling)
        await self._rewrite(key)
        return True

    def refused(self, called: str, calling: str) -> Pairs:
        """What the device has refused at deliveries, and is not known to take again."""
        held = self._held.get((called, calling))
        return held.refused if held is not None else Pairs()

    def refusing(self, node: Node, now: int) -> list[Key]:
        """Of whom anything is refused that could be accepted else. `now` is Unix seconds."""
        return sorted(
            key for key, held in self._held.items() if held.refused and self.known(node, *key, now)
        )

    def ask_soon(self, called: str | None = None) -> None:
        """What is not known of `called` (None: of any), or refused, is asked for without a pause:
        a person has mended something."""
        self._renewal.ask_soon(called)

    def network_changed(self) -> None:
        """The Bridge has said who is there, or what is granted."""
        self._renewal.look()

    async def forget(self, called: str, calling: str) -> None:
        """A destination is gone, and with it what is held for it; `calling` empty: for any."""
        for key in [k for k in self._held if k[0] == called and calling in ("", k[1])]:
            await self._drop(key)
        by_key: list[dict[Key, Any]] = [
            self._why,
            self._renewal.failures,
            self._granted,
            self._proven,
        ]
        for tried in by_key:
            for key in [k for k in tried if k[0] == called and calling in ("", k[1])]:
                del tried[key]

    def callers(self, node: Node, called: str, now: int) -> list[str]:
        """The calling titles of which it is known what `called` takes of them."""
        return sorted(
            calling
            for title, calling in self._held
            if title == called and self.known(node, called, calling, now) is not None
        )

    def transfer_syntaxes(self, node: Node, called: str, now: int) -> frozenset[str]:
        """All in which `called` is known to take something, of whichever caller."""
        found: frozenset[str] = frozenset()
        for calling in self.callers(node, called, now):
            held = self._held[called, calling]
            found |= {syntax for sop_class, syntax in held.pairs if held.takes(sop_class, syntax)}
        return found

    def unknown(self, called: str) -> dict[str, str]:
        """Why it could not be learned what `called` takes, by calling title; for people."""
        return {calling: str(why) for (title, calling), why in self._why.items() if title == called}

    def holds(self, called: str, calling: str) -> bool:
        """Whether anything was ever said of it, expired or not."""
        return (called, calling) in self._held

    def granted(self, called: str, calling: str) -> frozenset[str] | None:
        """What was granted when this run of the Router last asked for it; None: it has not."""
        return self._granted.get((called, calling))

    def why(self, called: str, calling: str) -> RelayError | None:
        """Why it could not be learned, the last time that it was tried."""
        return self._why.get((called, calling))

    async def run(self, node: Node, destinations: DestinationTable) -> None:
        """Learn what destinations need, and renew it in time, for ever."""
        await self._renewal.run(node, destinations)

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
            held = self._with_proven(key, held)
            await self._database.run(partial(write, key=key, held=held.after(before)))
            # What was refused, or taken, meanwhile waits to be written.
            self._held[key] = self._with_proven(key, held).after(self._held.get(key))
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

    def _with_proven(self, key: Key, held: Held) -> Held:
        """`held` with what the device has taken since the same was said."""
        serial, proven = self._proven.get(key, (held.serial, frozenset()))
        if serial != held.serial or all(pair in held.pairs for pair in proven):
            return held
        return attrs.evolve(held, pairs=Pairs.of([*held.pairs, *proven]))

    async def _rewrite(self, key: Key) -> None:
        async with self._writing:
            now = self._held.get(key)
            if now is not None:
                await self._database.run(partial(write, key=key, held=now))

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
        if node.network is not None:
            _remember(self._granted, key, node.network.directory.granted(called))
        why: RelayError
        try:
            with trio.fail_after(DEADLINE):
                peer, said = await ask(node, called, calling, DEADLINE)
            await self._keep(key, peer, said)
        except trio.TooSlowError:
            why = SignallingError(f"no answer within {DEADLINE:g} s")
        except DatabaseError:
            raise
        except RelayError as error:
            why = error
        else:
            return
        log.info("knowledge not learned", called=called, calling=calling, why=str(why))
        _remember(self._why, key, why)


def _remember(table: dict[Key, T], key: Key, value: T) -> None:
    """Put it last; without the first, where there are too many."""
    table.pop(key, None)
    table[key] = value
    if len(table) > MAXIMUM_HELD:
        del table[next(iter(table))]
