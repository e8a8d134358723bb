"""The guard: what crosses, in both directions, by SOP class, role and command."""

from collections.abc import Collection, Iterable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicom import dimse, uids
from relay.dicom.dimse import CommandField, CommandSet, Status
from relay.dicom.elements import Encoding
from relay.dicom.negotiation import RoleSelection
from relay.dicom.pdu import PDV, AAssociateRQ
from relay.errors import RemoteProtocolError
from relay.router import contexts, services
from relay.router.border import Crossing, Send
from relay.router.direction import Verdict
from relay.router.guard import MAXIMUM_IDENTIFIER, MAXIMUM_PREFIX, Guard
from relay.router.services import Service
from tests.router.fakes import (
    CT,
    IMPLICIT,
    MR,
    PRIVATE_CLASS,
    FakeBorder,
    acceptance,
    command,
    data,
    echo_rq,
    find_rq,
    get_rq,
    move_rq,
    proposal,
    read,
    store_rq,
)

COMMIT = uids.STORAGE_COMMITMENT_PUSH_MODEL
MPPS = "1.2.840.10008.3.1.2.3.3"
CLASSES = (
    uids.VERIFICATION,
    CT,
    uids.STUDY_ROOT_FIND,
    uids.STUDY_ROOT_MOVE,
    uids.STUDY_ROOT_GET,
    uids.MODALITY_WORKLIST_FIND,
    MPPS,
    COMMIT,
    PRIVATE_CLASS,
)
EVERYTHING = frozenset(Service) | {f"private:{PRIVATE_CLASS}"}


def guard(
    request: AAssociateRQ,
    granted: Collection[str] | None,
    move_to: Collection[str] = (),
    awaited: Collection[str] = (),
) -> Guard:
    made = Guard(request, granted, FakeBorder(move_to, awaited))
    made.negotiated(acceptance(request))
    return made


def refused(verdict: Verdict) -> int:
    """The status of the answer to a request that did not pass."""
    assert not verdict.forward
    assert verdict.reply is not None
    return read(verdict.reply).status


def request_for(field: CommandField, sop_class: str, message_id: int) -> CommandSet:
    row = dimse.MESSAGES[field]
    return dimse.request(
        field,
        message_id,
        sop_class if row.sop_class is not None else None,
        "1.2.3" if row.sop_instance is not None else None,
        has_data_set=row.data_set is dimse.DataSet.ALWAYS,
    )


def test_a_granted_store_passes_as_it_came() -> None:
    made = guard(proposal(CT), {"store"})
    request = command(1, store_rq())
    assert made.outward(request) == Verdict((request,), ends=False)
    first, last = data(1, b"a" * 10, last=False), data(1, b"b")
    assert made.outward(first) == Verdict((first,), ends=False, compressible=True)
    assert made.outward(last) == Verdict((last,), ends=True, compressible=True)


def test_a_store_without_the_service_is_drained_and_answered() -> None:
    made = guard(proposal(CT, uids.STUDY_ROOT_GET, scp=[CT]), {"retrieve"})
    assert made.outward(command(1, store_rq(7))) == Verdict()
    assert made.outward(data(1, last=False)) == Verdict()
    verdict = made.outward(data(1))
    assert refused(verdict) == Status.NOT_AUTHORIZED
    response = read(verdict.reply)
    assert response.command_field == CommandField.C_STORE_RSP
    assert response.message_id_responded_to == 7
    assert (response.sop_class_uid, response.sop_instance_uid) == (CT, "1.2.3")
    assert not response.has_data_set
    # and the association goes on
    assert made.outward(command(3, get_rq(8))).forward


def test_a_command_passes_with_the_group_length_that_it_has() -> None:
    """Who reads as far as a lying one would obey another command than was judged here."""
    made = guard(proposal(uids.STUDY_ROOT_MOVE), {"retrieve"}, {"WS"})
    honest = move_rq("WS").encode()
    lying = honest[:8] + (20).to_bytes(4, "little") + honest[12:]
    assert made.outward(PDV(1, True, True, lying)).forward == (PDV(1, True, True, honest),)


ASKED = st.sampled_from([field for field in CommandField if not field & 0x8000])


