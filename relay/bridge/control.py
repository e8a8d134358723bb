"""The Bridge's REST, for people and scripts.

Whoever may open the Unix socket administers the Bridge, and is asked for nothing more. The pages'
port, and the Bridge's own where its pages are there, have the same operations for those who sign in
or bring an API token, each as far as its role goes (relay.web.operations, relay.bridge.facing).
"""

import time
from collections.abc import Sequence
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay import __version__
from relay.audit.audit import Audit
from relay.audit.changes import tell
from relay.audit.sender import Sender
from relay.bridge.backend import BridgeBackend
from relay.bridge.enrolment import DEFAULT_LIFETIME, Enrolment
from relay.bridge.metering import Meter
from relay.bridge.rates import Rates
from relay.bridge.registry import Registry
from relay.bridge.restored import Restored
from relay.bridge.schemas import (
    GRANT,
    INVITATION,
    INVITATION_ROW,
    PUBLICATION,
    RATES,
    ROUTER,
    SESSION,
    STATUS,
    WARNING,
)
from relay.bridge.seen import LastSeen
from relay.bridge.sessions import Sessions
from relay.bridge.stores import Stores
from relay.bridge.stores_api import store_operations
from relay.bridge.warnings import Warned, standing
from relay.errors import Refused
from relay.identity import fingerprint
from relay.people.roles import Role
from relay.signalling.hub import Hub
from relay.signalling.messages import EndReason
from relay.web.answers import only, read_json
from relay.web.operations import COUNT, TEXT, Operation, listed, options, with_document


@attrs.frozen(slots=True)
class Administration:
    """What the operations below work on.

    `certificate_ends` is until when the certificate of the network port holds (Unix seconds), None
    where a proxy has it.
    """

    url: str
    network: bytes
    identity: bytes
    started: int
    certificate_ends: int | None
    registry: Registry
    enrolment: Enrolment
    sessions: Sessions
    backend: BridgeBackend
    hub: Hub
    stores: Stores
    seen: LastSeen
    rates: Rates
    meter: Meter
    restored: Restored
    audit: Audit | None = None
    audit_sender: Sender | None = None

    # --- invitations and Routers ----------------------------------------------------------------

    async def invite(self, request: Request) -> Response:
        body = await read_json(request)
        name, lifetime = body.get("name"), body.get("lifetime", DEFAULT_LIFETIME)
        if not isinstance(name, str):
            raise Refused(400, "name: expected the hospital's name")
        if type(lifetime) is not int:
            raise Refused(400, "lifetime: expected a whole number of seconds")
        only(body, "name", "lifetime")
        invitation = await self.enrolment.invite(name, lifetime)
        answer = {
            "invitation": invitation.to_string(),
            "id": invitation.invitation_id.hex(),
            "name": name.strip(),
            "expires": invitation.expires,
        }
        return JSONResponse(answer, status_code=201)

    async def invitations(self, request: Request) -> Response:
        return JSONResponse(await self.enrolment.list_invitations())

    async def withdraw(self, request: Request) -> Response:
        await self.enrolment.withdraw(request.path_params["id"])
        return Response(status_code=204)

    async def routers(self, request: Request) -> Response:
        return JSONResponse(await self._routers())

    async def _routers(self) -> list[dict[str, Any]]:
        connected = {fingerprint(router) for router in self.hub.connected()}
        seen = {fingerprint(router): at for router, at in self.seen.all().items()}
        stored = {fingerprint(router): size for router, size in self.meter.used().items()}
        versions = {fingerprint(router): said for router, said in self.hub.versions().items()}
        return [
            {
                **row,
                "connected": row["fingerprint"] in connected,
                "last_seen": seen.get(row["fingerprint"]),
                "stored": stored.get(row["fingerprint"], 0),
                "version": versions.get(row["fingerprint"]) or None,
            }
            for row in await self.registry.list_routers()
        ]

    async def revoke(self, request: Request) -> Response:
        router = await self.registry.find_router(request.path_params["fingerprint"])
        for row in await self.registry.list_routers():
            if row["fingerprint"] == fingerprint(router):
                tell(request, hospital=row["name"])
        await self.backend.revoke(router)
        return Response(status_code=204)

    # --- what the network is doing --------------------------------------------------------------

    async def publications(self, request: Request) -> Response:
        return JSONResponse(await self.registry.list_publications())

    async def grants(self, request: Request) -> Response:
        return JSONResponse(await self.registry.list_grants())

    async def open_sessions(self, request: Request) -> Response:
        return JSONResponse(self.sessions.describe())

    async def end_session(self, request: Request) -> Response:
        named = request.path_params["session"]
        held = {session.id.hex(): session.id for session in self.sessions.all()}
        if named not in held:
            raise Refused(404, "no such session is open: it may be over by now")
        await self.hub.end_session(held[named], EndReason.REVOKED)
        return Response(status_code=204)

    async def passed(self, request: Request) -> Response:
        return JSONResponse(self.rates.describe())

    async def warnings(self, request: Request) -> Response:
        found = await self._standing(await self._routers())
        return JSONResponse([warned.to_json() for warned in found])

    async def _standing(self, routers: list[dict[str, Any]]) -> list[Warned]:
        own = self.stores.own
        return standing(
            await self.stores.describe(),
            routers,
            used=own.used if own is not None else 0,
            space=own.space if own is not None else None,
            certificate_ends=self.certificate_ends,
            restored=self.restored.unconfirmed,
            lagging=self.audit_sender.lagging() if self.audit_sender is not None else None,
            started=self.started,
            now=int(time.time()),
        )

    async def confirm_restoration(self, request: Request) -> Response:
        await self.restored.confirm()
        return Response(status_code=204)

    async def status(self, request: Request) -> Response:
        routers = await self._routers()
        statistics = self.hub.statistics()
        own = self.stores.own
        return JSONResponse(
            {
                "mode": "bridge",
                "version": __version__,
                "url": self.url,
                "network": self.network.hex(),
                "fingerprint": fingerprint(self.identity),
                "started": self.started,
                "routers": sum(not row["revoked"] for row in routers),
                "connected": statistics.connected,
                "publications": sum(len(row["ae_titles"]) for row in routers),
                "sessions": len(self.sessions.all()),
                "messages": statistics.messages,
                "moved": statistics.moved,
                "stored": own.used if own is not None else 0,
                "space": own.space if own is not None else None,
                "store": next(iter(self.stores.in_use), None),
                "failing_stores": self.stores.failing(),
                "warnings": [warned.words for warned in await self._standing(routers)],
            }
        )


