"""Try a store as a Router would: over HTTP, with its own signed requests, rightly and wrongly."""

import secrets
from collections.abc import Sequence

import httpx

from relay.errors import ProviderError, connection_fault
from relay.providers import Finding, Provider, SignedRequest

PROBE_SIZE = 1024
PROBE_LIFETIME = 60  # seconds, enough for six requests on a slow line
PROBE_TIMEOUT = 20.0

_EXISTS = (409, 412)


async def probe(provider: Provider, client: httpx.AsyncClient) -> Sequence[Finding]:
    """Put, put again, get, delete and get again one object; one finding for each.

    Ends at the first failure that leaves nothing to go on with. Raises nothing for the store's
    faults: they are findings.
    """
    name = f"probe/{secrets.token_hex(16)}"
    data = secrets.token_bytes(PROBE_SIZE)
    findings: list[Finding] = []
    try:
        put = await provider.sign_put(name, size_limit=PROBE_SIZE, lifetime=PROBE_LIFETIME)
        get = await provider.sign_get(name, lifetime=PROBE_LIFETIME)
        delete = await provider.sign_delete(name, lifetime=PROBE_LIFETIME)
    except ProviderError as error:
        return [Finding("sign requests", False, str(error))]
    try:
        answer = await _send(client, put, data)
        findings.append(_found("PUT of a new object", answer.is_success, answer))
        if not answer.is_success:
            return findings
        answer = await _send(client, put, data)
        findings.append(_found("second PUT is refused", answer.status_code in _EXISTS, answer))
        answer = await _send(client, get)
        same = answer.is_success and answer.content == data
        findings.append(_found("GET of the same bytes", same, answer))
        answer = await _send(client, _misused(get, "DELETE"))
        findings.append(
            _found("a GET's URL does not delete", answer.status_code in (401, 403), answer)
        )
        answer = await _send(client, delete)
        findings.append(_found("DELETE", answer.is_success, answer))
        answer = await _send(client, get)
        findings.append(_found("the object is gone", answer.status_code == 404, answer))
    except httpx.HTTPError as error:
        # Not the error's own words: they may hold the signed URL.
        host = httpx.URL(put.url).host
        findings.append(
            Finding(
                f"reach {host}",
                False,
                f"{connection_fault(error, host) or type(error).__name__}; check address, firewall"
                " and certificate",
            )
        )
    return findings


def _misused(request: SignedRequest, method: str) -> SignedRequest:
    """The same signature, misused for another method."""
    return SignedRequest(method, request.url, request.headers, request.expires)


async def _send(
    client: httpx.AsyncClient, request: SignedRequest, data: bytes | None = None
) -> httpx.Response:
    return await client.request(
        request.method,
        request.url,
        headers=list(request.headers),
        content=data,
        timeout=PROBE_TIMEOUT,
    )


def _found(what: str, ok: bool, answer: httpx.Response) -> Finding:
    return Finding(what, ok, "" if ok else f"the store answered {answer.status_code}")