@given(
    granted=st.sets(st.sampled_from(sorted(EVERYTHING))),
    asked=st.lists(st.tuples(ASKED, st.sampled_from(range(len(CLASSES))), st.booleans())),
    scp=st.sets(st.sampled_from(CLASSES)),
)
def test_no_command_without_its_service_ever_reaches_the_device(
    granted: set[str], asked: list[tuple[CommandField, int, bool]], scp: set[str]
) -> None:
    request = contexts.granted(proposal(*CLASSES, scp=sorted(scp)), granted)
    made = guard(request, granted, {"ANY"})
    for message_id, (field, index, lies) in enumerate(asked):
        context_id, sop_class = 2 * index + 1, CLASSES[index]
        named = CLASSES[(index + 1) % len(CLASSES)] if lies else sop_class
        command_set = request_for(field, named, message_id)
        if field == CommandField.C_MOVE_RQ:
            command_set = command_set.evolve({dimse.Tag.MOVE_DESTINATION: "ANY"})
        pdv = command(context_id, command_set)
        if context_id not in [context.id for context in request.contexts]:
            with pytest.raises(RemoteProtocolError):
                made.outward(pdv)
            continue
        forwarded = made.outward(pdv).forward
        if command_set.has_data_set:
            assert bool(made.outward(data(context_id)).forward) == bool(forwarded)
        if forwarded:
            assert services.service_of(sop_class) in granted
            if field != CommandField.C_CANCEL_RQ:
                assert services.service_of(named) in granted
            if field == CommandField.C_STORE_RQ and sop_class == CT:
                assert "store" in granted


def test_a_class_that_is_not_the_contexts_is_refused() -> None:
    made = guard(proposal(PRIVATE_CLASS), {f"private:{PRIVATE_CLASS}"})
    made.outward(command(1, store_rq(sop_class=CT)))
    assert refused(made.outward(data(1))) == Status.NOT_AUTHORIZED


def test_two_classes_in_one_command_are_no_way_round() -> None:
    made = guard(proposal(PRIVATE_CLASS), {f"private:{PRIVATE_CLASS}"})
    both = store_rq(sop_class=PRIVATE_CLASS).evolve({dimse.Tag.REQUESTED_SOP_CLASS_UID: CT})
    made.outward(command(1, both))
    assert refused(made.outward(data(1))) == Status.NOT_AUTHORIZED


@pytest.mark.parametrize("behind", [b"\0", b"\0x", b"\\1.2", b"\t", b" \n", b"\xff"])
def test_what_a_device_may_read_as_another_class_is_refused(behind: bytes) -> None:
    """Many read a UID up to the first NUL, or the first of several values."""
    made = guard(proposal(PRIVATE_CLASS), {f"private:{PRIVATE_CLASS}"})
    disguised = store_rq().evolve({dimse.Tag.AFFECTED_SOP_CLASS_UID: CT.encode() + behind})
    made.outward(command(1, disguised))
    assert refused(made.outward(data(1))) == Status.NOT_AUTHORIZED


def get_guard(*answered: RoleSelection, scp: Collection[str] = (CT,)) -> Guard:
    """A C-GET is outstanding; the acceptor has answered these roles."""
    request = proposal(CT, uids.STUDY_ROOT_GET, scp=list(scp))
    made = Guard(request, None, FakeBorder())
    items = tuple(role.encode() for role in answered)
    made.negotiated(attrs.evolve(acceptance(request), user_items=items))
    feed(made, [command(3, get_rq()), data(3)])
    return made


def test_store_comes_back_only_to_who_offered_to_be_its_provider() -> None:
    made = get_guard(scp=())
    made.inward(command(1, store_rq()))
    assert refused(made.inward(data(1))) == Status.NOT_AUTHORIZED


@pytest.mark.parametrize(
    ("answered", "passes"),
    [
        ((RoleSelection(CT, scu=False, scp=True),), True),
        ((), True),  # some archives forget to answer, and store all the same
        ((RoleSelection(CT, scu=True, scp=False),), False),
    ],
)
def test_the_acceptors_answer_about_roles_holds(
    answered: tuple[RoleSelection, ...], passes: bool
) -> None:
    made = get_guard(*answered)
    assert bool(made.inward(command(1, store_rq())).forward) is passes


def test_an_answer_about_roles_that_were_not_offered_gives_none() -> None:
    made = get_guard(RoleSelection(CT, scu=True, scp=True), scp=())
    assert made.inward(command(1, store_rq())) == Verdict()


