"""Transfers: what was sent by way of the queue, by destination and by study, and how it fares."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.errors import Refused
from relay.pages.forms import form
from relay.pages.rest import Rest
from relay.pages.site import Site
from relay.people.roles import Role
from relay.router.pages.explaining import link

TRANSFERS = "/transfers"

# Studies of one page: as many as the REST's index answers for at once.
STUDIES = 100


@attrs.frozen(slots=True)
class TransferPages:
    """The queue by destination and study; searching it; pausing it."""

    site: Site

    def routes(self) -> Sequence[Route]:
        return [
            Route(TRANSFERS, self.index, methods=["GET"]),
            Route("/live/transfers", self.live, methods=["GET"]),
            Route(f"{TRANSFERS}/search", self.search, methods=["POST"]),
            Route(f"{TRANSFERS}/pause", self.pause, methods=["POST"]),
            Route(f"{TRANSFERS}/resume", self.resume, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        rest, called = self.site.rest.of(request), request.query_params.get("called", "")
        who = self.site.who(request)
        return await self._page(
            request,
            blocks={
                "destinations": await self._destinations(rest, who, called),
                "studies": await self._studies(rest, who, called),
            },
            called=called,
            live=link("/live/transfers", called=called),
        )

    async def live(self, request: Request) -> Response:
        rest, called = self.site.rest.of(request), request.query_params.get("called", "")
        who = self.site.who(request)
        return self.site.live(
            request,
            {
                "destinations": partial(self._destinations, rest, who, called),
                "studies": partial(self._studies, rest, who, called),
            },
            every=2.0,
        )

    async def search(self, request: Request) -> Response:
        """The studies of a patient, or of an accession number: posted, so that neither stands in
        an address that a browser keeps."""
        typed, rest = await form(request), self.site.rest.of(request)
        sought = {"patient_id": typed.text("patient_id"), "accession": typed.text("accession")}
        try:
            if not any(sought.values()):
                raise Refused(400, "type a Patient ID or an Accession Number")
            patients = await rest.post("/v1/queue/patients", sought)
        except Refused as error:
            return await self._page(request, sought=sought, refused=str(error), code=error.status)
        rows: list[dict[str, Any]] = []
        for patient in patients:
            rows += await rest.get("/v1/queue/studies", study=patient["uid"])
        block = self._shown(self.site.who(request), _with(rows, patients), searched=True)
        return await self._page(request, blocks={"studies": block}, sought=sought, searched=True)

    # --- a destination ----------------------------------------------------------------------------

    async def pause(self, request: Request) -> Response:
        typed = await form(request)
        try:
            paused = await self.site.rest.of(request).post(
                "/v1/queue/pause",
                {"called": typed.text("called"), "reason": typed.text("reason")},
            )
        except Refused as error:
            return self.site.see_other(TRANSFERS, failed=f"Not paused: {error}.")
        return self.site.see_other(
            TRANSFERS, said=f"{paused['local']} gets nothing until it is resumed; what comes waits."
        )

    async def resume(self, request: Request) -> Response:
        called = (await form(request)).text("called")
        try:
            resumed = await self.site.rest.of(request).post("/v1/queue/resume", {"called": called})
        except Refused as error:
            return self.site.see_other(TRANSFERS, failed=f"Not resumed: {error}.")
        return self.site.see_other(TRANSFERS, said=f"Delivery to {resumed['local']} goes on.")

    # --- what is shown ----------------------------------------------------------------------------

    async def _page(
        self,
        request: Request,
        *,
        blocks: Mapping[str, str] | None = None,
        sought: Mapping[str, str] | None = None,
        called: str = "",
        searched: bool = False,
        refused: str = "",
        live: str = "",
        code: int = 200,
    ) -> Response:
        return await self.site.page(
            request,
            "transfers.html",
            code,
            blocks=blocks or {},
            sought=sought or {"patient_id": "", "accession": ""},
            called=called,
            searched=searched,
            refused=refused,
            live=live,
        )

    async def _destinations(self, rest: Rest, who: Any, called: str) -> str:
        queue = await rest.get("/v1/queue")
        rows = [row for row in queue["destinations"] if called in ("", row["called"], row["local"])]
        return self.site.fragment(
            "transfers_blocks.html", block="destinations", who=who, rows=rows, room=queue["room"]
        )

    async def _studies(self, rest: Rest, who: Any, called: str) -> str:
        try:
            rows = await rest.get("/v1/queue/studies", called=called or None, limit=STUDIES)
        except Refused as error:
            if error.status != 404:  # nothing was ever queued for it
                raise
            rows = []
        return self._shown(who, await with_patients(rest, who, rows))

    def _shown(self, who: Any, rows: Sequence[Mapping[str, Any]], *, searched: bool = False) -> str:
        return self.site.fragment(
            "transfers_blocks.html",
            block="studies",
            who=who,
            rows=rows,
            searched=searched,
            patients=may_see_patients(who),
        )


def may_see_patients(who: Any) -> bool:
    """Whether `who` is shown whose a study is."""
    return bool(who.may(Role.OPERATOR))


async def with_patients(
    rest: Rest, who: Any, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of studies with what is known of their patients, for those who may see that."""
    uids = sorted({row["study"] for row in rows if row["study"]})
    if not uids or not may_see_patients(who):
        return _with(rows, [])
    return _with(rows, await rest.post("/v1/queue/patients", {"studies": uids}))


def _with(
    rows: Sequence[Mapping[str, Any]], patients: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    known = {patient["uid"]: patient for patient in patients}
    return [{**row, "patient": known.get(row["study"])} for row in rows]
