"""What each operation of the Router's REST does (relay.router.api).

Thin: each route reads its input, lets `Node` do the work, and shows the outcome, with the names
that people know things by.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import relay
from relay.audit.changes import tell
from relay.errors import IdentityError, Refused
from relay.identity import fingerprint
from relay.invitation import Invitation
from relay.router import probe, services
from relay.router.aliases import Alias
from relay.router.apply import apply
from relay.router.causes import cause_of
from relay.router.device_words import Own
from relay.router.devices import Device
from relay.router.dicomweb.overview import Overview
from relay.router.entries import Entry, ae_title
from relay.router.far_echo import echo_far
from relay.router.federation.federation import Federation
from relay.router.federation.overview import overview
from relay.router.node import Node, unix_time
from relay.router.pairs import in_words
from relay.router.peer_routes import grant_json, name_of
from relay.router.queue import destinations, snapshot
from relay.router.queue.destinations import Destination
from relay.router.queue.state import Queue
from relay.router.seeking import look
from relay.web.answers import read_json

# A file for `relay apply` may describe every device of a large hospital.
MAXIMUM_APPLY = 1024 * 1024

# Whether it is new: False for the invitation that the Router came with.
Enrol = Callable[[Invitation], Awaitable[bool]]


@attrs.frozen(slots=True)
class Routes:
    """The routes over `node`; `enrol` is what an invitation is given to.

    Without a `federation`, or DICOMweb (`web`), it is turned off.
    """

    node: Node
    enrol: Enrol
    queue: Queue
    federation: Federation | None = None
    web: Overview | None = None

    async def status(self, request: Request) -> Response:
        node = self.node
        answer: dict[str, Any] = {
            "version": relay.__version__,
            "mode": "router",
            "ae_title": node.ae_title,
            "federation": node.federation_title or None,
            "fingerprint": node.identity.fingerprint,
            "listening": [{"host": host, "port": port} for host, port in node.listening],
            "dicomweb": self.web.to_json() if self.web is not None else None,
            "devices": len(list(node.devices)),
            "associations": len(node.live),
            "queue": await snapshot.summary(self.queue),
            "warnings": [warned["words"] for warned in self.queue.warnings.to_json()],
            "enrolled": node.network is not None,
            "connected": False,
        }
        if node.network is not None:
            network = node.network
            statistics = network.client.statistics()
            answer |= {
                "name": network.membership.name,
                "contact": node.contact.to_string(),
                "bridge": network.membership.url,
                "network": network.membership.network.hex(),
                "connected": statistics.connected,
                "connections": statistics.connections,
                "last_failure": statistics.last_failure,
                "clock_offset": network.client.clock_offset,
                "refusals": list(network.publisher.refusals),
                "store": attrs.asdict(network.objects.statistics()),
            }
        return JSONResponse(answer)

    async def enrolment(self, request: Request) -> Response:
        text = Entry(await read_json(request)).text("invitation")
        try:
            invitation = Invitation.parse(text)
        except IdentityError as error:
            raise Refused(400, str(error)) from None
        tell(request, bridge=invitation.url)
        new = await self.enrol(invitation)
        membership = self.node.joined().membership
        tell(request, hospital=membership.name)
        return JSONResponse(
            {
                "bridge": membership.url,
                "name": membership.name,
                "contact": self.node.contact.to_string(),
                "already": not new,
            }
        )

    # --- devices ------------------------------------------------------------------------------

    async def devices(self, request: Request) -> Response:
        return JSONResponse([self._device(device) for device in self.node.devices])

    async def put_device(self, request: Request) -> Response:
        # What a device declares may be as long as a file that describes many.
        device = Device.from_json(await read_json(request, MAXIMUM_APPLY))
        tell(request, replaced=self.node.devices.get(device.ae_title) is not None)
        await destinations.put_device(self.queue, device)
        return JSONResponse(self._device(device))

    async def remove_device(self, request: Request) -> Response:
        gone = await destinations.remove_device(self.queue, request.path_params["ae_title"])
        return JSONResponse({"grants_removed": [grant_json(self.node, grant) for grant in gone]})

    async def test_device(self, request: Request) -> Response:
        title = request.path_params["ae_title"]
        device = self.node.devices.get(title)
        if device is None:
            raise Refused(404, f"no device {title!r}; `relay device list` shows them all")
        own = Own(self.node.ae_title, sorted({port for _, port in self.node.listening}))
        report = await probe.test(device, own, self.node.device_tls)
        return JSONResponse(report.to_json())

    # --- aliases ------------------------------------------------------------------------------

    async def aliases(self, request: Request) -> Response:
        return JSONResponse([self._alias(alias) for alias in self.node.aliases])

    async def put_alias(self, request: Request) -> Response:
        alias = Alias.from_json(await read_json(request))
        await self.node.put_alias(alias)
        return JSONResponse(self._alias(alias))

    async def remove_alias(self, request: Request) -> Response:
        alias = await self.node.remove_alias(request.path_params["local"])
        return JSONResponse(self._alias(alias))

    # --- destinations -------------------------------------------------------------------------

    async def destinations(self, request: Request) -> Response:
        return JSONResponse([self._destination(row) for row in self.queue.destinations])

    async def put_destination(self, request: Request) -> Response:
        wanted = Destination.from_json(await read_json(request))
        tell(request, mode=wanted.mode.value)
        row, _ = await destinations.put(self.queue, wanted)
        return JSONResponse(self._destination(row))

    async def remove_destination(self, request: Request) -> Response:
        called, calling = request.path_params["called"], request.query_params.get("calling", "")
        row = await destinations.remove(self.queue, called, calling)
        return JSONResponse(self._destination(row))

    # --- the network --------------------------------------------------------------------------

    async def directory(self, request: Request) -> Response:
        await look(self.node.joined())
        return JSONResponse(await overview(self.node, self.queue, self.federation))

    async def echo(self, request: Request) -> Response:
        title = ae_title(request.path_params["ae_title"])
        echoed = await echo_far(self.node, title)
        return JSONResponse(echoed.to_json())

    # --- all at once --------------------------------------------------------------------------

    async def apply(self, request: Request) -> Response:
        changes = await apply(self.queue, await read_json(request, MAXIMUM_APPLY))
        refusals = [self.node.title_refusal(device) for device in self.node.devices]
        return JSONResponse(
            {"changes": changes, "refusals": [words for words in refusals if words]}
        )

    async def associations(self, request: Request) -> Response:
        return JSONResponse([self._association(entry.to_json()) for entry in self.node.live])

    async def recent_associations(self, request: Request) -> Response:
        return JSONResponse([self._association(row) for row in self.node.live.finished])

    async def rates(self, request: Request) -> Response:
        return JSONResponse(self.node.rates.to_json())

    async def refusals(self, request: Request) -> Response:
        return JSONResponse(
            [
                refusal.to_json() | {"cause": cause_of(refusal.why, refusal.destination).value}
                for refusal in self.node.refusals
            ]
        )

    async def configuration(self, request: Request) -> Response:
        return JSONResponse(list(self.node.configuration))

    # --- for people ---------------------------------------------------------------------------

    def _association(self, row: dict[str, Any]) -> dict[str, Any]:
        """With the peer's name; this hospital's own where both ends are here."""
        network = self.node.network
        if network is None:
            return row | {"name": ""}
        names = {peer.fingerprint: peer.name for peer in network.peers}
        names[self.node.identity.fingerprint] = network.membership.name
        return row | {"name": names.get(row["peer"], "")}

    def _device(self, device: Device) -> dict[str, Any]:
        return device.to_json() | {"refusal": self.node.title_refusal(device)}

    def _alias(self, alias: Alias) -> dict[str, Any]:
        return alias.to_json() | self._owner(alias.published)

    def _destination(self, row: Destination) -> dict[str, Any]:
        device = self.node.names.own(row.calling)
        return (
            row.to_json()
            | self._owner(row.called)
            | {
                "local": self.node.names.local(row.called) or row.called,
                "device": device.ae_title if device is not None else row.calling,
                "known": self.queue.acceptance.callers(self.node, row.called, unix_time()),
                "unknown": self.queue.acceptance.unknown(row.called),
                "refused": self._refused(row),
                "granted": list(services.ordered(self._granted(row.called))),
            }
        )

    def _refused(self, row: Destination) -> dict[str, list[str]]:
        """What the device has refused at deliveries, in words, by the calling title."""
        acceptance = self.queue.acceptance
        return {
            calling: list(map(in_words, acceptance.refused(row.called, calling)))
            for called, calling in acceptance.refusing(self.node, unix_time())
            if called == row.called and row.calling in ("", calling)
        }

    def _granted(self, published: str) -> frozenset[str]:
        network = self.node.network
        return network.directory.granted(published) if network is not None else frozenset()

    def _owner(self, published: str) -> dict[str, Any]:
        network = self.node.network
        owner = network.directory.owner(published) if network is not None else None
        return {
            "peer": fingerprint(owner) if owner is not None else None,
            "name": name_of(self.node, owner) if owner is not None else "",
        }