def test_store_comes_back_only_while_a_get_is_outstanding() -> None:
    made = guard(proposal(CT, uids.STUDY_ROOT_GET, scp=[CT]), None)

    def store_back(message_id: int) -> bool:
        forwarded = made.inward(command(1, store_rq(message_id))).forward
        assert bool(made.inward(data(1)).forward) == bool(forwarded)
        return bool(forwarded)

    assert not store_back(1)
    get = get_rq(5)
    made.outward(command(3, get))
    made.outward(data(3))
    assert store_back(2)
    answered = made.outward(command(1, dimse.response_to(store_rq(2), Status.SUCCESS)))
    assert answered.forward
    assert made.inward(command(3, dimse.response_to(get, Status.PENDING))).forward
    assert store_back(3)
    assert made.inward(command(3, dimse.response_to(get, Status.SUCCESS))).forward
    assert not store_back(4)


UID = "1.2.3.4.5"


def transaction(uid: str = UID, before: bytes = b"") -> bytes:
    """A data set, implicit VR little endian, with a Transaction UID (0008,1195)."""
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return before + b"\x08\x00\x95\x11" + len(value).to_bytes(4, "little") + value


def report_rq(message_id: int = 1) -> CommandSet:
    return dimse.request(
        CommandField.N_EVENT_REPORT_RQ, message_id, COMMIT, "1.2.3", has_data_set=True
    )


def test_a_commitment_is_reported_only_if_its_transaction_is_awaited() -> None:
    made = guard(proposal(COMMIT), None, awaited=[UID])
    for uid, passes in ((UID, True), ("1.2.3.4.6", False), ("../x", False)):
        assert made.inward(command(1, report_rq())) == Verdict()  # not before it is known whose
        verdict = made.inward(data(1, transaction(uid)))
        if passes:
            expected = (command(1, report_rq()), data(1, transaction(uid)))
            assert verdict == Verdict(expected, ends=True)
        else:
            assert refused(verdict) == Status.NOT_AUTHORIZED


def test_a_report_without_a_data_set_is_not_awaited() -> None:
    made = guard(proposal(COMMIT), None, awaited=[UID])
    report = request_for(CommandField.N_EVENT_REPORT_RQ, COMMIT, 1)
    assert refused(made.inward(command(1, report))) == Status.NOT_AUTHORIZED


def test_a_transaction_is_found_byte_by_byte_and_refused_ones_are_drained() -> None:
    before = b"\x08\x00\x54\x00\x04\x00\x00\x00PACS"
    whole = transaction(before=before) + b"\x08\x00\x99\x11" + bytes(4)
    for awaited, passes in (((UID,), True), ((), False)):
        made = guard(proposal(COMMIT), None, awaited=awaited)
        made.inward(command(1, report_rq()))
        verdicts = [
            made.inward(data(1, whole[at : at + 1], last=at == len(whole) - 1))
            for at in range(len(whole))
        ]
        forwarded = b"".join(
            bytes(pdv.fragment) for v in verdicts for pdv in v.forward if not pdv.is_command
        )
        assert forwarded == (whole if passes else b"")
        assert [v.ends for v in verdicts].count(True) == passes
        if not passes:
            assert refused(verdicts[-1]) == Status.NOT_AUTHORIZED
            assert all(v == Verdict() for v in verdicts[:-1])


def test_a_transaction_is_not_looked_for_for_ever() -> None:
    made = guard(proposal(COMMIT), None, awaited=[UID])
    made.inward(command(1, report_rq()))
    long = b"\x08\x00\x05\x00" + (2**31).to_bytes(4, "little")
    made.inward(data(1, long, last=False))
    made.inward(data(1, bytes(MAXIMUM_PREFIX), last=False))
    assert refused(made.inward(data(1))) == Status.NOT_AUTHORIZED


def test_a_commitment_that_is_asked_for_is_noted_by_its_transaction() -> None:
    border = FakeBorder()
    request = proposal(COMMIT)
    made = Guard(request, None, border)
    made.negotiated(acceptance(request))
    asked = dimse.request(CommandField.N_ACTION_RQ, 1, COMMIT, "1.2.3", has_data_set=True)
    made.outward(command(1, asked))
    assert made.outward(data(1, transaction())).forward
    assert border.asked == [UID]