def control_operations(over: Administration, more: Sequence[Operation] = ()) -> list[Operation]:
    """The operations for people, wherever they are served. `more` come beside them."""
    return with_document(
        "Relay Bridge, administration",
        __version__,
        [
            Operation(
                "POST",
                "/v1/invitations",
                over.invite,
                "Make an invitation for one Router; this answer alone holds its code.",
                answer=INVITATION,
                status=201,
                body={**options(name=TEXT, lifetime=COUNT), "required": ["name"]},
                refusals=(400, 409, 413, 415, 429),
            ),
            Operation(
                "GET",
                "/v1/invitations",
                over.invitations,
                "The invitations made so far: open, used or expired.",
                answer=listed(INVITATION_ROW),
            ),
            Operation(
                "DELETE",
                "/v1/invitations/{id}",
                over.withdraw,
                "Take an invitation back that was not used: it lets nobody in any more.",
                status=204,
                refusals=(404, 409),
            ),
            Operation(
                "GET",
                "/v1/routers",
                over.routers,
                "The Routers that have enrolled.",
                answer=listed(ROUTER),
            ),
            Operation(
                "POST",
                "/v1/routers/{fingerprint}/revoke",
                over.revoke,
                "Shut a Router out, at once and for good.",
                status=204,
                refusals=(404,),
            ),
            Operation(
                "GET",
                "/v1/publications",
                over.publications,
                "The published AE titles.",
                answer=listed(PUBLICATION),
            ),
            Operation(
                "GET",
                "/v1/grants",
                over.grants,
                "Who may use what, without calling AE titles.",
                answer=listed(GRANT),
            ),
            Operation(
                "GET",
                "/v1/sessions",
                over.open_sessions,
                "The sessions that are open.",
                answer=listed(SESSION),
            ),
            Operation(
                "DELETE",
                "/v1/sessions/{session}",
                over.end_session,
                "End a session at both ends, as if it were not granted any more.",
                status=204,
                refusals=(404,),
                role=Role.OPERATOR,
            ),
            *store_operations(over.stores),
            Operation(
                "GET",
                "/v1/rates",
                over.passed,
                "What passed in the last five minutes, interval by interval.",
                answer=RATES,
            ),
            Operation(
                "GET",
                "/v1/warnings",
                over.warnings,
                "What the network's administrator should know now, the worst first.",
                answer=listed(WARNING),
            ),
            Operation(
                "DELETE",
                "/v1/restoration",
                over.confirm_restoration,
                "Say that what a restored backup had undone is set right: the warning ends.",
                status=204,
            ),
            Operation(
                "GET", "/v1/status", over.status, "The Bridge at this moment.", answer=STATUS
            ),
            *more,
        ],
    )
