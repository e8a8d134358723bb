"""Health and readiness: what systemd, a container's engine or a monitoring system asks.

    GET /healthz   the process is well: its event loop turns, its database answers
    GET /readyz    it can do what it is there for, now

Anybody may ask. So the answers hold the states of parts by their kinds, and no names: no hospital,
no store, no address.
"""

from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay.errors import RelayError
from relay.web.operations import TEXT, Operation, record

# A probe asks every few seconds and waits about as long.
CHECK_TIMEOUT = 3.0

OK = "ok"

STATE = record(
    status={"type": "string", "enum": [OK, "failing"]},
    parts={"type": "object", "additionalProperties": TEXT},
)


@attrs.frozen(slots=True)
class Part:
    """One thing that must hold. `check` says what is wrong, in words for anybody; "": it holds.

    What it raises is not shown.
    """

    name: str
    check: Callable[[], Awaitable[str]]


async def _state(part: Part) -> str:
    try:
        with trio.move_on_after(CHECK_TIMEOUT):
            return await part.check() or OK
    except RelayError:
        return "fails: the log says why"
    return f"no answer in {CHECK_TIMEOUT:g} s"


def answering(parts: Sequence[Part]) -> Callable[[Request], Awaitable[Response]]:
    """What answers with the states of `parts`: 200 if all are well, else 503."""

    async def answer(request: Request) -> Response:
        states: dict[str, str] = {}

        async def ask(part: Part) -> None:
            states[part.name] = await _state(part)

        async with trio.open_nursery() as nursery:
            for part in parts:
                nursery.start_soon(ask, part)
        well = all(state == OK for state in states.values())
        return JSONResponse(
            {
                "status": OK if well else "failing",
                "parts": {part.name: states[part.name] for part in parts},
            },
            status_code=200 if well else 503,
        )

    return answer


def health_operations(alive: Sequence[Part], ready: Sequence[Part]) -> list[Operation]:
    """GET /healthz over the parts `alive`, and GET /readyz over them and those of `ready`."""
    return [
        Operation(
            "GET",
            "/healthz",
            answering(alive),
            "The process is well; 503 with the same body: it is not, and why.",
            answer=STATE,
        ),
        Operation(
            "GET",
            "/readyz",
            answering([*alive, *ready]),
            "It can do its work now; 503 with the same body: it cannot, and why.",
            answer=STATE,
        ),
    ]