def test_retrieve_ae_titles_of_answers_take_the_other_sides_name() -> None:
    request = proposal(uids.STUDY_ROOT_FIND)
    made = Guard(request, None, FakeBorder(renames=lambda title: f"{title}_B"))
    made.negotiated(acceptance(request))
    feed(made, [command(1, find_rq()), data(1)])
    answer = dimse.response_to(find_rq(), Status.PENDING, has_data_set=True)
    before, after = b"\x08\x00\x52\x00\x02\x00\x00\x00IM", b"\x10\x00\x10\x00" + bytes(4)
    title = b"\x08\x00\x54\x00\x08\x00\x00\x00PACS\\WS "
    renamed = b"\x08\x00\x54\x00\x0c\x00\x00\x00PACS_B\\WS_B "
    assert made.inward(command(1, answer)) == Verdict()
    verdict = made.inward(data(1, before + title + after))
    assert verdict.forward == (command(1, answer), data(1, before + renamed + after))
    assert made.inward(command(1, answer)) == Verdict()
    assert made.inward(data(1, before + after)).forward[1] == data(1, before + after)
    final = dimse.response_to(find_rq(), Status.SUCCESS)
    assert made.inward(command(1, final)).forward == (command(1, final),)


def test_what_is_only_implied_is_the_answer_and_nothing_else() -> None:
    request = proposal(CT, COMMIT, scp=[COMMIT])
    made = Guard(request, (), FakeBorder(awaited=[UID]), implied={"store", "commit"})
    made.negotiated(acceptance(request))
    assert made.outward(command(1, store_rq())).forward
    made.outward(data(1))
    made.outward(command(3, report_rq()))
    assert made.outward(data(3, transaction())).forward
    asked = request_for(CommandField.N_ACTION_RQ, COMMIT, 1)
    assert refused(made.outward(command(3, asked))) == Status.NOT_AUTHORIZED


@pytest.mark.parametrize(
    ("sop_class", "granted", "implied"),
    [
        (CT, {"store"}, False),
        (CT, {"store", "retrieve"}, False),
        (CT, (), True),
        # What many a modality stores beside its images: granted by its class, of no C-MOVE.
        (PRIVATE_CLASS, {f"private:{PRIVATE_CLASS}"}, False),
    ],
)
def test_a_store_that_only_a_move_allows_is_said_to_be(
    sop_class: str, granted: Collection[str], implied: bool
) -> None:
    border = FakeBorder()
    request = proposal(sop_class)
    made = Guard(request, granted, border, implied={"store"} - set(granted))
    made.negotiated(acceptance(request))
    assert made.outward(command(1, store_rq(sop_class=sop_class))).forward
    assert border.implied == [implied]


def test_a_cancel_is_of_a_move_only_where_there_can_be_one() -> None:
    """A C-FIND of the same Message ID is another operation."""

    class Renumbers(FakeBorder):
        def move_cancelled(self, cancel: CommandSet) -> CommandSet:
            return cancel.evolve({dimse.Tag.MESSAGE_ID_BEING_RESPONDED_TO: 0x8000})

    request = proposal(uids.STUDY_ROOT_FIND, uids.STUDY_ROOT_MOVE)
    made = Guard(request, None, Renumbers())
    made.negotiated(acceptance(request))
    cancel = dimse.request(CommandField.C_CANCEL_RQ, 1)
    assert made.outward(command(1, cancel)).forward == (command(1, cancel),)
    (renumbered,) = made.outward(command(3, cancel)).forward
    assert read(renumbered).message_id_responded_to == 0x8000


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, uids.EXPLICIT_VR_LITTLE_ENDIAN])
def test_names_that_do_not_fit_are_left_as_they_are(transfer_syntax: str) -> None:
    """Two bytes of length hold 65534: a device must not be able to break its association so."""
    request = proposal(uids.STUDY_ROOT_FIND, transfer_syntaxes=[transfer_syntax])
    made = Guard(request, None, FakeBorder(renames=lambda title: f"{title}_NORTH"))
    made.negotiated(acceptance(request))
    feed(made, [command(1, find_rq()), data(1)])
    answer = dimse.response_to(find_rq(), Status.PENDING, has_data_set=True)
    for value in (b"A\\" * 30_000, b"caf\xe9"):
        length = len(value).to_bytes(4, "little")
        if transfer_syntax != IMPLICIT:
            length = b"AE" + length[:2]
        titles = b"\x08\x00\x54\x00" + length + value
        made.inward(command(1, answer))
        assert made.inward(data(1, titles)).forward[1] == data(1, titles)


