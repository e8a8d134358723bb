"""Pairs: the same whether grouped, packed or written by a person; and what nobody may write."""

from itertools import combinations
from typing import Any

import pytest

from relay.dicom import uids
from relay.errors import Refused
from relay.router.pairs import MAXIMUM_DECLARED, Pairs, in_words
from relay.router.storage import STORAGE_SOP_CLASSES
from relay.tunnel.notes import Knowledge, encode
from relay.tunnel.records import MAXIMUM_NOTE
from tests.router.fakes import CT, IMPLICIT, JPEG, MR, PRIVATE_CLASS

PAIRS = Pairs.of([(CT, IMPLICIT), (MR, JPEG), (MR, IMPLICIT), (CT, JPEG), (PRIVATE_CLASS, JPEG)])


def test_one_set_in_all_its_forms() -> None:
    assert list(PAIRS) == [
        (CT, IMPLICIT),
        (CT, JPEG),
        (MR, IMPLICIT),
        (MR, JPEG),
        (PRIVATE_CLASS, JPEG),
    ]
    assert PAIRS.groups() == (((CT, MR), (IMPLICIT, JPEG)), ((PRIVATE_CLASS,), (JPEG,)))
    assert PAIRS == Pairs.of_groups(PAIRS.groups()) == Pairs.unpack(PAIRS.pack())
    assert Pairs.from_json(PAIRS.to_json()) == PAIRS
    assert PAIRS.to_json()[MR] == [IMPLICIT, JPEG]
    assert Pairs.unpack(Pairs().pack()) == Pairs.of([]) == Pairs.from_json(None) == Pairs()


def test_what_is_in_it() -> None:
    assert (MR, JPEG) in PAIRS
    assert (PRIVATE_CLASS, IMPLICIT) not in PAIRS
    assert ("1.2.3", IMPLICIT) not in PAIRS
    assert (len(PAIRS), len(Pairs())) == (3, 0)
    assert PAIRS.only(CT.__eq__) == Pairs.of([(CT, IMPLICIT), (CT, JPEG)])


def test_people_read_names_where_there_are_any() -> None:
    assert in_words((CT, IMPLICIT)) == "CT in Implicit VR Little Endian"
    assert in_words((PRIVATE_CLASS, "1.2.3")) == f"{PRIVATE_CLASS} in 1.2.3"


def test_a_class_in_several_groups_has_the_syntaxes_of_all() -> None:
    assert Pairs.of_groups([((CT, MR), (IMPLICIT,)), ((CT,), (JPEG,))]) == Pairs.of(
        [(CT, IMPLICIT), (CT, JPEG), (MR, IMPLICIT)]
    )


def test_all_that_is_asked_of_a_device_fits_a_note() -> None:
    """Whatever it answers: here of each class another set, which cannot be grouped."""
    syntaxes = frozenset(uids.TRANSFER_SYNTAXES)
    different = (syntaxes.difference(two) for two in combinations(sorted(syntaxes), 2))
    pairs = Pairs(dict(zip(STORAGE_SOP_CLASSES, different, strict=False)))
    assert len(pairs.groups()) == len(STORAGE_SOP_CLASSES)
    assert len(encode(Knowledge(1, 1, 1, 1, True, pairs.groups())).payload) < MAXIMUM_NOTE


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "no object"),
        ({"CT": [IMPLICIT]}, "no SOP class: 'CT'"),
        ({uids.STUDY_ROOT_FIND: [IMPLICIT]}, "not of Storage"),
        ({CT: IMPLICIT}, "no list"),
        ({CT: []}, "no list"),
        ({CT: [1]}, "no transfer syntax: '1'"),
        ({CT: [f"1.{n}" for n in range(65)]}, "1 to 64"),
        ({f"1.{n}": [IMPLICIT] for n in range(513)}, "at most 512"),
    ],
)
def test_what_nobody_may_declare(value: Any, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        Pairs.from_json(value)
    assert caught.value.status == 400


def test_what_could_not_be_told_cannot_be_declared() -> None:
    def declared(number: int) -> list[str]:
        return [f"1.2.{number}.{syntax}.{'1' * 50}" for syntax in range(60)]

    with pytest.raises(Refused, match=f"{MAXIMUM_DECLARED} bytes"):
        Pairs.from_json({f"1.3.{number}": declared(number) for number in range(30)})


def test_storage_commitment_may_be_declared() -> None:
    commitment = {uids.STORAGE_COMMITMENT_PUSH_MODEL: [IMPLICIT]}
    assert Pairs.from_json(commitment).to_json() == commitment
