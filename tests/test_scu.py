"""`relay.scu`: each operation against a provider in the same test, right and wrong."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from relay import scu
from relay.association import TCPAssociation
from relay.dicom import uids
from relay.dicom.dimse import (
    CommandField,
    CommandReader,
    CommandSet,
    Status,
    Tag,
    request,
    response_to,
)
from relay.dicom.negotiation import AcceptedContext, accepted_contexts
from relay.dicom.pdu import (
    PDV,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
)
from relay.errors import (
    AssociationAborted,
    AssociationRejected,
    PeerSilent,
    RemoteProtocolError,
)
from tests.association_pairs import CT_IMAGE_STORAGE, REQUEST, VERIFICATION, accept_all, pair
from tests.router.fakes import FakeAssociation

INSTANCE = "1.2.3.4.5"


class Provider:
    """The far end, spelled out by each test: what came, and what goes back."""

    def __init__(self, association: TCPAssociation) -> None:
        self.association = association
        self.reader = CommandReader()

    async def accept(self) -> None:
        rq = await self.association.receive()
        assert isinstance(rq, AAssociateRQ)
        await self.association.send(accept_all(rq))

    async def message(self) -> tuple[CommandSet, bytes]:
        """The next whole message."""
        command = None
        data_set = bytearray()
        while command is None or self.reader.message_open:
            pdv = await self.association.receive()
            assert isinstance(pdv, PDV)
            command = self.reader.feed(pdv) or command
            if not pdv.is_command:
                data_set += pdv.fragment
        return command, bytes(data_set)

    async def send(self, command: CommandSet, data_set: bytes | None = None) -> None:
        """One message, on the context of the last one that came."""
        await self.fragment(command.encode(), command=True)
        if data_set is not None:
            await self.fragment(data_set)

    async def fragment(
        self, data: bytes, *, command: bool = False, last: bool = True, context_id: int = 0
    ) -> None:
        pdv = PDV(context_id or self.reader.context_id or 1, command, last, data)
        await self.association.send(pdv)

    async def answer(self, status: int, data_set: bytes | None = None) -> None:
        """Receive one message, and respond."""
        command, _ = await self.message()
        await self.send(response_to(command, status, has_data_set=data_set is not None), data_set)

    async def release(self) -> None:
        assert await self.association.receive() == AReleaseRQ()
        await self.association.send(AReleaseRP())


Script = Callable[[Provider], Awaitable[None]]


@asynccontextmanager
async def against(
    script: Script,
) -> AsyncIterator[tuple[TCPAssociation, AcceptedContext, AcceptedContext]]:
    """An association with a provider that runs `script`; its Verification and CT contexts."""
    requestor, acceptor = pair()
    provider = Provider(acceptor)

    async def far() -> None:
        await provider.accept()
        await script(provider)
        await acceptor.aclose()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far)
            ac = await scu.negotiate(requestor, REQUEST)
            contexts = accepted_contexts(REQUEST, ac)
            yield requestor, contexts[1], contexts[3]
            await requestor.aclose()
            nursery.cancel_scope.cancel()


# --- negotiate and release --------------------------------------------------------------------


async def test_rejection_says_why() -> None:
    requestor, acceptor = pair()

    async def far() -> None:
        await acceptor.receive()
        await acceptor.send(AAssociateRJ(1, 1, 7))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(far)
        with pytest.raises(AssociationRejected, match="called AE title not recognized") as caught:
            await scu.negotiate(requestor, REQUEST)
    assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 1, 7)


async def test_abort_instead_of_an_answer() -> None:
    requestor, acceptor = pair()

    async def far() -> None:
        await acceptor.receive()
        await acceptor.abort(2, 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(far)
        with pytest.raises(AssociationAborted) as caught:
            await scu.negotiate(requestor, REQUEST)
    assert (caught.value.source, caught.value.reason) == (2, 1)


async def test_no_answer_at_all(autojump_clock: trio.testing.MockClock) -> None:
    requestor, acceptor = pair()
    with pytest.raises(PeerSilent, match="no answer to A-ASSOCIATE-RQ within 8 s"):
        await scu.negotiate(requestor, REQUEST, deadline=8)
    await acceptor.receive()
    assert await acceptor.receive() == AAbort(0, 0)


async def test_release_takes_what_still_comes() -> None:
    async def script(provider: Provider) -> None:
        assert await provider.association.receive() == AReleaseRQ()
        await provider.send(request(CommandField.C_ECHO_RQ, 9, VERIFICATION))
        await provider.association.send(AReleaseRP())

    async with against(script) as (association, _, _):
        await scu.release(association)
        assert association.cause == "released"


async def test_release_collision() -> None:
    """Both sides release at once (PS3.8 §7.2.2.7): the requestor answers first."""

    async def script(provider: Provider) -> None:
        await provider.association.send(AReleaseRQ())
        assert await provider.association.receive() == AReleaseRQ()
        assert await provider.association.receive() == AReleaseRP()
        await provider.association.send(AReleaseRP())

    async with against(script) as (association, _, _):
        await trio.testing.wait_all_tasks_blocked()
        await scu.release(association)
        assert association.cause == "released"


# --- echo -------------------------------------------------------------------------------------


async def test_echo() -> None:
    async def script(provider: Provider) -> None:
        await provider.answer(Status.SUCCESS)
        await provider.answer(Status.PROCESSING_FAILURE)
        await provider.release()

    async with against(script) as (association, verification, _):
        assert await scu.echo(association, verification) == 0x0000
        assert await scu.echo(association, verification, message_id=2) == 0x0110
        await scu.release(association)


async def test_no_response(autojump_clock: trio.testing.MockClock) -> None:
    async def script(provider: Provider) -> None:
        await provider.message()
        assert await provider.association.receive() == AAbort(0, 0)

    async with against(script) as (association, verification, _):
        with pytest.raises(PeerSilent, match="no response within 5 s"):
            await scu.echo(association, verification, deadline=5)


async def wrong_message_id(provider: Provider) -> None:
    command, _ = await provider.message()
    await provider.send(
        response_to(command.evolve({Tag.MESSAGE_ID: command.message_id + 1}), Status.SUCCESS)
    )


async def response_to_another_operation(provider: Provider) -> None:
    command, _ = await provider.message()
    stored = request(CommandField.C_STORE_RQ, command.message_id, CT_IMAGE_STORAGE, INSTANCE)
    await provider.send(response_to(stored, Status.SUCCESS))


async def request_instead(provider: Provider) -> None:
    await provider.message()
    await provider.send(request(CommandField.C_ECHO_RQ, 1, VERIFICATION))


async def no_status(provider: Provider) -> None:
    command, _ = await provider.message()
    elements = dict(response_to(command, Status.SUCCESS).elements)
    del elements[Tag.STATUS]
    await provider.send(CommandSet(elements))


async def wrong_context(provider: Provider) -> None:
    command, _ = await provider.message()
    response = response_to(command, Status.SUCCESS).encode()
    await provider.fragment(response, command=True, context_id=3)


async def data_set_without_command(provider: Provider) -> None:
    await provider.message()
    await provider.fragment(b"data")


async def no_command_set(provider: Provider) -> None:
    await provider.message()
    await provider.fragment(b"\xff" * 20, command=True)


async def release_instead(provider: Provider) -> None:
    await provider.message()
    await provider.association.send(AReleaseRQ())


@pytest.mark.parametrize(
    "script",
    [
        wrong_message_id,
        response_to_another_operation,
        request_instead,
        no_status,
        wrong_context,
        data_set_without_command,
        no_command_set,
        release_instead,
    ],
)
async def test_wrong_response_is_aborted(script: Script) -> None:
    ends = []

    async def and_then(provider: Provider) -> None:
        await script(provider)
        ends.append(await provider.association.receive())

    async with against(and_then) as (association, verification, _):
        with pytest.raises(RemoteProtocolError):
            await scu.echo(association, verification)
        await trio.testing.wait_all_tasks_blocked()
        assert ends == [AAbort(0, 0)]


async def test_an_operation_after_the_end_is_aborted_too() -> None:
    async def abort(provider: Provider) -> None:
        await provider.message()
        await provider.association.abort()

    async with against(abort) as (association, verification, _):
        for _ in range(2):
            with pytest.raises(AssociationAborted):
                await scu.echo(association, verification)


# --- store ------------------------------------------------------------------------------------


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


DATA = bytes(range(256)) * 300


@pytest.mark.parametrize("size", [0, 1, 2, 333, 16378, 16384, len(DATA), 10 * len(DATA)])
async def test_store_sends_the_data_set_byte_for_byte(size: int) -> None:
    received = []

    async def script(provider: Provider) -> None:
        command, data_set = await provider.message()
        received.append((command, data_set))
        await provider.send(response_to(command, Status.SUCCESS))

    data = DATA[: 200 if size == 1 else None]
    async with against(script) as (association, _, storage):
        source = in_pieces(data, size) if size else data
        assert await scu.store(association, storage, CT_IMAGE_STORAGE, INSTANCE, source) == 0
    [(command, data_set)] = received
    assert data_set == data
    assert command.sop_class_uid == CT_IMAGE_STORAGE
    assert command.sop_instance_uid == INSTANCE


@pytest.mark.parametrize("status", [0xA700, 0xB000, 0x0111, 0xC123])
async def test_store_gives_any_status(status: int) -> None:
    async with against(lambda provider: provider.answer(status)) as (association, _, storage):
        assert await scu.store(association, storage, CT_IMAGE_STORAGE, INSTANCE, DATA) == status


async def test_abort_in_the_middle_of_an_object_arrives_as_it_was() -> None:
    async def script(provider: Provider) -> None:
        await provider.association.receive()
        await provider.association.abort(0, 0)
        await provider.association._lose()  # as devices do: they do not wait for our close

    async def endless() -> AsyncIterator[bytes]:
        while True:
            await trio.lowlevel.checkpoint()
            yield bytes(10_000)

    async with against(script) as (association, _, storage):
        with pytest.raises(AssociationAborted, match="aborted by the peer: source 0") as caught:
            await scu.store(association, storage, CT_IMAGE_STORAGE, INSTANCE, endless())
        assert (caught.value.source, caught.value.reason) == (0, 0)


# --- find -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 1000])
async def test_find_gives_every_answer_and_the_final_status(count: int) -> None:
    async def script(provider: Provider) -> None:
        command, identifier = await provider.message()
        assert identifier == b"query"
        for number in range(count):
            pending = response_to(command, Status.PENDING, has_data_set=True)
            await provider.send(pending, b"%06d" % number)
        await provider.send(response_to(command, Status.SUCCESS))

    async with against(script) as (association, context, _):
        answers = [answer async for answer in scu.find(association, context, b"query")]
    assert [answer.identifier for answer in answers[:-1]] == [b"%06d" % n for n in range(count)]
    assert all(answer.pending for answer in answers[:-1])
    assert answers[-1] == scu.FindAnswer(0x0000)


async def test_a_failed_find_brings_its_error_comment() -> None:
    async def script(provider: Provider) -> None:
        command, _ = await provider.message()
        extra: dict[int, int | str | bytes] = {Tag.ERROR_COMMENT: "the disk is full"}
        await provider.send(response_to(command, 0xA700, extra=extra))

    async with against(script) as (association, context, _):
        (answer,) = [answer async for answer in scu.find(association, context, b"query")]
    assert answer == scu.FindAnswer(0xA700, None, "the disk is full")


async def cancellable(provider: Provider) -> None:
    """One more answer than asked for, then cancelled."""
    command, _ = await provider.message()
    for text in (b"first ", b"second"):
        await provider.send(response_to(command, 0xFF01, has_data_set=True), text)
    cancel, _ = await provider.message()
    assert cancel.command_field == CommandField.C_CANCEL_RQ
    assert cancel.message_id_responded_to == command.message_id
    await provider.send(response_to(command, Status.PENDING, has_data_set=True), b"late")
    await provider.send(response_to(command, Status.CANCEL))


async def test_find_stops_at_its_maximum() -> None:
    async with against(cancellable) as (association, context, _):
        answers = [a async for a in scu.find(association, context, b"query", maximum=2)]
    assert [a.identifier for a in answers] == [b"first ", b"second", None]
    assert answers[-1].status == 0xFE00


@pytest.mark.parametrize("maximum", [None, 1])
async def test_find_does_not_wait_for_who_takes_nothing(
    autojump_clock: trio.testing.MockClock, maximum: int | None
) -> None:
    association = FakeAssociation()
    context = AcceptedContext(1, uids.STUDY_ROOT_FIND, uids.IMPLICIT_VR_LITTLE_ENDIAN)
    association.deaf = maximum is None
    asked = request(CommandField.C_FIND_RQ, 1, uids.STUDY_ROOT_FIND)
    if maximum is not None:
        pending = response_to(asked, Status.PENDING, has_data_set=True)
        association.say(PDV(1, True, True, pending.encode()), PDV(1, False, True, b"answer"))

    async def ask() -> None:
        async for _ in scu.find(association, context, b"key", maximum=maximum, deadline=8):
            association.deaf = True

    start = trio.current_time()
    with pytest.raises(PeerSilent, match="took nothing for 8 s"):
        await ask()
    assert trio.current_time() - start == pytest.approx(8)
    assert association.aborts


async def test_find_is_cancelled_by_its_caller() -> None:
    async with against(cancellable) as (association, context, _):
        answers = []
        async for answer in scu.find(association, context, b"query", message_id=7):
            answers.append(answer)
            if len(answers) == 2:
                await scu.cancel(association, context, message_id=7)
    assert [a.status for a in answers] == [0xFF01, 0xFF01, 0xFF00, 0xFE00]


async def test_endless_identifier_is_cut_off() -> None:
    async def script(provider: Provider) -> None:
        command, _ = await provider.message()
        pending = response_to(command, Status.PENDING, has_data_set=True)
        await provider.fragment(pending.encode(), command=True)
        for _ in range(scu.MAXIMUM_IDENTIFIER // 16000 + 1):
            await provider.fragment(bytes(16000), last=False)
        assert await provider.association.receive() == AAbort(0, 0)

    async with against(script) as (association, context, _):
        with pytest.raises(RemoteProtocolError, match="longer than"):
            await anext(scu.find(association, context, b"query"))


async def test_representation_shows_no_identifier() -> None:
    assert "patient" not in repr(scu.FindAnswer(0xFF00, b"patient"))


# --- report_event -----------------------------------------------------------------------------


def event(values: Mapping[int, int | str | bytes]) -> CommandSet:
    """Somebody else's N-EVENT-REPORT, which is reported on."""
    reported = request(
        CommandField.N_EVENT_REPORT_RQ, 77, VERIFICATION, INSTANCE, has_data_set=True
    )
    return reported.evolve(values)


