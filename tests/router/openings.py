"""Openings as another hospital's Router makes them, and two hospitals with a grant."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from relay.dicom import pdu
from relay.errors import Refusal
from relay.router.node import unix_time
from relay.router.opening import serve_opening
from relay.router.peers import Trust
from relay.signalling import messages
from relay.tunnel.handshake import PendingOpening, Purpose, open_session
from tests.router.fakes import CT, NETWORK, TwoHospitals, proposal, two_hospitals, yes_to_all


def opening(
    both: TwoHospitals,
    request: bytes | None = None,
    called: str = "PACS",
    purpose: Purpose = Purpose.ASSOCIATION,
    now: int | None = None,
) -> PendingOpening:
    key = next(iter(both.b.keyring.pairs.values())).public
    return open_session(
        both.a.identity,
        NETWORK,
        both.b.identity.public,
        key,
        called,
        pdu.encode(proposal(CT)) if request is None else request,
        purpose,
        now or unix_time(),
        secrets.token_bytes,
    )


@asynccontextmanager
async def granted(tmp_path: Path, trust: Trust = Trust.FIRST_USE) -> AsyncIterator[TwoHospitals]:
    async with two_hospitals(tmp_path, yes_to_all, "store", trust=trust) as both:
        yield both


async def refusal(
    both: TwoHospitals,
    pending: PendingOpening,
    *,
    session: bytes | None = None,
    called: str | None = None,
) -> Refusal:
    """What B answers to an opening that is not served; `session`, `called`: the Bridge's words."""
    message = messages.Open(
        session or pending.session,
        both.a.identity.public,
        called or pending.header.called,
        pending.opening,
        pending.sealed_request,
    )
    await serve_opening(both.b, message)
    (refused,) = [m for m in both.bridge.passed if isinstance(m, messages.Refuse)]
    both.bridge.passed.clear()
    return pending.check_refusal(refused.refusal)
