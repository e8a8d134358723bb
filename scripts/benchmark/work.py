"""The pieces of work that are measured: each runs once against a target and gives its seconds."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from relay import association, scu
from relay.association import Association
from relay.dicom.negotiation import AcceptedContext, accepted_contexts, propose, request
from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND, VERIFICATION
from tests.interop import peers
from tests.interop.peers import Address

# A run that takes longer than this measures a fault, not a rate.
DEADLINE = 600.0

# (0008,0052) QueryRetrieveLevel = STUDY and an empty (0020,000D), Implicit VR Little Endian.
ANY_STUDY = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY \x20\x00\x0d\x00\x00\x00\x00\x00"

CALLING = "BENCH"


async def store(target: Address, directory: Path) -> float:
    """DCMTK storescu, one association, every file of `directory`: the whole process's time."""
    began = time.perf_counter()
    result = await peers.storescu(
        target, directory, options=["-xe"], calling=CALLING, deadline=DEADLINE
    )
    elapsed = time.perf_counter() - began
    result.check()
    return elapsed


async def echo(target: Address, count: int) -> list[float]:
    """Each C-ECHO's time inside one open association."""
    times = []
    async with _associated(target, VERIFICATION) as (opened, context):
        for number in range(count):
            began = time.perf_counter()
            status = await scu.echo(opened, context, message_id=number + 1)
            times.append(time.perf_counter() - began)
            if status != 0:
                raise RuntimeError(f"C-ECHO: status {status:04X}H")
    return times


async def find(
    target: Address, count: int, answers: int, identifier: bytes = ANY_STUDY
) -> list[float]:
    """Each C-FIND's time inside one open association, to its final response."""
    times = []
    async with _associated(target, STUDY_ROOT_FIND) as (opened, context):
        for number in range(count):
            began = time.perf_counter()
            found = [
                answer
                async for answer in scu.find(opened, context, identifier, message_id=number + 1)
            ]
            times.append(time.perf_counter() - began)
            if len(found) != answers + 1:
                raise RuntimeError(f"C-FIND: {len(found) - 1} answers, not {answers}")
    return times


@asynccontextmanager
async def _associated(
    target: Address, abstract_syntax: str
) -> AsyncIterator[tuple[Association, AcceptedContext]]:
    opened = await association.connect(target.host, target.port)
    try:
        rq = request(
            target.ae_title, CALLING, propose([(abstract_syntax, [IMPLICIT_VR_LITTLE_ENDIAN])])
        )
        ac = await scu.negotiate(opened, rq)
        (context,) = accepted_contexts(rq, ac).values()
        yield opened, context
        await scu.release(opened)
    finally:
        await opened.aclose()
