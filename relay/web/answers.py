"""How both modes answer what they refuse: a status and `{"error": "..."}`."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from relay.errors import IdentityError, ObjectMissing, ProviderError, Refused, RelayError

# A person's or script's request; the largest holds a few names and services.
MAXIMUM_BODY = 64 * 1024
# Seconds for a whole body, the largest of 1 MiB: it is a person's line, and not a slow one's. Who
# sends a byte now and then, and is nobody yet, would otherwise hold a connection for as long as it
# likes.
BODY_WAIT = 30.0


# JSON can name what no text may hold (RFC 8259 §8.2), and no database or hash takes.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def refusal(status: int, message: str) -> JSONResponse:
    """The answer that refuses, in words for a person."""
    return JSONResponse({"error": message}, status_code=status)


async def read_body(request: Request, at_most: int = MAXIMUM_BODY) -> bytes:
    """The request's whole body, as it came: nothing is inflated.

    Raises Refused: 415 for a Content-Encoding, 413 for more than `at_most` bytes, 408 where it is
    not there within BODY_WAIT.
    """
    check_headers(request, at_most)
    body = bytearray()
    with trio.move_on_after(BODY_WAIT):
        async with aclosing(request.stream()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > at_most:
                    raise Refused(413, f"body is larger than {at_most} bytes")
        return bytes(body)
    raise Refused(408, f"the body was not there within {BODY_WAIT:g} s")


async def read_json(request: Request, at_most: int = MAXIMUM_BODY) -> dict[str, Any]:
    """The JSON object in the request's body; an empty body is an empty object.

    Raises Refused (400) if it is something else, and as `read_body` does.
    """
    body = await read_body(request, at_most)
    try:
        text = body.decode("utf-8")
        value = json.loads(text) if text else {}
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Refused(400, "body has half of a surrogate pair in it, which is no text") from None
    except (ValueError, RecursionError):
        raise Refused(400, "body is not JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "body is not a JSON object")
    return value


def only(body: Mapping[str, Any], *known: str) -> None:
    """Raise Refused (400) for a key that would otherwise be ignored in silence."""
    for key in body:
        if key not in known:
            raise Refused(400, f"{key}: unknown; expected {', '.join(known)}")


def check_headers(request: Request, at_most: int) -> int | None:
    """The Content-Length, if there is one.

    Raises Refused before anything of the body is read: 415 for a Content-Encoding (an inflated
    body has no bound), 413 for a length over `at_most`.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "no Content-Encoding is taken")
    given = request.headers.get("content-length")
    if given is None:
        return None
    length = int(given)  # digits only: the HTTP engine has seen to it
    if length > at_most:
        raise Refused(413, f"body of {length} bytes is larger than {at_most}")
    return length


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error.status, str(error))


async def _bad_identity(request: Request, error: Exception) -> Response:
    return refusal(403, str(error))


async def _missing(request: Request, error: Exception) -> Response:
    return refusal(404, str(error))


async def _store_failed(request: Request, error: Exception) -> Response:
    return refusal(503, str(error))


async def _failed(request: Request, error: Exception) -> Response:
    return refusal(500, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = refusal(error.status_code, error.detail or HTTPStatus(error.status_code).phrase)
    answer.headers.update(error.headers or {})
    return answer


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


EXCEPTION_HANDLERS: Mapping[Any, Callable[[Request, Exception], Any]] = MappingProxyType(
    {
        Refused: _refused,
        IdentityError: _bad_identity,
        ObjectMissing: _missing,
        ProviderError: _store_failed,
        RelayError: _failed,
        HTTPException: _http_error,
        ClientDisconnect: _gone,
    }
)
