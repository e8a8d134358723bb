"""REST for people and scripts, on the Unix socket only: whoever may open it administers the Bridge.

Until people can sign in there is nothing else between them and this.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay import __version__
from relay.bridge.backend import BridgeBackend
from relay.bridge.enrolment import DEFAULT_LIFETIME, Enrolment
from relay.bridge.registry import Registry
from relay.bridge.sessions import Sessions
from relay.errors import Refused
from relay.identity import fingerprint
from relay.providers import Provider
from relay.signalling.hub import Hub
from relay.web.answers import read_json
from relay.web.operations import (
    COUNT,
    FINDING,
    FLAG,
    TEXT,
    TEXT_OR_NULL,
    Operation,
    listed,
    options,
    record,
    with_document,
)

# Six requests to a store, each with a deadline of its own.
CHECK_TIMEOUT = 50.0

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
PROVIDER = record(name=TEXT, kind=TEXT, in_use=FLAG)
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
)


@attrs.frozen(slots=True)
class Administration:
    """What the operations below work on. `stored` gives the bytes in the Bridge's own store."""

    url: str
    network: bytes
    identity: bytes
    started: int
    registry: Registry
    enrolment: Enrolment
    sessions: Sessions
    backend: BridgeBackend
    hub: Hub
    providers: Mapping[str, Provider]
    kinds: Mapping[str, str]
    in_use: Sequence[str]
    stored: Callable[[], int]

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
                "stored": self.stored(),
            }
        )

    # --- object stores --------------------------------------------------------------------------

    async def list_providers(self, request: Request) -> Response:
        return JSONResponse(
            [
                {"name": name, "kind": self.kinds[name], "in_use": name in self.in_use}
                for name in sorted(self.providers)
            ]
        )

    async def check_provider(self, request: Request) -> Response:
        name = request.path_params["name"]
        provider = self.providers.get(name)
        if provider is None:
            there = ", ".join(self.providers) or "none"
            raise Refused(404, f"no object store {name[:80]!r}; there is: {there}")
        with trio.move_on_after(CHECK_TIMEOUT):
            findings = await provider.check()
            return JSONResponse({"findings": [attrs.asdict(finding) for finding in findings]})
        raise Refused(504, f"object store {name} did not answer in {CHECK_TIMEOUT:g} s")


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
