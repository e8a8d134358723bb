"""The tokens' part of the Router's REST (relay.router.api)."""

import attrs
import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay.errors import Refused
from relay.router.dicomweb.tokens import TokenTable
from relay.router.entries import Entry
from relay.router.node import Node, unix_time
from relay.web.answers import read_json
from relay.web.operations import COUNT, TEXT, TEXT_OR_NULL, Operation, listed, options, record

log = structlog.get_logger()

_TOKEN = record(name=TEXT, device=TEXT_OR_NULL, created=COUNT)


@attrs.frozen(slots=True)
class _Routes:
    node: Node
    tokens: TokenTable

    async def show(self, request: Request) -> Response:
        return JSONResponse([token.to_json() for token in self.tokens])

    async def add(self, request: Request) -> Response:
        entry = Entry(await read_json(request), "token")
        entry.only(("name", "device"))
        device = entry.title("device")
        if device and self.node.devices.get(device) is None:
            raise Refused(404, f"no device {device!r}; `relay device list` shows them all")
        name = entry.text("name")
        secret = await self.tokens.add(name, device, unix_time())
        log.info("token added", token=name, device=device)
        return JSONResponse({"name": name, "device": device or None, "token": secret}, 201)

    async def remove(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self.tokens.remove(name)
        log.info("token removed", token=name)
        return JSONResponse({})


def token_operations(node: Node, tokens: TokenTable) -> list[Operation]:
    """The operations on `tokens`."""
    do = _Routes(node, tokens)
    return [
        Operation(
            "GET", "/v1/tokens", do.show, "Who may use DICOMweb; no token itself.", listed(_TOKEN)
        ),
        Operation(
            "POST",
            "/v1/tokens",
            do.add,
            "Make a token for DICOMweb, which is told this once.",
            record(name=TEXT, device=TEXT_OR_NULL, token=TEXT),
            status=201,
            body=options(name=TEXT, device=TEXT),
            refusals=(400, 404, 409),
        ),
        Operation(
            "DELETE",
            "/v1/tokens/{name:path}",
            do.remove,
            "Forget a token.",
            options(),
            refusals=(404,),
        ),
    ]
