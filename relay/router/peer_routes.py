"""What each operation on other hospitals does: who they are, what they are granted, who has asked.

Thin, as relay.router.routes is.
"""

from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay.audit.changes import tell
from relay.errors import IdentityError, Refused
from relay.identity import fingerprint
from relay.invitation import Contact
from relay.router import services
from relay.router.apply import as_published, parse_grant, put_grant
from relay.router.asks import Ask
from relay.router.entries import Entry
from relay.router.grants import Grant, parse_calling
from relay.router.node import Node
from relay.router.peers import renamed
from relay.router.seeking import look
from relay.tunnel.ask import MAXIMUM_NOTE
from relay.web.answers import read_json


@attrs.frozen(slots=True)
class PeerRoutes:
    """The routes over `node`."""

    node: Node

    async def peers(self, request: Request) -> Response:
        network = self.node.joined()
        await look(network)
        return JSONResponse(list(network.directory.peers_json()))

    async def verify_peer(self, request: Request) -> Response:
        text = Entry(await read_json(request)).text("contact")
        try:
            contact = Contact.parse(text)
        except IdentityError as error:
            raise Refused(400, str(error)) from None
        peer = await self.node.verify_peer(contact)
        tell(request, hospital=whose(self.node, peer.identity))
        return JSONResponse({"name": peer.name, "fingerprint": peer.fingerprint})

    async def confirm_peer(self, request: Request) -> Response:
        entry = Entry(await read_json(request), "peer")
        entry.only(("name",))
        words = request.path_params["fingerprint"]
        known = self.node.joined().peers.heard(words)
        # A fingerprint is of no name: what a peer is called while two people telephone stays.
        if "name" in entry.fields and entry.text("name") != known.name:
            raise renamed(known)
        peer = await self.node.confirm_peer(words)
        tell(request, hospital=peer.name, fingerprint=peer.fingerprint)
        return JSONResponse({"name": peer.name, "fingerprint": peer.fingerprint})

    async def accept_peer(self, request: Request) -> Response:
        peer, titles = await self.node.accept_peer(request.path_params["fingerprint"])
        # Whole, where a beginning of it was asked for.
        tell(request, hospital=peer.name, fingerprint=peer.fingerprint, ae_titles=titles)
        return JSONResponse(
            {"name": peer.name, "fingerprint": peer.fingerprint, "ae_titles": titles}
        )

    # --- grants -------------------------------------------------------------------------------

    async def grants(self, request: Request) -> Response:
        return JSONResponse([grant_json(self.node, grant) for grant in self.node.grants])

    async def add_grant(self, request: Request) -> Response:
        wanted = as_published(self.node, parse_grant(self.node, await read_json(request)))
        tell(request, hospital=whose(self.node, wanted.grantee))
        grant, replaced = await put_grant(self.node, wanted)
        answer = grant_json(self.node, grant) | {"replaced": [known.id for known in replaced]}
        return JSONResponse(answer, 201)

    async def remove_grant(self, request: Request) -> Response:
        number = request.path_params["number"]
        for grant in self.node.grants:
            if grant.id == number:
                self._tell_use(request, grant.grantee, grant.ae_title, grant.services)
        await self.node.remove_grant(number)
        return JSONResponse({})

    async def asks(self, request: Request) -> Response:
        return JSONResponse(
            [
                ask.to_json() | {"name": name_of(self.node, ask.asker)}
                for ask in await self.node.asks.all()
            ]
        )

    async def ask(self, request: Request) -> Response:
        asked = Entry(await read_json(request), "ask")
        note = asked.fields.get("note", "")
        if not isinstance(note, str) or len(note) > MAXIMUM_NOTE:
            raise Refused(400, f"ask: note is a text of at most {MAXIMUM_NOTE} characters")
        title = asked.text("ae_title").strip()
        await self.node.ask(
            Ask(
                self.node.identity.public,
                self.node.aliases.published_of(title) or title,
                services.parse(asked.texts("services")),
                parse_calling(asked.texts("calling")),
                note,
            )
        )
        return JSONResponse({}, 202)

    async def asked(self, request: Request) -> Response:
        if self.node.network is None:
            return JSONResponse([])
        granted = self.node.network.directory.granted
        return JSONResponse(
            [
                asked.to_json(granted) | {"name": name_of(self.node, asked.owner)}
                for asked in await self.node.asked.waiting(granted)
            ]
        )

    async def remove_asked(self, request: Request) -> Response:
        await self.node.asked.remove(request.path_params["ae_title"])
        return JSONResponse({})

    async def accept_ask(self, request: Request) -> Response:
        await self._tell_ask(request)
        grant = await self.node.accept_ask(request.path_params["number"])
        return JSONResponse(grant_json(self.node, grant), 201)

    async def remove_ask(self, request: Request) -> Response:
        await self._tell_ask(request)
        await self.node.asks.remove(request.path_params["number"])
        return JSONResponse({})

    # --- for the audit ------------------------------------------------------------------------

    async def _tell_ask(self, request: Request) -> None:
        """Raises Refused (404)."""
        ask = await self.node.asks.get(request.path_params["number"])
        self._tell_use(request, ask.asker, ask.ae_title, ask.services)

    def _tell_use(
        self, request: Request, identity: bytes, title: str, granted: frozenset[str]
    ) -> None:
        tell(
            request,
            hospital=whose(self.node, identity),
            ae_title=title,
            services=list(services.ordered(granted)),
        )


def grant_json(node: Node, grant: Grant) -> dict[str, Any]:
    """A grant for people: with the hospital's name, and what became of the device since."""
    device = node.devices.published_as(grant.ae_title)
    gone = grant.services - (device.services if device is not None else frozenset())
    return grant.to_json() | {
        "name": name_of(node, grant.grantee),
        "device": device.ae_title if device is not None else None,
        "unpublished": list(services.ordered(gone)),
    }


def name_of(node: Node, identity: bytes) -> str:
    """By what name the hospital of this identity goes; empty for one that is not known."""
    network = node.network
    peer = network.peers.get(identity) if network is not None else None
    return peer.name if peer is not None else ""


def whose(node: Node, identity: bytes) -> str:
    """The hospital of this identity, for later readers: the name alone is the Bridge's word."""
    name = name_of(node, identity)
    return f"{name} ({fingerprint(identity)})" if name else fingerprint(identity)
