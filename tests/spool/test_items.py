"""What items say of themselves."""

import json

import pytest

from relay.spool.items import KEPT, Hold, State
from tests.spool.rows import CT, IMPLICIT, an_item


def test_states_are_called_what_people_call_them() -> None:
    assert [state.word for state in State] == [
        "waiting", "held", "failed", "delivered", "discarded",
    ]  # fmt: skip


def test_the_kept_are_those_below_delivered() -> None:
    """So the indexes of relay.spool.schema have them."""
    assert set(KEPT) == {state for state in State if state < 4}


@pytest.mark.parametrize(
    ("attempts", "doubtful", "attempted"),
    [(0, False, False), (1, False, True), (0, True, True), (2, True, True)],
)
def test_what_may_have_been_sent_is_attempted(
    attempts: int, doubtful: bool, attempted: bool
) -> None:
    assert an_item(attempts=attempts, doubtful=doubtful).attempted is attempted


def test_its_pair_and_its_file_are_its_own() -> None:
    item = an_item(folder=0x1F, size=117)
    assert item.pair == (CT, IMPLICIT)
    stored = item.stored
    assert stored.name == f"0000001f/{item.id.hex()}"
    assert (stored.item, stored.length, stored.size) == (item.id, item.length, 117)
    assert (stored.digest, stored.key, stored.key_name) == (item.digest, item.key, item.key_name)


def test_people_get_no_key_and_no_command() -> None:
    item = an_item(state=State.HELD, hold=Hold.NOT_ACCEPTED, status=0xA700, due=5.0)
    shown = json.loads(json.dumps(item.to_json()))
    assert shown["state"] == "held"
    assert shown["hold"] == "not_accepted"
    assert shown["status"] == "A700"
    assert shown["id"] == item.id.hex()
    assert not {"key", "key_name", "command", "digest"} & set(shown)
    plain = an_item().to_json()
    assert (plain["hold"], plain["status"], plain["due"], plain["ended"]) == (None,) * 4


def test_a_log_line_of_an_item_names_no_patients_objects() -> None:
    item = an_item(sop_instance="1.2.999", study="1.2.888", command=b"patient")
    for hidden in ("1.2.999", "1.2.888", "patient", "wrapped"):
        assert hidden not in repr(item)
