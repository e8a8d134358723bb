from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from relay import scu
from relay.association import TCPAssociation
from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandSet, Status, Tag
from relay.dicom.negotiation import (
    AcceptedContext,
    RoleSelection,
    SOPClassExtended,
    accepted_contexts,
    find,
)
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRQ,
    AReleaseRP,
    Atom,
    ContextResult,
)
from relay.dicom.upperlayer import Role
from relay.errors import RelayError, RemoteProtocolError
from relay.router.devices import Device
from relay.router.federation import retrieving, serving
from relay.router.federation.federation import Federation
from relay.router.federation.responding import Responder
from relay.router.federation.settings import Merging
from tests.router.fakes import CT, JPEG, MR, PRIVATE_CLASS, proposal, store_rq
from tests.router.federation.catalogues import Catalogue, federated, study
from tests.router.federation.datasets import EXPLICIT, IMPLICIT, dataset, decoded, encoded

LIMIT = 20
FIND, MOVE, GET = uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE, uids.STUDY_ROOT_GET
ONE, TWO = study("1.1", PatientID="7"), study("1.2", PatientID="7")
KEYS = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "PatientID": "7"}
BIG_ENDIAN = uids.EXPLICIT_VR_BIG_ENDIAN


@attrs.define
class Caller:
    """A device that has an association with the federation. `ended` has how serving it ended."""

    association: TCPAssociation
    request: AAssociateRQ
    ac: AAssociateAC
    ended: list[BaseException | None]
    over: trio.Event

    def context(self, sop_class: str) -> AcceptedContext:
        accepted = accepted_contexts(self.request, self.ac).values()
        return next(c for c in accepted if c.abstract_syntax == sop_class)

    async def ask(self, command: CommandSet, data_set: bytes = b"", context: str = FIND) -> None:
        context_id = self.context(context).id
        await self.association.send(PDV(context_id, True, True, command.encode()))
        if data_set:
            await self.association.send(PDV(context_id, False, True, data_set))

    async def hears(self) -> CommandSet:
        """The next response; its data set is dropped."""
        reader = dimse.CommandReader()
        while True:
            atom = await self.association.receive()
            assert isinstance(atom, PDV), atom
            command = reader.feed(atom) or reader.command
            if not reader.message_open:
                assert command is not None
                return command

    async def find(self, message_id: int = 1, **keys: Any) -> tuple[list[str], int]:
        """The studies that a query finds, and its final status."""
        context = self.context(FIND)
        identifier = encoded(dataset(**(KEYS | keys)), context.transfer_syntax)
        found, status = [], -1
        async for answer in scu.find(self.association, context, identifier, message_id=message_id):
            if answer.identifier is not None:
                read = decoded(answer.identifier, context.transfer_syntax)
                found.append(str(read.StudyInstanceUID))
            status = answer.status
        return sorted(found), status


@asynccontextmanager
async def calling(
    federation: Federation, device: Device | None, request: AAssociateRQ
) -> AsyncIterator[Caller]:
    near, far = trio.testing.memory_stream_pair()
    association = TCPAssociation(near, Role.REQUESTOR)
    router = TCPAssociation(far, Role.ACCEPTOR)
    ended: list[BaseException | None] = []
    over = trio.Event()

    async def serve() -> None:
        try:
            said = await router.receive()
            assert isinstance(said, AAssociateRQ)
            await serving.serve(federation, router, device, said)
            ended.append(None)
        except RelayError as error:
            ended.append(error)
            await router.abort()
        finally:
            over.set()
            await router.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        ac = await scu.negotiate(association, request)
        yield Caller(association, request, ac, ended, over)
        await near.aclose()  # or the Router would wait for it


# --- A-ASSOCIATE ----------------------------------------------------------------------------------


def chosen(request: AAssociateRQ) -> dict[str, str | int]:
    """Of each abstract syntax the transfer syntax that is accepted, or the reason it is not."""
    ac = serving.answer(request)
    results = {result.id: result for result in ac.contexts}
    return {
        context.abstract_syntax: results[context.id].transfer_syntax
        if results[context.id].accepted
        else results[context.id].result
        for context in request.contexts
    }