def test_an_answer_is_not_held_for_ever() -> None:
    request = proposal(uids.STUDY_ROOT_FIND)
    made = Guard(request, None, FakeBorder(renames=lambda title: f"{title}_B"))
    made.negotiated(acceptance(request))
    feed(made, [command(1, find_rq()), data(1)])
    answer = dimse.response_to(find_rq(), Status.PENDING, has_data_set=True)
    long = b"\x08\x00\x05\x00" + (2**31).to_bytes(4, "little")
    made.inward(command(1, answer))
    forwarded: list[PDV] = []
    sent = long
    made.inward(data(1, long, last=False))
    while not forwarded:
        assert len(sent) <= 2 * MAXIMUM_PREFIX
        forwarded += made.inward(data(1, bytes(1000), last=False)).forward
        sent += bytes(1000)
    assert forwarded == [command(1, answer), data(1, sent, last=False)]


def test_an_answer_to_a_move_that_nobody_asked_for_is_dropped() -> None:
    made = guard(proposal(uids.STUDY_ROOT_MOVE), None, {"WS"})
    assert made.inward(command(1, dimse.response_to(move_rq("WS"), 0))) == Verdict()


@attrs.define
class LateBorder(FakeBorder):
    """Answers a C-MOVE in its own words, and notes the data set that the holder's answer had."""

    data_sets: list[tuple[bytes, Encoding | None]] = attrs.Factory(list)

    def move_answered(self, response: CommandSet, *, final: bool) -> Crossing:
        async def later(data_set: bytes, encoding: Encoding | None, send: Send) -> None:
            self.data_sets.append((data_set, encoding))
            await send(response.evolve({dimse.Tag.STATUS: Status.PENDING}), b"")
            await send(response, b"failed")

        return Crossing(before=nothing, later=later) if final else Crossing()


async def nothing() -> None:
    pass


async def spoken(verdict: Verdict) -> list[tuple[PDV, bool]]:
    """What goes on in its time, and where messages end."""
    said: list[tuple[PDV, bool]] = []

    async def pass_on(pdv: PDV, ends: bool) -> None:
        said.append((pdv, ends))

    assert verdict.speech is not None
    assert verdict == Verdict(speech=verdict.speech)
    await verdict.speech(pass_on)
    return said


@pytest.mark.parametrize("has_data_set", [True, False])
async def test_an_answer_to_a_move_goes_on_in_the_borders_words(has_data_set: bool) -> None:
    border = LateBorder(destinations={"WS"})
    request = proposal(uids.STUDY_ROOT_MOVE)
    made = Guard(request, None, border)
    made.negotiated(acceptance(request))
    made.outward(command(1, move_rq("WS", 5)))
    answer = dimse.response_to(move_rq("WS", 5), 0xB000, has_data_set=has_data_set)
    verdict = made.inward(command(1, answer))
    if has_data_set:
        assert verdict == Verdict()
        assert made.inward(data(1, b"12", last=False)) == Verdict()
        verdict = made.inward(data(1, b"34"))
    (pending, one), (final, two), (names, three) = await spoken(verdict)
    assert read(pending).status == Status.PENDING
    assert read(final) == answer
    assert names == data(1, b"failed")
    assert (one, two, three) == (True, False, True)
    assert border.data_sets == [(b"1234" if has_data_set else b"", Encoding(explicit_vr=False))]
    # It was answered: a second one has no request.
    assert made.inward(command(1, dimse.response_to(move_rq("WS", 5), 0))) == Verdict()


def test_an_answer_that_is_too_long_goes_on_as_it_is() -> None:
    request = proposal(uids.STUDY_ROOT_MOVE)
    made = Guard(request, None, LateBorder(destinations={"WS"}))
    made.negotiated(acceptance(request))
    made.outward(command(1, move_rq("WS", 5)))
    answer = dimse.response_to(move_rq("WS", 5), 0xB000, has_data_set=True)
    assert made.inward(command(1, answer)) == Verdict()
    long, sent = bytes(256 * 1024), b""
    while not (verdict := made.inward(data(1, long, last=False))).forward:
        sent += long
        assert len(sent) <= 4 * MAXIMUM_IDENTIFIER
    assert verdict.forward == (command(1, answer), data(1, sent + long, last=False))
    assert verdict.before is nothing
    assert made.inward(data(1)).forward == (data(1),)


def test_reports_come_back_on_their_own_contexts_only() -> None:
    made = guard(proposal(MPPS, CT), None)
    report = request_for(CommandField.N_EVENT_REPORT_RQ, MPPS, 1)
    assert made.inward(command(1, report)).forward
    other = request_for(CommandField.N_EVENT_REPORT_RQ, CT, 2)
    assert refused(made.inward(command(3, other))) == Status.NOT_AUTHORIZED