async def test_an_event_is_reported_as_it_was_and_its_status_comes_back() -> None:
    heard: list[tuple[CommandSet, bytes]] = []

    async def script(provider: Provider) -> None:
        for status in (Status.SUCCESS, Status.PROCESSING_FAILURE):
            command, data_set = await provider.message()
            heard.append((command, data_set))
            await provider.send(response_to(command, status))
        await provider.release()

    async with against(script) as (association, verification, _):
        reported = event({Tag.EVENT_TYPE_ID: 2})
        for message_id, status in ((1, 0x0000), (2, 0x0110)):
            assert (
                await scu.report_event(
                    association, verification, reported, DATA, message_id=message_id
                )
                == status
            )
        await scu.release(association)
    command, data_set = heard[0]
    assert (command.message_id, command.number(Tag.EVENT_TYPE_ID), data_set) == (1, 2, DATA)
    assert (command.sop_class_uid, command.sop_instance_uid) == (VERIFICATION, INSTANCE)


@pytest.mark.parametrize(
    "missing",
    [
        {Tag.EVENT_TYPE_ID: b""},
        {Tag.EVENT_TYPE_ID: 1, Tag.AFFECTED_SOP_CLASS_UID: b""},
        {Tag.EVENT_TYPE_ID: 1, Tag.AFFECTED_SOP_INSTANCE_UID: b""},
    ],
)
async def test_an_event_that_says_not_what_it_is_cannot_be_reported(
    missing: Mapping[int, int | str | bytes],
) -> None:
    async def script(provider: Provider) -> None:
        await provider.release()

    async with against(script) as (association, verification, _):
        with pytest.raises(RemoteProtocolError, match="without SOP class, instance or event type"):
            await scu.report_event(association, verification, event(missing), DATA)
        await scu.release(association)  # nothing was sent