def test_what_is_accepted() -> None:
    asked = proposal(
        uids.VERIFICATION,
        FIND,
        MOVE,
        GET,
        uids.PATIENT_ROOT_FIND,
        uids.MODALITY_WORKLIST_FIND,
        uids.PATIENT_STUDY_ONLY_FIND,
        CT,
        MR,
        scp=[CT, PRIVATE_CLASS],
        transfer_syntaxes=[IMPLICIT, EXPLICIT],
    )
    no = ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    assert chosen(asked) == {
        uids.VERIFICATION: IMPLICIT,
        FIND: EXPLICIT,
        MOVE: EXPLICIT,
        GET: EXPLICIT,
        uids.PATIENT_ROOT_FIND: EXPLICIT,
        uids.MODALITY_WORKLIST_FIND: no,
        uids.PATIENT_STUDY_ONLY_FIND: no,
        CT: IMPLICIT,  # the first of its own list
        MR: no,  # it would be the one to store
    }
    roles = find(serving.answer(asked).user_items, RoleSelection)
    assert [(r.sop_class, r.scu, r.scp) for r in roles] == [(CT, False, True)]


def test_transfer_syntaxes() -> None:
    assert chosen(proposal(FIND)) == {FIND: IMPLICIT}
    not_supported = ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
    assert chosen(proposal(FIND, transfer_syntaxes=[BIG_ENDIAN])) == {FIND: not_supported}
    private = proposal(CT, scp=[CT], transfer_syntaxes=["1.2.3.4", JPEG])
    assert chosen(private) == {CT: JPEG}
    assert chosen(proposal(CT, scp=[CT], transfer_syntaxes=["1.2.3.4"])) == {CT: "1.2.3.4"}


def test_extended_negotiation_is_not_promised() -> None:
    asked = proposal(FIND)
    item = SOPClassExtended(FIND, b"\1\1\1\1").encode()
    asked = attrs.evolve(asked, user_items=(*asked.user_items, item))
    assert not list(find(serving.answer(asked).user_items, SOPClassExtended))


# --- operations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
async def test_queries_one_after_the_other(tmp_path: Path, syntax: str) -> None:
    sites = {"A": Catalogue([ONE]), "B": Catalogue([TWO])}
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, sites) as (federation, device),
            calling(
                federation, device, proposal(uids.VERIFICATION, FIND, transfer_syntaxes=[syntax])
            ) as caller,
        ):
            echo = caller.context(uids.VERIFICATION)
            assert await scu.echo(caller.association, echo) == 0
            for message_id in (1, 2, 0xFFFF):
                assert await caller.find(message_id) == (["1.1", "1.2"], 0)
            assert await scu.echo(caller.association, echo) == 0
            assert await caller.find(QueryRetrieveLevel="") == ([], 0xA900)
            await scu.release(caller.association)
            await caller.over.wait()
            assert caller.ended == [None]


async def test_cancel(tmp_path: Path) -> None:
    a = Catalogue([ONE], silent_after=1)
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": a}, answers=Merging.STREAMED) as (federation, device),
            calling(federation, device, proposal(FIND)) as caller,
        ):
            context = caller.context(FIND)
            identifier = encoded(dataset(**KEYS), IMPLICIT)
            statuses = []
            async for answer in scu.find(caller.association, context, identifier, message_id=9):
                statuses.append(answer.status)
                if answer.pending:
                    await scu.cancel(caller.association, context, message_id=8)  # of another
                    await scu.cancel(caller.association, context, message_id=9)
            assert statuses == [0xFF00, 0xFE00]
            await scu.cancel(caller.association, context, message_id=9)  # too late
            a.silent_after = None
            assert await caller.find(10) == (["1.1"], 0)


@pytest.mark.parametrize("how", ["release", "abort", "lost"])
async def test_a_device_that_goes_ends_what_is_done_for_it(tmp_path: Path, how: str) -> None:
    a = Catalogue([ONE], silent_after=0)
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": a}) as (federation, device),
            calling(federation, device, proposal(FIND)) as caller,
        ):
            command = dimse.request(CommandField.C_FIND_RQ, 1, FIND)
            await caller.ask(command, encoded(dataset(**KEYS), IMPLICIT))
            await a.silent.wait()
            if how == "release":
                await scu.release(caller.association)
            elif how == "abort":
                await caller.association.abort()
            else:
                await caller.association._stream.aclose()
            await caller.over.wait()
            assert caller.ended == [None]
            while not a.dropped:
                await trio.sleep(0.001)
            assert federation.held.size == 0


