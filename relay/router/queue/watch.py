"""What is looked at from time to time: what people should know, what may go on, what is over."""

from collections import Counter
from collections.abc import Awaitable, Callable, Container, Sequence

import structlog
import trio

from relay.errors import RelayError, SpoolBroken, SpoolError
from relay.router.queue.destinations import Mode
from relay.router.queue.state import Queue
from relay.router.queue.warnings import Kind
from relay.spool.items import Hold, Pause, State, Tally
from relay.spool.table import PAGE

log = structlog.get_logger()

# How often people's concerns are looked at.
LOOK = 15.0

# How often what was delivered long ago is forgotten, here and of what peers delivered to us.
EXPIRY = 600.0

# There is room again where nothing was refused for so long: the next small object may fit where the
# last large one did not, and people are not to be told of each.
ROOM_AGAIN = 300.0


async def run(queue: Queue) -> None:
    """Look, for ever."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_repeat, queue, LOOK, look)
        nursery.start_soon(_repeat, queue, EXPIRY, expire)


async def _repeat(queue: Queue, pause: float, do: Callable[[Queue], Awaitable[None]]) -> None:
    while True:
        try:
            await do(queue)
        except RelayError as error:
            log.error("the queue cannot be looked at", why=str(error))
        except Exception:  # what is delivered does not depend on it
            log.exception("the queue cannot be looked at")
        await trio.sleep(pause)


async def look(queue: Queue) -> None:
    """Warn of what waits too long, is held or has failed; let go what is accepted again."""
    await _release(queue)
    tallies = await queue.spool.items.counts()
    waiting = {tally.called: tally.items for tally in tallies if tally.state is State.WAITING}
    pauses = {pause.called: pause for pause in await queue.spool.items.pauses()}
    for called in waiting.keys() | queue.warnings.standing(Kind.WAITING):
        await _waiting(queue, called, waiting.get(called), pauses.get(called))
    _failed(queue, tallies)
    await _held(queue)
    await _paused(queue)
    _room(queue)
    _audit(queue)


async def expire(queue: Queue) -> None:
    """Forget what is long over."""
    while await queue.spool.items.expire(queue.spool.clock()) == PAGE:
        pass
    await queue.spool.receipts.expire(int(queue.spool.clock()))


async def _waiting(queue: Queue, called: str, count: int | None, pause: Pause | None) -> None:
    oldest = await queue.spool.items.oldest(called)
    if oldest is None or queue.spool.clock() - oldest < queue.settings.warn_after:
        queue.warnings.over(Kind.WAITING, called)
        return
    why = queue.couriers.trouble(called)
    if pause is not None:
        who = "a person" if pause.by_person else "its own answer"
        why = f"paused by {who}, {pause.reason}".removesuffix(", ")
        why += f"; `relay queue resume {called}` lets it go on"
    queue.warnings.begin(
        Kind.WAITING,
        called,
        f"objects for {called} wait for longer than {queue.settings.warn_after:g} s"
        + (f": {why}" if why else ""),
        since=oldest,
        destination=called,
        count=count,
    )


def _failed(queue: Queue, tallies: Sequence[Tally]) -> None:
    failed = {tally.called: tally.items for tally in tallies if tally.state is State.FAILED}
    for called, count in failed.items():
        queue.warn_failed(called, count)
    _end_others(queue, Kind.FAILED, failed)


# Why objects wait for a person, what the warning is, and what it says of them.
_STUCK = {
    Hold.DOUBTFUL: (
        Kind.DOUBTFUL,
        "are from before this Router was restored, and may have been delivered: `relay queue list"
        " --state held` shows them, `relay queue retry --state held` sends what the far device has"
        " not got, `relay queue discard --state held` gives them up",
    ),
    Hold.MOVED: (
        Kind.MOVED,
        "were left for the hospital that this title belonged to, and go to no other: `relay queue"
        " list --state held` shows them; send them again, then `relay queue discard`",
    ),
    Hold.LOCKED: (
        Kind.LOCKED,
        "are locked with another spool key than this Router has: start it with that one",
    ),
}


async def _held(queue: Queue) -> None:
    held = await queue.spool.items.held()
    stuck = {hold: Counter[str]() for hold in _STUCK}
    refused = {key: set(queue.acceptance.refused(*key)) for key in _refusing(queue)}
    counts_refused = Counter[tuple[str, str]]()
    for called, calling, hold, pair, count in held:
        if hold in stuck:
            stuck[hold][called] += count
        elif hold is Hold.NOT_ACCEPTED:
            refused.setdefault((called, calling), set()).add(pair)
            counts_refused[called, calling] += count
    for hold, counts in stuck.items():
        kind, words = _STUCK[hold]
        for called, count in counts.items():
            queue.warnings.begin(
                kind, called, f"objects for {called} {words}", destination=called, count=count
            )
        _end_others(queue, kind, counts)
    warned = {
        queue.warn_refused(*key, pairs, counts_refused[key] or None)
        for key, pairs in refused.items()
    }
    _end_others(queue, Kind.REFUSED, warned)


def _refusing(queue: Queue) -> list[tuple[str, str]]:
    """Titles of which something is refused, and that somebody here could send by the queue."""
    now = int(queue.spool.clock())
    node, destinations = queue.node, queue.destinations
    return [
        (called, calling)
        for called, calling in queue.acceptance.refusing(node, now)
        if (row := destinations.for_call(called, calling)) is not None
        and row.mode is Mode.QUEUED
        and (calling == node.ae_title or node.names.own(calling) is not None)
    ]


async def _paused(queue: Queue) -> None:
    pauses = [pause for pause in await queue.spool.items.pauses() if not pause.by_person]
    for pause in pauses:
        queue.warn_paused(pause)
    _end_others(queue, Kind.PAUSED, {pause.called for pause in pauses})


def _end_others(queue: Queue, kind: Kind, there: Container[str]) -> None:
    """End the warnings of `kind` that have no cause any more."""
    for key in queue.warnings.standing(kind):
        if key not in there:
            queue.warnings.over(kind, key)


async def _release(queue: Queue) -> None:
    """What a device refused waits again once it is known to take it."""
    for called, calling, hold, pair, _ in await queue.spool.items.held():
        if hold is not Hold.NOT_ACCEPTED:
            continue
        now = int(queue.spool.clock())
        known = queue.acceptance.known(queue.node, called, calling, now)
        if known is not None and not known.takes(*pair):
            # Also what was refused before it was known anew, so that it is asked for until it is.
            await queue.acceptance.refuse(called, calling, pair)
        elif known is not None:
            count = await queue.spool.items.release(called, calling, pair)
            log.info("accepted again", called=called, calling=calling, objects=count)
            queue.couriers.wake(called)


def _room(queue: Queue) -> None:
    try:
        queue.spool.objects.check()
    except SpoolBroken as error:
        queue.warnings.begin(Kind.SPOOL_BROKEN, "", str(error))
    except SpoolError as error:
        queue.warnings.begin(Kind.SPOOL_FULL, "", str(error))
    else:
        if trio.current_time() - queue.refused_at >= ROOM_AGAIN:
            queue.warnings.over(Kind.SPOOL_FULL, "")


def _audit(queue: Queue) -> None:
    """Not the queue's, and told with it: one webhook has all that a person should know."""
    sender = queue.node.audit_sender
    lagging = sender.lagging() if sender is not None else None
    if sender is None or lagging is None:
        _end_others(queue, Kind.AUDIT_BEHIND, ())
        return
    queue.warnings.begin(
        Kind.AUDIT_BEHIND,
        str(sender.collector),
        lagging.words,
        since=queue.spool.clock() - lagging.lag,
        count=lagging.entries,
    )