# --- the Router's own C-ECHO ------------------------------------------------------------------


@asynccontextmanager
async def echo_provider() -> AsyncIterator[tuple[TCPAssociation, AAssociateAC]]:
    requestor, acceptor = pair()

    async def far() -> None:
        rq = await acceptor.receive()
        assert isinstance(rq, AAssociateRQ)
        try:
            await scu.respond_to_echo(acceptor, rq)
        except (AssociationAborted, RemoteProtocolError) as error:
            errors.append(error)
        await acceptor.aclose()

    errors: list[Exception] = []
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far)
            yield requestor, await scu.negotiate(requestor, REQUEST)
            await requestor.aclose()


async def test_own_provider_takes_verification_only() -> None:
    async with echo_provider() as (association, ac):
        assert [(context.id, context.result) for context in ac.contexts] == [(1, 0), (3, 3)]
        context = accepted_contexts(REQUEST, ac)[1]
        for message_id in (1, 2, 3):
            assert await scu.echo(association, context, message_id=message_id) == 0
        await scu.release(association)


async def test_own_provider_refuses_other_operations_and_goes_on() -> None:
    async with echo_provider() as (association, ac):
        context = accepted_contexts(REQUEST, ac)[1]
        assert (
            await scu.store(association, context, CT_IMAGE_STORAGE, INSTANCE, DATA)
            == Status.UNRECOGNIZED_OPERATION
        )
        assert await scu.echo(association, context) == 0
        await scu.release(association)


async def test_own_provider_aborts_what_is_wrong() -> None:
    async with echo_provider() as (association, _):
        await association.send(PDV(3, True, True, b"on a context that was not accepted"))
        assert await association.receive() == AAbort(0, 0)


async def test_own_provider_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with echo_provider() as (association, _):
        with trio.fail_after(2 * scu.ECHO_IDLE):
            assert await association.receive() == AAbort(0, 0)
