"""Try a store as a Router would: over HTTP, with its own signed requests, rightly and wrongly."""

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx

from relay.errors import ProviderError, connection_fault
from relay.providers import Finding, Provider, SignedRequest

PROBE_SIZE = 1024
PROBE_LIFETIME = 60  # seconds, enough for six requests on a slow line
PROBE_TIMEOUT = 20.0

# What is read of one answer: the object, or what S3 says of an error. A store that answers with
# more, by fault or on purpose, must not fill the Bridge's memory.
MAXIMUM_ANSWER = 64 * 1024

_REACH = "reach"
_EXISTS = (409, 412)
_FORBIDDEN = (401, 403)


def _status(answer: httpx.Response) -> str:
    return f"the store answered {answer.status_code}"


async def probe(
    provider: Provider,
    client: httpx.AsyncClient,
    explain: Callable[[httpx.Response], str] = _status,
) -> Sequence[Finding]:
    """Put, put again, get, delete and get again one object; one finding for each.

    Ends at the first failure that leaves nothing to go on with. Raises nothing for the store's
    faults: they are findings. `explain` is shown every answer, and its words are the advice where
    that was not the one to expect.
    """
    name = _fresh_name()
    data = secrets.token_bytes(PROBE_SIZE)
    findings: list[Finding] = []

    async def found(
        what: str, request: SignedRequest, good: Callable[[httpx.Response], bool]
    ) -> bool:
        answer = await _send(client, request, data if request.method == "PUT" else None)
        words, ok = explain(answer), good(answer)
        findings.append(Finding(what, ok, "" if ok else words))
        return ok

    try:
        put, get, delete = await _signed(provider, name)
    except ProviderError as error:
        return [Finding("sign requests", False, str(error))]
    try:
        if not await found("PUT of a new object", put, lambda a: a.is_success):
            return findings
        await found("second PUT is refused", put, lambda a: a.status_code in _EXISTS)
        await found("GET of the same bytes", get, lambda a: a.is_success and a.content == data)
        await found(
            "a GET's URL does not delete",
            _misused(get, "DELETE"),
            lambda a: a.status_code in _FORBIDDEN,
        )
        await found("DELETE", delete, lambda a: a.is_success)
        await found("the object is gone", get, lambda a: a.status_code == 404)
    except httpx.HTTPError as error:
        findings.append(Finding(f"{_REACH} {_host(put)}", False, _unreachable(error, put)))
    return findings


def reached(findings: Sequence[Finding]) -> bool:
    """Whether the store answered to the end of a `probe`: else nothing more need be tried."""
    return all(finding.ok or not finding.what.startswith(f"{_REACH} ") for finding in findings)


async def alive(
    provider: Provider,
    client: httpx.AsyncClient,
    explain: Callable[[httpx.Response], str] = _status,
) -> None:
    """Put, get and delete one object. Raises ProviderError with what did not work.

    `explain` is shown every answer, as by `probe`.
    """
    data = secrets.token_bytes(PROBE_SIZE)
    put, get, delete = await _signed(provider, _fresh_name())
    try:
        for request in (put, get, delete):
            answer = await _send(client, request, data if request is put else None)
            words = explain(answer)
            if not answer.is_success:
                raise ProviderError(f"{_host(put)}: {request.method}: {words}")
            if request is get and answer.content != data:
                raise ProviderError(f"{_host(put)}: GET gave other bytes than were put")
    except httpx.HTTPError as error:
        raise ProviderError(f"{_host(put)}: {_unreachable(error, put)}") from error


async def _signed(provider: Provider, name: str) -> tuple[SignedRequest, ...]:
    return (
        await provider.sign_put(name, size_limit=PROBE_SIZE, lifetime=PROBE_LIFETIME),
        await provider.sign_get(name, lifetime=PROBE_LIFETIME),
        await provider.sign_delete(name, lifetime=PROBE_LIFETIME),
    )


def _fresh_name() -> str:
    return f"probe/{secrets.token_hex(16)}"


def _host(request: SignedRequest) -> str:
    return httpx.URL(request.url).host


def _unreachable(error: httpx.HTTPError, request: SignedRequest) -> str:
    # Not the error's own words: they may hold the signed URL.
    fault = connection_fault(error, _host(request)) or type(error).__name__
    return f"{fault}; check address, firewall and certificate"


def _misused(request: SignedRequest, method: str) -> SignedRequest:
    """The same signature, misused for another method."""
    return SignedRequest(method, request.url, request.headers, request.expires)


async def _send(
    client: httpx.AsyncClient, request: SignedRequest, data: bytes | None = None
) -> httpx.Response:
    """The answer, of a long one the beginning; of one that is packed, unasked for, the head."""
    async with client.stream(
        request.method,
        request.url,
        headers=[*request.headers, ("Accept-Encoding", "identity")],
        content=data,
        timeout=PROBE_TIMEOUT,
    ) as answer:
        headers = answer.headers.copy()
        packed = headers.pop("Content-Encoding", "identity") != "identity"
        body = b"" if packed else await _beginning(answer)
    return httpx.Response(answer.status_code, headers=headers, content=body, request=answer.request)


async def _beginning(answer: httpx.Response) -> bytes:
    body = bytearray()
    pieces = answer.aiter_bytes()
    async for piece in pieces:
        body += piece
        if len(body) > MAXIMUM_ANSWER:
            # httpx's generators are nested and cannot be closed from here; on a closed connection
            # they run to their end.
            await answer.aclose()
            with suppress(httpx.HTTPError, httpx.StreamError):
                async for _ in pieces:
                    pass
            break
    return bytes(body)
