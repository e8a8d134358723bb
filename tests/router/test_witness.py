"""What passes is seen: objects by outcome and direction, queries, and what is refused."""

from collections.abc import Callable

import pytest

from relay.dicom import dimse, uids
from relay.dicom.commandset import CommandSet
from relay.dicom.dimse import CommandField, Status, Tag
from relay.dicom.pdu import PDV, AAssociateAC, ContextResult, PresentationContextResult
from relay.router.direction import Verdict
from relay.router.witness import MAXIMUM_IDENTIFIER, NAMED, Asked, Watching, Witness

CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = uids.STUDY_ROOT_FIND
IMPLICIT = "1.2.840.10008.1.2"


class FakeGuard:
    """Lets commands pass as they are, or refuses the next."""

    def __init__(self) -> None:
        self.refuses = False
        self._reader = dimse.CommandReader()

    def negotiated(self, answer: AAssociateAC) -> None:
        pass

    def _judge(self, pdv: PDV) -> Verdict:
        command = self._reader.feed(pdv)
        if self.refuses:
            self.refuses = False
            return Verdict(reply=pdv)
        return Verdict((pdv,), command=command if pdv.is_command else None)

    outward = _judge
    inward = _judge


def store(message_id: int, instance: str = "1.2.3") -> CommandSet:
    return CommandSet.build(
        {
            Tag.AFFECTED_SOP_CLASS_UID: CT,
            Tag.COMMAND_FIELD: CommandField.C_STORE_RQ,
            Tag.MESSAGE_ID: message_id,
            Tag.COMMAND_DATA_SET_TYPE: 1,
            Tag.AFFECTED_SOP_INSTANCE_UID: instance,
        }
    )


def stored(message_id: int, status: int = Status.SUCCESS) -> CommandSet:
    return CommandSet.build(
        {
            Tag.COMMAND_FIELD: CommandField.C_STORE_RSP,
            Tag.MESSAGE_ID_BEING_RESPONDED_TO: message_id,
            Tag.COMMAND_DATA_SET_TYPE: 0x0101,
            Tag.STATUS: status,
        }
    )


def find(message_id: int = 1) -> CommandSet:
    return CommandSet.build(
        {
            Tag.AFFECTED_SOP_CLASS_UID: FIND,
            Tag.COMMAND_FIELD: CommandField.C_FIND_RQ,
            Tag.MESSAGE_ID: message_id,
            Tag.COMMAND_DATA_SET_TYPE: 1,
        }
    )


def say(way: Callable[[PDV], Verdict], command: CommandSet, *data: bytes) -> None:
    way(PDV(1, True, True, command.encode()))
    for number, fragment in enumerate(data, start=1):
        way(PDV(1, False, number == len(data), fragment))


class Heard:
    """A witness and what it told."""

    def __init__(self) -> None:
        self.guard = FakeGuard()
        self.witness = Witness()
        self.watching: Watching = self.witness.watch(self.guard)
        answer = AAssociateAC(
            "A", "B", (PresentationContextResult(1, ContextResult.ACCEPTANCE, IMPLICIT),)
        )
        self.watching.negotiated(answer)
        self.began: list[tuple[bool, str, str, str]] = []
        self.asked: list[Asked] = []
        self.ended: list[tuple[bool, str, dict[str, int], dict[str, int], str]] = []
        self.witness.began = lambda *said: self.began.append(said)
        self.witness.asked = self.asked.append
        self.witness.ended = self._over

    def _over(self, witness: Witness) -> None:
        for inward, study, tally in witness.tallies():
            counts = [{k: s.count for k, s in t.items()} for t in (tally.stored, tally.failed)]
            self.ended.append((inward, study, *counts, tally.why))


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_objects_are_counted_by_outcome(heard: Heard) -> None:
    for number, status in enumerate([0, 0xB000, 0xA700, 0xC001], start=1):
        say(heard.watching.outward, store(number), b"xx", b"yy")
        say(heard.watching.inward, stored(number, status))
    heard.witness.close()
    assert heard.began == [(False, "", CT, "1.2.3")]
    assert heard.ended == [(False, "", {CT: 2}, {CT: 2}, "A700H")]


def test_what_was_not_answered_was_not_stored(heard: Heard) -> None:
    say(heard.watching.outward, store(1), b"xx")
    heard.witness.close()
    assert heard.ended == [(False, "", {}, {CT: 1}, "not answered")]


def test_objects_of_a_c_get_go_the_other_way(heard: Heard) -> None:
    say(heard.watching.inward, store(1), b"xx")
    say(heard.watching.outward, stored(1))
    heard.witness.close()
    assert heard.ended == [(True, "", {CT: 1}, {}, "")]


def test_both_ways_at_once_are_kept_apart(heard: Heard) -> None:
    say(heard.watching.inward, store(1), b"xx")
    say(heard.watching.outward, store(1), b"xx")
    say(heard.watching.outward, stored(1, 0xA700))
    say(heard.watching.inward, stored(1))
    heard.witness.close()
    assert heard.ended == [
        (True, "", {}, {CT: 1}, "A700H"),
        (False, "", {CT: 1}, {}, ""),
    ]


def test_an_answer_to_nothing_counts_for_nothing(heard: Heard) -> None:
    say(heard.watching.inward, stored(7))
    heard.witness.close()
    assert heard.ended == []


def test_a_query_is_told_with_its_identifier(heard: Heard) -> None:
    say(heard.watching.outward, find(), b"ab", b"cd")
    say(heard.watching.outward, store(2), b"not this")
    assert heard.asked == [Asked(FIND, b"abcd", IMPLICIT)]


def test_a_query_that_is_too_long_is_told_without_it(heard: Heard) -> None:
    say(heard.watching.outward, find(), *[bytes(1024)] * (MAXIMUM_IDENTIFIER // 1024 + 9))
    assert heard.asked == [Asked(FIND, b"", IMPLICIT)]


def test_what_is_refused_is_counted_and_no_object(heard: Heard) -> None:
    heard.guard.refuses = True
    say(heard.watching.outward, store(1), b"xx")
    heard.guard.refuses = True
    say(heard.watching.inward, find(), b"xx")
    assert heard.witness.denied == 2
    heard.witness.close()
    assert heard.began == heard.ended == []
    assert heard.asked == []


def test_instances_are_named_where_their_study_is_not_known() -> None:
    witness, told = Witness(), []
    witness.ended = lambda seen: told.extend(
        (study, tally.stored[CT].count, len(tally.stored[CT].uids))
        for _, study, tally in seen.tallies()
    )
    for number in range(1000):
        witness.over("", CT, f"1.2.{number}")
        witness.over("1.9", CT, f"1.2.{number}")
    witness.close()
    assert told == [("", 1000, NAMED), ("1.9", 1000, 0)]


def test_a_study_begins_once() -> None:
    witness, began = Witness(), []
    witness.began = lambda *said: began.append(said)
    for study in ("1.1", "1.2", "1.1"):
        witness.begins(study, CT, "1.2.3")
        witness.over(study, CT, "1.2.3")
    assert [study for _, study, _, _ in began] == ["1.1", "1.2"]
