"""How a page gets at what it shows and changes: the REST, asked within the process.

A page has no other way to the data. So whatever a page can do a script can, and no page can do more
than the role of whoever looks at it.
"""

from typing import Any
from urllib.parse import quote

import attrs
import httpx
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from relay.errors import Refused
from relay.people.who import Who

# Only to fill a URL: nothing is looked up.
_BASE = "http://relay"


def path_of(*parts: str) -> str:
    """A path of these parts, each escaped: `path_of("v1", "devices", name)`."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


@attrs.frozen(slots=True)
class Rest:
    """The REST app `app`, in the name of `who`, who asks from `address`.

    All methods raise Refused, with the REST's status and words.
    """

    app: ASGIApp
    who: Who | None = None
    address: str = ""

    def of(self, request: Request) -> "Rest":
        """The REST in the name of whoever asks for a page."""
        return Rest(
            self.app, request.scope.get("relay.who"), request.scope.get("relay.address", "")
        )

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON answer; a query's value of None is left out."""
        return await self._call("GET", path, None, query)

    async def post(self, path: str, body: Any = None) -> Any:
        return await self._call("POST", path, body, {})

    async def put(self, path: str, body: Any = None) -> Any:
        return await self._call("PUT", path, body, {})

    async def delete(self, path: str, **query: Any) -> Any:
        return await self._call("DELETE", path, None, query)

    async def _call(self, method: str, path: str, body: Any, query: dict[str, Any]) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        request = httpx.Request(method, _BASE + path, json=body, params=given or None)
        transport = httpx.ASGITransport(self._named)
        response = await transport.handle_async_request(request)
        content = await response.aread()
        answer = _json(response, content)
        if response.is_success:
            return answer
        words = answer.get("error") if isinstance(answer, dict) else None
        raise Refused(response.status_code, str(words or response.reason_phrase))

    async def _named(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = {**scope, "relay.who": self.who, "relay.address": self.address}
        await self.app(asked, receive, send)


def _json(response: httpx.Response, content: bytes) -> Any:
    """What it says, as text where it is no JSON (a CSV)."""
    if not content:
        return None
    if response.headers.get("content-type", "").startswith("application/json"):
        return response.json()
    return response.text
