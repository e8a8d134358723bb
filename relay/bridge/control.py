"""REST for people and scripts, on the Unix socket only: whoever may open it administers the Bridge.

Until people can sign in there is nothing else between them and this.
"""

from collections.abc import Mapping
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay import __version__
from relay.bridge.backend import BridgeBackend
from relay.bridge.enrolment import DEFAULT_LIFETIME, Enrolment
from relay.bridge.registry import Registry
from relay.bridge.sessions import Sessions
from relay.bridge.stores import Stores
from relay.errors import Refused
from relay.identity import fingerprint
from relay.signalling.hub import Hub
from relay.web.answers import read_json
from relay.web.operations import (
    COUNT,
    FINDING,
    FLAG,
    TEXT,
    TEXT_OR_NULL,
    Operation,
    Schema,
    listed,
    options,
    record,
    with_document,
)

COUNT_OR_NULL: Schema = {"type": ["integer", "null"]}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}

INVITATION = record(invitation=TEXT, id=TEXT, name=TEXT, expires=COUNT)
INVITATION_ROW = record(
    id=TEXT, name=TEXT, created=COUNT, expires=COUNT, state=TEXT, router=TEXT_OR_NULL
)
ROUTER = record(
    fingerprint=TEXT,
    name=TEXT,
    enrolled=COUNT,
    revoked=FLAG,
    connected=FLAG,
    ae_titles=listed(TEXT),
)
PUBLICATION = record(ae_title=TEXT, router=TEXT, name=TEXT, services=listed(TEXT), serial=COUNT)
GRANT = record(owner=TEXT, grantee=TEXT, ae_title=TEXT, services=listed(TEXT))
SESSION = record(
    session=TEXT,
    caller=TEXT,
    callee=TEXT,
    called=TEXT,
    provider=TEXT,
    created=COUNT,
    answered=FLAG,
    slots=listed(COUNT),
)
PROVIDER = record(
    name=TEXT,
    kind=TEXT,
    in_use=FLAG,
    place=COUNT,
    origin=TEXT_OR_NULL,
    leaving=FLAG,
    failing=FLAG,
    worked=FLAG,
    last_failure=TEXT_OR_NULL,
    failed_at=COUNT_OR_NULL,
    sessions=COUNT,
)
# What stays of a store that is removed: the sessions that rest on it, after which it goes.
REMOVED = record(sessions=COUNT)
FINDINGS = record(findings=listed(FINDING))
STATUS = record(
    mode=TEXT,
    version=TEXT,
    url=TEXT,
    network=TEXT,
    fingerprint=TEXT,
    started=COUNT,
    routers=COUNT,
    connected=COUNT,
    publications=COUNT,
    sessions=COUNT,
    messages=COUNT,
    stored=COUNT,
    store=TEXT_OR_NULL,
    failing_stores=listed(TEXT),
)


@attrs.frozen(slots=True)
class Administration:
    """What the operations below work on."""

    url: str
    network: bytes
    identity: bytes
    started: int
    registry: Registry
    enrolment: Enrolment
    sessions: Sessions
    backend: BridgeBackend
    hub: Hub
    stores: Stores

    # --- invitations and Routers ----------------------------------------------------------------

    async def invite(self, request: Request) -> Response:
        body = await read_json(request)
        name, lifetime = body.get("name"), body.get("lifetime", DEFAULT_LIFETIME)
        if not isinstance(name, str):
            raise Refused(400, "name: expected the hospital's name")
        if type(lifetime) is not int:
            raise Refused(400, "lifetime: expected a whole number of seconds")
        _only(body, "name", "lifetime")
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

    async def routers(self, request: Request) -> Response:
        connected = {fingerprint(router) for router in self.hub.connected()}
        rows = await self.registry.list_routers()
        return JSONResponse([{**row, "connected": row["fingerprint"] in connected} for row in rows])

    async def revoke(self, request: Request) -> Response:
        router = await self.registry.find_router(request.path_params["fingerprint"])
        await self.backend.revoke(router)
        return Response(status_code=204)

    # --- what the network is doing --------------------------------------------------------------

    async def publications(self, request: Request) -> Response:
        return JSONResponse(await self.registry.list_publications())

    async def grants(self, request: Request) -> Response:
        return JSONResponse(await self.registry.list_grants())

    async def open_sessions(self, request: Request) -> Response:
        return JSONResponse(self.sessions.describe())

    async def status(self, request: Request) -> Response:
        routers = await self.registry.list_routers()
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
                "stored": own.used if own is not None else 0,
                "store": next(iter(self.stores.in_use), None),
                "failing_stores": self.stores.failing(),
            }
        )

    # --- object stores --------------------------------------------------------------------------

    async def list_providers(self, request: Request) -> Response:
        return JSONResponse(await self.stores.describe())

    async def add_provider(self, request: Request) -> Response:
        body = await read_json(request)
        name, kind, settings = body.get("name"), body.get("kind"), body.get("settings", {})
        if not isinstance(name, str):
            raise Refused(400, "name: expected the name that the object store is to have")
        if not isinstance(kind, str):
            raise Refused(400, "kind: expected a kind of object store, such as s3")
        if not isinstance(settings, dict):
            raise Refused(400, "settings: expected an object of names and texts")
        _only(body, "name", "kind", "settings")
        await self.stores.add(name, kind, settings)
        return Response(status_code=201)

    async def use_providers(self, request: Request) -> Response:
        body = await read_json(request)
        names = body.get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Refused(400, "names: expected a list of object stores' names")
        _only(body, "names")
        await self.stores.use(names)
        return Response(status_code=204)

    async def remove_provider(self, request: Request) -> Response:
        return JSONResponse({"sessions": await self.stores.remove(request.path_params["name"])})

    async def check_provider(self, request: Request) -> Response:
        findings = await self.stores.check(request.path_params["name"])
        return JSONResponse({"findings": [attrs.asdict(finding) for finding in findings]})


def _only(body: Mapping[str, Any], *known: str) -> None:
    """Raise Refused (400) for a key that would otherwise be ignored in silence."""
    for key in body:
        if key not in known:
            raise Refused(400, f"{key}: unknown; expected {', '.join(known)}")


def control_operations(over: Administration) -> list[Operation]:
    """The operations of the Unix socket."""
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
                "GET",
                "/v1/providers",
                over.list_providers,
                "The object stores that are set up.",
                answer=listed(PROVIDER),
            ),
            Operation(
                "POST",
                "/v1/providers",
                over.add_provider,
                "Set up another object store; it is not yet in use.",
                status=201,
                body={
                    **options(name=TEXT, kind=TEXT, settings=TEXTS),
                    "required": ["name", "kind"],
                },
                refusals=(400, 409, 413, 415, 503),
            ),
            Operation(
                "POST",
                "/v1/providers/use",
                over.use_providers,
                "Use these for new sessions, in this order; one that was not in use is checked.",
                status=204,
                body={**options(names=listed(TEXT)), "required": ["names"]},
                refusals=(400, 404, 409, 413, 415, 504),
            ),
            Operation(
                "DELETE",
                "/v1/providers/{name}",
                over.remove_provider,
                "Use it for no new session, and let go of it once no session rests on it.",
                answer=REMOVED,
                refusals=(404, 409),
            ),
            Operation(
                "POST",
                "/v1/providers/{name}/check",
                over.check_provider,
                "Put, get and delete a probe object.",
                answer=FINDINGS,
                refusals=(404, 504),
            ),
            Operation(
                "GET", "/v1/status", over.status, "The Bridge at this moment.", answer=STATUS
            ),
        ],
    )