REFUSED: list[tuple[CommandSet, bytes, str, int]] = [
    (store_rq(), b"data", CT, Status.NOT_AUTHORIZED),
    (dimse.request(CommandField.C_FIND_RQ, 1, GET), b"data", FIND, Status.SOP_CLASS_NOT_SUPPORTED),
    (dimse.request(CommandField.C_MOVE_RQ, 1, FIND), b"data", FIND, Status.UNRECOGNIZED_OPERATION),
    (dimse.request(CommandField.C_FIND_RQ, 1, MOVE), b"data", MOVE, Status.UNRECOGNIZED_OPERATION),
    (
        dimse.request(CommandField.N_ACTION_RQ, 1, FIND, "1.2", has_data_set=True),
        b"data",
        FIND,
        Status.UNRECOGNIZED_OPERATION,
    ),
    (
        dimse.request(CommandField.C_FIND_RQ, 1, FIND),
        bytes(scu.MAXIMUM_IDENTIFIER + 2),
        FIND,
        Status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS,
    ),
    (
        dimse.request(CommandField.C_FIND_RQ, 1, FIND).evolve(
            {Tag.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET}
        ),
        b"",
        FIND,
        Status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS,
    ),
]


@pytest.mark.parametrize(("command", "data_set", "context", "status"), REFUSED)
async def test_what_is_refused(
    tmp_path: Path, command: CommandSet, data_set: bytes, context: str, status: int
) -> None:
    request = proposal(FIND, MOVE, GET, CT, scp=[CT])
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": Catalogue([ONE])}) as (federation, device),
            calling(federation, device, request) as caller,
        ):
            await caller.ask(command, data_set, context)
            response = await caller.hears()
            assert response.status == status
            assert response.message_id_responded_to == 1
            assert await caller.find() == (["1.1"], 0)  # goes on


async def test_one_operation_at_a_time(tmp_path: Path) -> None:
    a = Catalogue([ONE], silent_after=0)
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": a}) as (federation, device),
            calling(federation, device, proposal(FIND)) as caller,
        ):
            for message_id in (1, 2):
                command = dimse.request(CommandField.C_FIND_RQ, message_id, FIND)
                await caller.ask(command, encoded(dataset(**KEYS), IMPLICIT))
            assert isinstance(await caller.association.receive(), AAbort)
            await caller.over.wait()
            assert isinstance(caller.ended[0], RemoteProtocolError)


@pytest.mark.parametrize(
    "atoms",
    [
        (PDV(1, False, True, b"data"),),
        (PDV(99, True, True, b"data"),),
        (PDV(1, True, True, b"\1\2\3"),),
        (AReleaseRP(),),
    ],
)
async def test_what_breaks_the_protocol(tmp_path: Path, atoms: tuple[Atom, ...]) -> None:
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {}) as (federation, device),
            calling(federation, device, proposal(FIND)) as caller,
        ):
            try:
                for atom in atoms:
                    await caller.association.send(atom)
            except RelayError:
                return  # not even our own association says such a thing
            assert isinstance(await caller.association.receive(), AAbort)
            await caller.over.wait()
            assert isinstance(caller.ended[0], RemoteProtocolError)


async def test_a_device_that_says_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "IDLE", 0.1)
    a = Catalogue([ONE], gate=trio.Event())
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": a}) as (federation, device),
            calling(federation, device, proposal(FIND)) as caller,
            trio.open_nursery() as nursery,
        ):
            asked: list[tuple[list[str], int]] = []

            async def ask() -> None:
                asked.append(await caller.find())

            nursery.start_soon(ask)
            await a.asked.wait()
            await trio.sleep(0.3)  # it is ours to speak
            assert not caller.over.is_set()
            assert a.gate is not None
            a.gate.set()
            await caller.over.wait()
            assert asked == [(["1.1"], 0)]
            assert isinstance(caller.ended[0], RemoteProtocolError)


# --- retrieving, as another serves it -------------------------------------------------------------


Serves = Callable[[Federation, Device | None, Responder, bytes], Awaitable[None]]


@asynccontextmanager
async def with_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serves, name: str = "serve_get"
) -> AsyncIterator[Caller]:
    monkeypatch.setattr(retrieving, name, serve, raising=False)
    request = proposal(FIND, MOVE, GET, CT, scp=[CT])
    with trio.fail_after(LIMIT):
        async with (
            federated(tmp_path, {"A": Catalogue([ONE])}) as (federation, device),
            calling(federation, device, request) as caller,
        ):
            yield caller


