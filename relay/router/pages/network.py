"""Network: what other hospitals publish, what of it this one may use, and who they are."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.errors import Refused
from relay.pages.forms import form
from relay.pages.rest import Rest, path_of
from relay.pages.site import Site

# The pages of Network, for its own navigation.
TABS = (
    ("Devices", "/network"),
    ("Grants", "/network/grants"),
    ("Hospitals", "/network/peers"),
    ("Names and queue", "/network/names"),
)

# From where people come to verify a hospital, and go back to.
BACK = ("/network/peers", "/network/grants", "/network/grants/new")


@attrs.frozen(slots=True)
class NetworkPages:
    """The directory, with an echo through the network; and the other hospitals."""

    site: Site

    def routes(self) -> Sequence[Route]:
        return [
            Route("/network", self.directory, methods=["GET"]),
            Route("/network/echo", self.echo, methods=["POST"]),
            Route("/network/peers", self.peers, methods=["GET"]),
            Route("/network/peers", self.verify, methods=["POST"]),
            Route("/network/peers/accept", self.accept, methods=["POST"]),
            Route("/network/peers/compare", self.comparing, methods=["GET"]),
            Route("/network/peers/compare", self.compare, methods=["POST"]),
            Route("/network/asked/remove", self.forget, methods=["POST"]),
        ]

    async def directory(self, request: Request) -> Response:
        return await self._directory(request, self.site.rest.of(request))

    async def echo(self, request: Request) -> Response:
        """What came of a C-ECHO of another hospital's device, above the list."""
        rest, title = self.site.rest.of(request), (await form(request)).text("ae_title")
        echoed = await rest.post(path_of("v1", "directory", title, "echo"))
        return await self._directory(request, rest, echoed, title)

    async def _directory(
        self,
        request: Request,
        rest: Rest,
        echoed: Mapping[str, Any] | None = None,
        asked: str = "",
    ) -> Response:
        rows = await if_joined(rest, "/v1/directory")
        asked_before = await rest.get("/v1/asked")
        here = {device["ae_title"] for device in await rest.get("/v1/devices")}
        return await self.site.page(
            request,
            "network.html",
            tabs=TABS,
            enrolled=rows is not None,
            others=[_as_called(row, here) for row in rows or () if not row["own"]],
            own=[row for row in rows or () if row["own"]],
            waiting=asked_before,
            asked_at={row["ae_title"]: row["asked"] for row in asked_before},
            echoed=echoed,
            asked=asked,
        )

    async def forget(self, request: Request) -> Response:
        """What was asked of another hospital is waited for no more."""
        title = (await form(request)).text("ae_title")
        await self.site.rest.of(request).delete(path_of("v1", "asked", title))
        return self.site.see_other(
            "/network", said=f"Nothing waits for {title} here any more. Its hospital is not told."
        )

    # --- hospitals --------------------------------------------------------------------------------

    async def peers(self, request: Request) -> Response:
        return await self._peers(request)

    async def verify(self, request: Request) -> Response:
        """A person has compared a contact string."""
        typed = await form(request)
        contact = "".join(typed.text("contact").split())
        try:
            if not contact:
                raise Refused(400, "paste the contact string that the other hospital gave you")
            peer = await self.site.rest.of(request).post("/v1/peers", {"contact": contact})
        except Refused as error:
            return await self._peers(request, error.status, str(error), typed.text("contact"))
        return self.site.see_other("/network/peers", said=f"{peer['name']} is verified.")

    async def accept(self, request: Request) -> Response:
        fingerprint = (await form(request)).text("fingerprint")
        accepted = await self.site.rest.of(request).post(
            path_of("v1", "peers", fingerprint, "accept")
        )
        titles = ", ".join(accepted["ae_titles"]) or "no AE title"
        return self.site.see_other(
            "/network/peers", said=f"{titles} is taken for {accepted['name']}'s now."
        )

    async def comparing(self, request: Request) -> Response:
        """Both fingerprints, and how two people compare them."""
        query = request.query_params
        return await self._compare(request, query.get("fingerprint", ""), query.get("back", ""))

    async def compare(self, request: Request) -> Response:
        """A person has compared a fingerprint by telephone."""
        typed = await form(request)
        fingerprint, back = typed.text("fingerprint"), typed.text("back")
        try:
            if not typed.flag("compared"):
                raise Refused(400, "compare the fingerprints by telephone, and tick that you have")
            # By whose name they telephoned: the Bridge may call it otherwise by now.
            peer = await self.site.rest.of(request).post(
                path_of("v1", "peers", fingerprint, "verify"), {"name": typed.text("name")}
            )
        except Refused as error:
            return await self._compare(request, fingerprint, back, str(error), error.status)
        return self.site.see_other(_back(back), said=f"{peer['name']} is verified.")

    async def _compare(
        self, request: Request, fingerprint: str, back: str, refused: str = "", code: int = 200
    ) -> Response:
        rest = self.site.rest.of(request)
        for peer in await if_joined(rest, "/v1/peers") or ():
            if peer["fingerprint"] == fingerprint:
                break
        else:
            raise Refused(404, "no other hospital has that fingerprint: see the list of hospitals")
        return await self.site.page(
            request,
            "compare.html",
            code,
            title=f"Compare with {peer['name']}",
            tabs=TABS,
            peer=peer,
            own=(await rest.get("/v1/status"))["fingerprint"],
            back=_back(back),
            refused=refused,
        )

    async def _peers(
        self, request: Request, code: int = 200, refused: str = "", contact: str = ""
    ) -> Response:
        rest = self.site.rest.of(request)
        status = await rest.get("/v1/status")
        peers = await if_joined(rest, "/v1/peers")
        return await self.site.page(
            request,
            "peers.html",
            code,
            title="Other hospitals",
            tabs=TABS,
            enrolled=status["enrolled"],
            own=status.get("contact", ""),
            fingerprint=status["fingerprint"],
            peers=peers or [],
            contact=contact,
            refused=refused,
        )


def _back(path: str) -> str:
    """Where somebody came from to compare: of our own pages alone."""
    return path if path in BACK else "/network/peers"


def _as_called(row: Mapping[str, Any], here: Collection[str]) -> dict[str, Any]:
    """A row of another hospital's, without a local title where that is one of a device `here`:
    whoever calls it would reach that."""
    return {**row, "local": None if row["local"] in here else row["local"]}


async def verified(rest: Rest) -> set[str]:
    """The fingerprints of the hospitals whose identity a person here has compared."""
    peers = await if_joined(rest, "/v1/peers") or ()
    return {peer["fingerprint"] for peer in peers if peer["verified"]}


async def if_joined(rest: Rest, path: str) -> Any:
    """What `path` says, None while the Router is not enrolled (409)."""
    try:
        return await rest.get(path)
    except Refused as error:
        if error.status != 409:
            raise
        return None
