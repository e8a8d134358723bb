"""Belonging to a network: the enrolment, and where its outcome is kept.

The Router's person pastes an invitation; the Router proves to the Bridge that it knows the code,
the Bridge proves the same, and from then on both know each other by their identities (DESIGN §3).
"""

import json
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

import apsw
import attrs
import httpx
import structlog

from relay.database import Database
from relay.errors import Refused, connection_fault
from relay.identity import Identity
from relay.invitation import EnrolmentAnswer, EnrolmentRequest, Invitation
from relay.router.schema import get_setting, put_setting
from relay.web.tls import PRIVATE_AUTHORITY

log = structlog.get_logger()

# TCP, a slow outbound proxy, TLS, and the Bridge's disk.
ENROLMENT_TIMEOUT = 20.0

# The Bridge's answer: a sealed enrolment answer, or JSON with a line that says why not.
MAXIMUM_ANSWER = 8192
# Of that line, what is shown to a person.
MAXIMUM_WORDS = 500


@attrs.frozen(slots=True)
class Membership:
    """The network that this Router is enrolled in; `name` is its own there.

    `invitation` is the id of the invitation that it came with.
    """

    network: bytes
    bridge: bytes
    url: str
    name: str
    invitation: bytes = b""

    @property
    def origin(self) -> str:
        """Scheme, host and port of the Bridge: where its own object store may always be used."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


async def load(database: Database) -> Membership | None:
    """The membership that the database has, if the Router is enrolled."""

    def read(connection: apsw.Connection) -> Membership | None:
        network = get_setting(connection, "network")
        bridge = get_setting(connection, "bridge")
        url = get_setting(connection, "url")
        name = get_setting(connection, "name")
        if network is None or bridge is None or url is None or name is None:
            return None
        invitation = get_setting(connection, "invitation") or b""
        return Membership(network, bridge, url.decode(), name.decode(), invitation)

    return await database.run(read)


async def save(database: Database, membership: Membership) -> None:
    """Remember the membership for the next start."""

    def write(connection: apsw.Connection) -> None:
        put_setting(connection, "network", membership.network)
        put_setting(connection, "bridge", membership.bridge)
        put_setting(connection, "url", membership.url.encode())
        put_setting(connection, "name", membership.name.encode())
        put_setting(connection, "invitation", membership.invitation)

    await database.run(write)


async def enrol(
    invitation: Invitation,
    identity: Identity,
    ae_title: str,
    key_statement: bytes,
    *,
    ssl_context: ssl.SSLContext | None,
    proxy: str | None,
) -> Membership:
    """Ask the Bridge that made `invitation` to let this Router in; it says under which name.

    Raises Refused if the Bridge says no or cannot be reached, IdentityError if the answer is not
    from the Bridge of the invitation. May be repeated: the Bridge knows the same Router again.
    """
    request = EnrolmentRequest(
        invitation.network, invitation.invitation_id, identity.public, ae_title, key_statement
    ).seal(identity, invitation.code, invitation.bridge)
    url = invitation.url.rstrip("/") + "/v1/enrolments"
    answer = await _post(url, request, ssl_context, proxy)
    accepted = EnrolmentAnswer.open(answer, invitation, request, identity.public)
    return Membership(
        invitation.network,
        invitation.bridge,
        invitation.url,
        accepted.name,
        invitation.invitation_id,
    )


async def _post(
    url: str, request: bytes, ssl_context: ssl.SSLContext | None, proxy: str | None
) -> bytes:
    try:
        async with (
            httpx.AsyncClient(
                verify=True if ssl_context is None else ssl_context,
                proxy=proxy,
                timeout=ENROLMENT_TIMEOUT,
                trust_env=False,
            ) as client,
            client.stream(
                "POST",
                url,
                content=request,
                headers={"content-type": "application/octet-stream", "accept-encoding": "identity"},
            ) as response,
        ):
            received = await _read(response)
            status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        why = _why(error, url)
        log.warning("enrolment failed", url=url, why=why)
        raise Refused(502, f"the Bridge cannot be reached at {url}: {why}") from error
    if httpx.codes.is_success(status):
        return bytes(received)
    try:
        words = str(json.loads(received)["error"])[:MAXIMUM_WORDS]
    except (ValueError, KeyError, TypeError):
        raise Refused(502, f"HTTP {status} from what is no Bridge") from None
    raise Refused(status, f"the Bridge refuses: {words}")


def _why(error: Exception, url: str) -> str:
    """Never empty, as the library's own words may be."""
    if isinstance(error, httpx.TimeoutException):
        return f"no answer in {ENROLMENT_TIMEOUT:g} s; check the address, the proxy and firewalls"
    fault = connection_fault(error, urlsplit(url).hostname or url, PRIVATE_AUTHORITY)
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return fault or f"{words}; check the address and the proxy"


async def _read(response: httpx.Response) -> bytes:
    """The body as it came. Raises Refused (502) if it is longer than any Bridge's."""
    received = bytearray()
    pieces = response.aiter_raw()
    async for piece in pieces:
        received += piece
        if len(received) > MAXIMUM_ANSWER:
            break
    else:
        return bytes(received)
    # httpx's generators are nested and cannot be closed from here; on a closed connection they
    # run to their end.
    await response.aclose()
    with suppress(httpx.HTTPError, httpx.StreamError):
        async for _ in pieces:
            pass
    raise Refused(502, "the Bridge's answer to the enrolment is too long")
