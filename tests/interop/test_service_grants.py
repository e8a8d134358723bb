"""Every service is granted by its name: without it, it cannot be had by way of another one.

The Routers and the called devices are real; the caller is the tests' own, since others' software
does not send a command over a context that it is not for.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from relay.dicom import negotiation, uids
from relay.dicom.dimse import CommandField, CommandSet, Status, response_to
from relay.dicom.negotiation import RoleSelection
from relay.dicom.pdu import ContextResult
from tests.hospitals import ct_image
from tests.interop import peers
from tests.interop.both_sockets import Granted, Hospitals, Seen, hospitals
from tests.interop.caller import Speaker, calling
from tests.interop.kept import kept

CT = "1.2.840.10008.5.1.4.1.1.2"
MPPS = "1.2.840.10008.3.1.2.3.3"
PRIVATE_STORAGE = "1.3.6.1.4.1.99999.1.1"
PRIVATE_OPERATIONS = "1.3.6.1.4.1.99999.1.2"

# Its content does not matter to whoever refuses it: (0008,0060) Modality CT.
DATA_SET = b"\x08\x00\x60\x00\x02\x00\x00\x00CT"

# A request for commitment is known by its Transaction UID (0008,1195).
TRANSACTION = b"\x08\x00\x95\x11\x0a\x00\x00\x001.2.3.4.5\0"


@attrs.frozen(slots=True)
class Use:
    """What one service is for: a request, and the context that it needs."""

    service: str
    sop_class: str
    field: CommandField
    data_set: bytes | None = DATA_SET


USES = (
    Use("echo", uids.VERIFICATION, CommandField.C_ECHO_RQ, None),
    Use("store", CT, CommandField.C_STORE_RQ),
    Use("query", uids.STUDY_ROOT_FIND, CommandField.C_FIND_RQ),
    Use("retrieve", uids.STUDY_ROOT_GET, CommandField.C_GET_RQ),
    Use("worklist", uids.MODALITY_WORKLIST_FIND, CommandField.C_FIND_RQ),
    Use("mpps", MPPS, CommandField.N_CREATE_RQ),
    Use("commit", uids.STORAGE_COMMITMENT_PUSH_MODEL, CommandField.N_ACTION_RQ, TRANSACTION),
    Use(f"private:{PRIVATE_OPERATIONS}", PRIVATE_OPERATIONS, CommandField.N_ACTION_RQ),
    Use(f"private:{PRIVATE_STORAGE}", PRIVATE_STORAGE, CommandField.C_STORE_RQ),
)
# Whether a C-MOVE reaches its destination is for the tests of moves.
MOVE = Use("retrieve", uids.STUDY_ROOT_MOVE, CommandField.C_MOVE_RQ)
EVERY_USE = (*USES, MOVE)
ALL = [use.service for use in USES]
CALLER = {use.service: f"ONLY_{number}" for number, use in enumerate(USES)}

# Context IDs 1, 3, 5 … in the order of the table.
CONTEXTS = negotiation.propose(
    [(use.sop_class, [uids.IMPLICIT_VR_LITTLE_ENDIAN]) for use in EVERY_USE]
)
CONTEXT_ID = {context.abstract_syntax: context.id for context in CONTEXTS}


@asynccontextmanager
async def devices(directory: Path) -> AsyncIterator[Hospitals]:
    async with (
        peers.pynetdicom_services(directory / "services") as services,
        peers.pynetdicom_services(directory / "unasked", "--unasked", ae_title="UNASKED") as bad,
    ):
        grants = [Granted("SERVICES", [use.service], [CALLER[use.service]]) for use in USES]
        async with hospitals(
            directory,
            {"SERVICES": (services, ALL), "UNASKED": (bad, ALL)},
            [*CALLER.values(), "ALL"],
            [*grants, Granted("UNASKED", ALL, ["ALL"])],
        ) as at:
            yield at


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    with kept(lambda: devices(tmp_path_factory.mktemp("grants"))) as at:
        yield at


def reached(seen: Seen) -> list[tuple[int, CommandField]]:
    """Context and kind of all messages that the called device got."""
    return [
        (message.context_id, CommandField(CommandSet.decode(message.command).command_field))
        for message in seen.asked()
    ]


@pytest.mark.parametrize("granted", USES, ids=ALL)
async def test_a_grant_is_for_its_service_alone(granted: Use, at: Hospitals) -> None:
    """All other contexts are rejected, and over its own nothing of theirs can be asked."""
    async with (
        at.watch("SERVICES") as seen,
        calling(seen.address, CALLER[granted.service], CONTEXTS) as caller,
    ):
        assert caller.results == {
            CONTEXT_ID[use.sop_class]: ContextResult.ACCEPTANCE
            if use.service == granted.service
            else ContextResult.USER_REJECTION
            for use in EVERY_USE
        }
        own = CONTEXT_ID[granted.sop_class]
        for other in EVERY_USE:
            if other.service != granted.service and not both_private(other, granted):
                status = await caller.status(own, other.field, other.sop_class, other.data_set)
                assert (other.service, status) == (other.service, Status.NOT_AUTHORIZED)
        status = await caller.status(own, granted.field, granted.sop_class, granted.data_set)
        assert status == Status.SUCCESS
        assert reached(seen) == [(own, granted.field)]


def both_private(one: Use, other: Use) -> bool:
    return one.service.startswith("private:") and other.service.startswith("private:")


async def test_a_private_class_does_not_bring_another_one(at: Hospitals) -> None:
    """An abstract syntax that was granted, and in the command the SOP class of another one."""
    operations, storage = (use for use in USES if use.service.startswith("private:"))
    for granted, other in ((operations, storage), (storage, operations)):
        async with (
            at.watch("SERVICES") as seen,
            calling(seen.address, CALLER[granted.service], CONTEXTS) as caller,
        ):
            own = CONTEXT_ID[granted.sop_class]
            status = await caller.status(own, other.field, other.sop_class, other.data_set)
            assert status == Status.NOT_AUTHORIZED
            assert reached(seen) == []


@pytest.mark.parametrize("scu", [True, False])
async def test_the_context_of_a_c_get_is_not_for_storing(scu: bool, at: Hospitals) -> None:
    """Storage as provider comes with `retrieve` (PS3.7 §D.3.3.4); as user it takes `store`."""
    async with (
        at.watch("SERVICES") as seen,
        calling(
            seen.address, CALLER["retrieve"], CONTEXTS, RoleSelection(CT, scu=scu, scp=True)
        ) as caller,
    ):
        storage, get, move = (CONTEXT_ID[uid] for uid in (CT, uids.STUDY_ROOT_GET, MOVE.sop_class))
        assert {i for i, result in caller.results.items() if result == 0} == {storage, get, move}
        image = ct_image().data_set()
        status = await caller.status(storage, CommandField.C_STORE_RQ, CT, image)
        assert status == Status.NOT_AUTHORIZED
        status = await caller.status(get, CommandField.C_GET_RQ, uids.STUDY_ROOT_GET, DATA_SET)
        assert status == Status.SUCCESS
        assert reached(seen) == [(get, CommandField.C_GET_RQ)]


async def test_storing_does_not_bring_the_retrieval(at: Hospitals) -> None:
    """With `store` and the provider's role offered, a C-GET is rejected all the same."""
    async with (
        at.watch("SERVICES") as seen,
        calling(
            seen.address, CALLER["store"], CONTEXTS, RoleSelection(CT, scu=True, scp=True)
        ) as caller,
    ):
        assert caller.results[CONTEXT_ID[uids.STUDY_ROOT_GET]] == ContextResult.USER_REJECTION
        status = await caller.status(
            CONTEXT_ID[CT], CommandField.C_GET_RQ, uids.STUDY_ROOT_GET, DATA_SET
        )
        assert status == Status.NOT_AUTHORIZED
        assert reached(seen) == []