async def test_responses_of_the_device_reach_who_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    async def serve_get(
        federation: Federation, device: Device | None, responder: Responder, identifier: bytes
    ) -> None:
        assert identifier == b"data"
        arrived = trio.Event()

        def takes(response: CommandSet) -> bool:
            heard.append(response.status)
            arrived.set()
            return True

        responder.takes_response = takes
        (context,) = (c for c in responder.contexts if c.scp)
        async with responder.writing:
            command = PDV(context.id, True, True, store_rq().encode())
            await responder.association.send(command)
            await responder.association.send(PDV(context.id, False, True, b"object"))
        await arrived.wait()
        await responder.send(0)

    async with with_get(tmp_path, monkeypatch, serve_get) as caller:
        await caller.ask(dimse.request(CommandField.C_GET_RQ, 1, GET), b"data", GET)
        stored = await caller.hears()
        assert stored.command_field == CommandField.C_STORE_RQ
        await caller.ask(dimse.response_to(stored, 0xB000), b"", CT)
        assert (await caller.hears()).status == 0
        assert heard == [0xB000]
        # Of an operation that is over: nobody waits.
        await caller.ask(dimse.response_to(stored, 0), b"", CT)
        assert await caller.find() == (["1.1"], 0)


async def test_a_cancel_reaches_a_retrieve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve_move(
        federation: Federation, device: Device | None, responder: Responder, identifier: bytes
    ) -> None:
        await responder.cancelled.wait()
        await responder.send(Status.CANCEL)

    async with with_get(tmp_path, monkeypatch, serve_move, "serve_move") as caller:
        command = dimse.request(CommandField.C_MOVE_RQ, 4, MOVE)
        await caller.ask(command, b"data", MOVE)
        await scu.cancel(caller.association, caller.context(MOVE), message_id=4)
        assert (await caller.hears()).status == 0xFE00


async def test_a_cancel_of_something_else_reaches_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve_get(
        federation: Federation, device: Device | None, responder: Responder, identifier: bytes
    ) -> None:
        arrived = trio.Event()

        def takes(response: CommandSet) -> bool:
            arrived.set()
            return True

        responder.takes_response = takes
        await arrived.wait()
        await responder.send(Status.CANCEL if responder.cancelled.is_set() else 0)

    async with with_get(tmp_path, monkeypatch, serve_get) as caller:
        await caller.ask(dimse.request(CommandField.C_GET_RQ, 4, GET), b"data", GET)
        await scu.cancel(caller.association, caller.context(GET), message_id=5)
        await caller.ask(dimse.response_to(store_rq(), 0), b"", CT)
        assert (await caller.hears()).status == 0


async def test_a_release_in_the_middle_of_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve_get(
        federation: Federation, device: Device | None, responder: Responder, identifier: bytes
    ) -> None:
        while True:
            await responder.send(Status.PENDING)

    async with with_get(tmp_path, monkeypatch, serve_get) as caller:
        await caller.ask(dimse.request(CommandField.C_GET_RQ, 1, GET), b"data", GET)
        await caller.hears()
        await scu.release(caller.association)
        await caller.over.wait()
        assert caller.ended == [None]


async def test_what_fails_here_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve_get(*_: object) -> None:
        async with trio.open_nursery():
            raise RelayError("the disk is gone")

    async with with_get(tmp_path, monkeypatch, serve_get) as caller:
        await caller.ask(dimse.request(CommandField.C_GET_RQ, 1, GET), b"data", GET)
        response = await caller.hears()
        assert response.status == 0xC000
        assert response.text(Tag.ERROR_COMMENT) == "the Router has failed"
        assert await caller.find() == (["1.1"], 0)


async def test_clearing_up_is_beside_the_next_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared = trio.Event()

    async def serve_get(
        federation: Federation, device: Device | None, responder: Responder, identifier: bytes
    ) -> None:
        await responder.send(0)
        await trio.sleep(0.3)
        cleared.set()

    async with with_get(tmp_path, monkeypatch, serve_get) as caller:
        await caller.ask(dimse.request(CommandField.C_GET_RQ, 1, GET), b"data", GET)
        assert (await caller.hears()).status == 0
        assert await caller.find() == (["1.1"], 0)
        assert not cleared.is_set()
        await scu.release(caller.association)
        await caller.over.wait()
        assert cleared.is_set()