@pytest.mark.parametrize(
    "field", [CommandField.C_FIND_RQ, CommandField.N_ACTION_RQ, CommandField.N_DELETE_RQ]
)
def test_a_device_cannot_ask_its_caller(field: CommandField) -> None:
    made = guard(proposal(COMMIT), None)
    command_set = request_for(field, COMMIT, 1)
    verdict = made.inward(command(1, command_set))
    if command_set.has_data_set:
        verdict = made.inward(data(1))
    assert refused(verdict) == Status.NOT_AUTHORIZED


def test_a_provider_reports_only_in_the_role_that_it_proposed() -> None:
    as_user = guard(proposal(COMMIT), {"commit"}, awaited=[UID])
    as_user.outward(command(1, report_rq()))
    assert refused(as_user.outward(data(1, transaction()))) == Status.NOT_AUTHORIZED
    as_provider = guard(proposal(COMMIT, scp=[COMMIT]), {"commit"}, awaited=[UID])
    as_provider.outward(command(1, report_rq()))
    assert as_provider.outward(data(1, transaction())).forward


def test_a_private_context_carries_anything_both_ways() -> None:
    made = guard(proposal(PRIVATE_CLASS), {f"private:{PRIVATE_CLASS}"})
    assert made.outward(command(1, request_for(CommandField.N_GET_RQ, PRIVATE_CLASS, 1))).forward
    assert made.inward(command(1, request_for(CommandField.N_GET_RQ, PRIVATE_CLASS, 1))).forward


def test_cancel_passes_with_its_query_and_is_dropped_without() -> None:
    cancel = dimse.request(CommandField.C_CANCEL_RQ, 1)
    made = guard(proposal(uids.STUDY_ROOT_FIND, uids.VERIFICATION), {"query", "echo"})
    made.outward(command(1, find_rq(1)))
    made.outward(data(1))
    assert made.outward(command(1, cancel)).forward
    assert made.outward(command(3, cancel)) == Verdict()


def test_a_move_needs_a_destination_that_can_be() -> None:
    made = guard(proposal(uids.STUDY_ROOT_MOVE), {"retrieve"}, {"WS"})
    made.outward(command(1, move_rq("ELSEWHERE")))
    verdict = made.outward(data(1))
    assert refused(verdict) == Status.MOVE_DESTINATION_UNKNOWN
    assert read(verdict.reply).text(dimse.Tag.ERROR_COMMENT) == "RELAY: it is unknown"
    assert made.outward(command(1, move_rq("WS"))).forward
    assert made.outward(data(1)).forward


def test_a_device_that_uses_one_message_id_for_all_gets_all_its_answers() -> None:
    made = guard(proposal(uids.VERIFICATION, uids.STUDY_ROOT_GET, CT, scp=[CT]), None)
    feed(made, [command(3, get_rq(1)), data(3), command(1, echo_rq(1)), command(1, echo_rq(1))])
    for passes in (True, True, False):
        answer = made.inward(command(1, dimse.response_to(echo_rq(1), 0)))
        assert bool(answer.forward) is passes
    assert made.inward(command(5, store_rq(1))) != Verdict()  # the C-GET is outstanding still


def test_unknown_commands_are_refused() -> None:
    made = guard(proposal(CT), {"store"})
    strange = echo_rq(3).evolve({dimse.Tag.COMMAND_FIELD: 0x0555})
    assert refused(made.outward(command(1, strange))) == Status.NOT_AUTHORIZED


def test_only_accepted_contexts_carry_anything() -> None:
    request = proposal(CT, MR)
    made = Guard(request, {"store"}, FakeBorder())
    with pytest.raises(RemoteProtocolError, match="not accepted"):
        made.outward(command(1, store_rq()))
    made.negotiated(acceptance(proposal(CT)))
    with pytest.raises(RemoteProtocolError, match="not accepted"):
        made.outward(command(3, store_rq()))


def feed(made: Guard, pdvs: Iterable[PDV]) -> None:
    for pdv in pdvs:
        made.outward(pdv)


def test_a_move_brings_private_instances_and_no_other_private_command() -> None:
    request = proposal(PRIVATE_CLASS)
    made = Guard(request, (), FakeBorder(), implied={"store"})
    made.negotiated(acceptance(request))
    assert made.outward(command(1, store_rq(1, PRIVATE_CLASS))).forward
    made.outward(data(1))
    other = request_for(CommandField.N_GET_RQ, PRIVATE_CLASS, 2)
    assert refused(made.outward(command(1, other))) == Status.NOT_AUTHORIZED