async def test_a_device_sends_nothing_that_was_not_asked_for(at: Hospitals) -> None:
    """C-ECHO, C-FIND, C-STORE, N-EVENT-REPORT and N-ACTION of the called device, on every context.

    Everything is granted, and the caller is provider of Storage too: but there is no C-GET, and no
    commitment was asked for. What may come unasked is the report of a procedure step, and anything
    of a private class.
    """
    role = RoleSelection(CT, scu=True, scp=True)
    async with (
        at.watch("UNASKED") as seen,
        calling(seen.address, "ALL", CONTEXTS, role) as caller,
    ):
        assert set(caller.results.values()) == {ContextResult.ACCEPTANCE}
        await caller.ask(CONTEXT_ID[uids.VERIFICATION], CommandField.C_ECHO_RQ, uids.VERIFICATION)
        private = [CONTEXT_ID[use.sop_class] for use in USES if both_private(use, use)]
        may_come = {(CONTEXT_ID[MPPS], CommandField.N_EVENT_REPORT_RQ)}
        may_come |= {(context_id, field) for context_id in private for field in UNASKED}
        came = await answer(caller, len(may_come))
        assert came == may_come
    answers = {
        (message.context_id, command.command_field & 0x7FFF): command.status
        for message in seen.asked()
        if (command := CommandSet.decode(message.command)).is_response
    }
    assert answers == {
        (context_id, field): Status.SUCCESS
        if (context_id, field) in may_come
        else Status.NOT_AUTHORIZED
        for context_id in CONTEXT_ID.values()
        for field in UNASKED
    }


UNASKED = (
    CommandField.C_ECHO_RQ,
    CommandField.C_FIND_RQ,
    CommandField.C_STORE_RQ,
    CommandField.N_EVENT_REPORT_RQ,
    CommandField.N_ACTION_RQ,
)


async def answer(caller: Speaker, requests: int) -> set[tuple[int, int]]:
    """Answer so many requests with 0000: context and kind of each."""
    came: set[tuple[int, int]] = set()
    while len(came) < requests:
        heard = await caller.hear()
        assert isinstance(heard, tuple), heard
        context_id, command = heard
        if not command.is_response:
            came.add((context_id, command.command_field))
            await caller.say(context_id, response_to(command, Status.SUCCESS))
    return came
