"""What each operation of the queue's REST does (relay.router.queue.api).

Thin: each route reads its input, lets the spool's table do the work, and shows the outcome with
both names of each thing: the network's, and the one that people here know. Study and SOP instance
UIDs are for this hospital's people, over a socket that only they can open; no log has them.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import structlog
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay.errors import Refused, SpoolError
from relay.identity import fingerprint
from relay.router.entries import Entry
from relay.router.queue import selecting, snapshot
from relay.router.queue.destinations import Mode
from relay.router.queue.state import Queue
from relay.spool.index import MAXIMUM_FOUND
from relay.spool.items import Batch, Item, Pause, Selection, State
from relay.spool.people import PAGE
from relay.web.answers import read_json

log = structlog.get_logger()

# Items of one answer where nobody says how many: what fits a few screens.
DEFAULT_LIMIT = 100

# Studies are counted among so many of the last items: a day of a large hospital, and not longer to
# count than a sender can wait meanwhile. Of one study, or behind one number, all are counted.
STUDIED = 100_000

# A person's words for the others.
MAXIMUM_REASON = 200

# Patient ID and Accession Number are at most 64 and 16 characters (PS3.5 §6.2, VR LO and SH).
MAXIMUM_SOUGHT = 64

_DISCARDED = "discarded by a person"


@attrs.frozen(slots=True)
class QueueRoutes:
    """The routes over `queue`."""

    queue: Queue

    # --- looking ----------------------------------------------------------------------------------

    async def overview(self, request: Request) -> Response:
        places = await snapshot.standings(self.queue)
        return JSONResponse(
            {
                "destinations": [
                    place.to_json() | self._destination(place.called) for place in places
                ],
                "room": snapshot.room(self.queue),
            }
        )

    async def items(self, request: Request) -> Response:
        fields = selecting.from_query(request.query_params)
        entry = Entry(fields)
        limit, latest = entry.whole("limit", DEFAULT_LIMIT, 1, PAGE), entry.flag("latest", False)
        selected = await selecting.selection(self.queue, fields, "limit", "latest")
        found = await self.queue.spool.items.select(selected, limit + 1, latest=latest)
        following = None
        if len(found) > limit:
            found = found[:limit]
            following = found[-1].number - (1 if latest else 0)
        return JSONResponse({"items": await self._items(found), "next": following})

    async def item(self, request: Request) -> Response:
        number = request.path_params["number"]
        found = await self.queue.spool.items.select(Selection(numbers=(number,)))
        if not found:
            raise Refused(404, f"no object {number} in the queue; it may be long delivered")
        return JSONResponse((await self._items(found))[0])

    async def studies(self, request: Request) -> Response:
        fields = selecting.from_query(request.query_params)
        limit = Entry(fields).whole("limit", DEFAULT_LIMIT, 1, PAGE)
        selected = await selecting.selection(self.queue, fields, "limit")
        items = self.queue.spool.items
        if selected.study is None and not selected.after:
            after = max(0, await items.last() - STUDIED)
            selected = attrs.evolve(selected, after=after)
        rows = await items.studies(selected, limit)
        return JSONResponse([row | self._destination(row["called"]) for row in rows])

    async def count(self, request: Request) -> Response:
        fields = selecting.from_query(request.query_params)
        selected = await selecting.selection(self.queue, fields)
        items = self.queue.spool.items
        last = await items.last()  # before the count, which then has all up to it
        counts = await items.count(selected)
        return JSONResponse({state.word: counts.get(state, 0) for state in State} | {"last": last})

    async def mode(self, request: Request) -> Response:
        node = self.queue.node
        entry = Entry(dict(request.query_params))
        entry.only(("called", "calling"))
        title, caller = entry.title("called"), entry.title("calling", node.ae_title)
        if not title:
            raise Refused(400, "called is missing: whom is it about?")
        called = node.names.published(title) or title
        calling = selecting.published_caller(self.queue, caller)
        row = self.queue.destinations.for_call(called, calling)
        queued = node.network is not None and row is not None and row.mode is Mode.QUEUED
        return JSONResponse(self._destination(called) | {"calling": calling, "queued": queued})

    async def patients(self, request: Request) -> Response:
        entry = Entry(await read_json(request))
        entry.only(("studies", "patient_id", "accession"))
        sought = {name: entry.fields.get(name, "") for name in ("patient_id", "accession")}
        for name, value in sought.items():
            if not isinstance(value, str) or len(value) > MAXIMUM_SOUGHT:
                raise Refused(400, f"{name} is a text of at most {MAXIMUM_SOUGHT} characters")
        uids = entry.texts("studies")
        if len(uids) > MAXIMUM_FOUND:
            raise Refused(400, f"studies: at most {MAXIMUM_FOUND} at once")
        if not uids and not any(value.strip() for value in sought.values()):
            raise Refused(400, "say whom it is about: patient_id, accession or studies")
        index = self.queue.spool.index
        found = await index.studies(uids) if uids else await index.find(**sought)
        return JSONResponse([study.to_json() for study in found])

    async def warnings(self, request: Request) -> Response:
        return JSONResponse(self.queue.warnings.to_json())

    # --- doing ------------------------------------------------------------------------------------

    async def retry(self, request: Request) -> Response:
        selected = await self._chosen(request)
        items = self.queue.spool.items
        before = await items.count(selected)
        count = await items.retry(selected)
        self.queue.acceptance.ask_soon(selected.called)
        for called in [selected.called] if selected.called else await items.destinations():
            self.queue.couriers.wake(called)
        self._log("objects to be tried again", selected, count)
        return JSONResponse(
            {
                "items": count,
                "before": {state.word: before.get(state, 0) for state in State},
                "paused": [
                    self._destination(pause.called) | {"paused": snapshot.pause_json(pause)}
                    for pause in await self._in_the_way(selected)
                ],
            }
        )

    async def _in_the_way(self, selected: Selection) -> list[Pause]:
        """The pauses that keep what is meant, and waits, from being tried."""
        items = self.queue.spool.items
        found = []
        for pause in await items.pauses():
            if selected.called not in (None, pause.called) or selected.state is State.DELIVERED:
                continue
            waiting = attrs.evolve(selected, called=pause.called, state=State.WAITING)
            if (await items.count(waiting)).get(State.WAITING):
                found.append(pause)
        return found

    async def discard(self, request: Request) -> Response:
        """Page by page: one page's rows and files go together, whatever becomes of the asker."""
        spool = self.queue.spool
        selected = await self._chosen(request)
        try:
            await spool.custody.noted()  # what cannot be seen now is not to be sent later
        except SpoolError as error:
            raise Refused(503, f"nothing can be discarded now: {error}") from error
        if selected.until is None:  # what comes meanwhile is not meant
            selected = attrs.evolve(selected, until=await spool.items.last())
        count = 0
        while True:
            with trio.CancelScope(shield=True):
                gone = await spool.items.discard(selected, _DISCARDED, spool.clock())
                self.queue.couriers.discarded({stored.item for stored in gone})
                await spool.objects.remove(gone)
            count += len(gone)
            if len(gone) < PAGE:
                break
        self._log("objects discarded", selected, count)
        return JSONResponse({"items": count})

    async def pause(self, request: Request) -> Response:
        entry = Entry(await read_json(request), "pause")
        entry.only(("called", "reason"))
        reason = entry.fields.get("reason", "")
        if not isinstance(reason, str) or len(reason) > MAXIMUM_REASON:
            raise Refused(400, f"pause: reason is a text of at most {MAXIMUM_REASON} characters")
        called = await selecting.destination(self.queue, entry.text("called"))
        pause = Pause(called, True, reason, self.queue.spool.clock())
        await self.queue.pause(pause)
        log.info("destination paused by a person", called=called)
        return JSONResponse(self._destination(called) | {"paused": snapshot.pause_json(pause)})

    async def resume(self, request: Request) -> Response:
        entry = Entry(await read_json(request), "resume")
        entry.only(("called",))
        called = await selecting.destination(self.queue, entry.text("called"))
        stopped = await self.queue.resume(called)
        log.info("destination resumed by a person", called=called, stopped=stopped)
        return JSONResponse(self._destination(called) | {"was_paused": stopped})

    # --- for people -------------------------------------------------------------------------------

    async def _chosen(self, request: Request) -> Selection:
        """What is to be changed. Raises Refused (400) where that is everything, and not said so."""
        fields = await read_json(request)
        everything = Entry(fields).flag("all", False)
        selected = await selecting.selection(self.queue, fields, "all")
        if not selecting.picks(selected) and not everything:
            raise Refused(400, 'nothing is selected; {"all": true} means all that there is')
        return selected

    async def _items(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        batches = await self.queue.spool.items.batches(item.batch for item in items)
        waiting = any(item.state is State.WAITING for item in items)
        pauses = await self.queue.spool.items.pauses() if waiting else []
        paused = {pause.called: pause for pause in pauses}
        return [
            self._item(item, batches[item.batch])
            | snapshot.outlook(self.queue, item, paused.get(item.called))
            for item in items
        ]

    def _item(self, item: Item, batch: Batch) -> dict[str, Any]:
        return (
            item.to_json()
            | self._destination(item.called)
            | {
                "calling": batch.calling,
                "device": batch.device,
                "batch": batch.number,
                "priority": batch.priority.name.lower(),
            }
        )

    def _destination(self, called: str) -> dict[str, Any]:
        """Who that is now: a fingerprint, and a name that is empty for nobody."""
        node = self.queue.node
        network = node.network
        owner = network.directory.owner(called) if network is not None else None
        peer = network.peers.get(owner) if network is not None and owner is not None else None
        return {
            "called": called,
            "local": node.names.local(called) or called,
            "peer": fingerprint(owner) if owner is not None else None,
            "name": peer.name if peer is not None else "",
        }

    @staticmethod
    def _log(event: str, selected: Selection, count: int) -> None:
        log.info(
            event,
            objects=count,
            called=selected.called,
            calling=selected.calling,
            state=selected.state.word if selected.state is not None else None,
            one_study=selected.study is not None,
            numbers=len(selected.numbers) if selected.numbers is not None else None,
        )
