"""Openings as another hospital's Router makes them, and two hospitals with a grant."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from relay.dicom import pdu
from relay.router.node import unix_time
from relay.router.peers import Trust
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
