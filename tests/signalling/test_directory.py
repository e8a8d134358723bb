"""The directory, cut into messages: nothing lost, each small enough."""

from hypothesis import given
from hypothesis import strategies as st

from relay.signalling.directory import ConnectedRow, directory_parts
from relay.signalling.messages import (
    MAXIMUM_MESSAGE,
    MAXIMUM_STATEMENT,
    Directory,
    decode,
    encode,
)

ROUTERS = st.lists(
    st.tuples(
        st.binary(min_size=32, max_size=32),
        st.text(max_size=64),
        st.binary(max_size=99),
        st.booleans(),
    ),
    max_size=200,
)


def test_a_snapshot_of_nothing_is_one_message_and_a_change_of_nothing_none() -> None:
    assert list(directory_parts(whole=True)) == [Directory(True, (), (), (), ())]
    assert list(directory_parts(whole=False)) == []


@given(
    st.booleans(),
    ROUTERS,
    st.lists(st.binary(max_size=99), max_size=200),
    st.lists(st.binary(min_size=32, max_size=32), max_size=70),
    st.lists(st.text(max_size=16), max_size=70),
)
def test_all_rows_are_there_once_and_only_the_first_part_begins_anew(
    whole: bool,
    routers: list[ConnectedRow],
    publications: list[bytes],
    gone_routers: list[bytes],
    gone_titles: list[str],
) -> None:
    parts = list(
        directory_parts(
            whole=whole,
            routers=routers,
            publications=publications,
            gone_routers=gone_routers,
            gone_titles=gone_titles,
        )
    )
    assert [part.whole for part in parts] == [whole, *[False] * (len(parts) - 1)][: len(parts)]
    assert [row for part in parts for row in part.routers] == routers
    assert [row for part in parts for row in part.publications] == publications
    assert [row for part in parts for row in part.gone_routers] == gone_routers
    assert [row for part in parts for row in part.gone_titles] == gone_titles
    assert [decode(encode(part)) for part in parts] == parts


def test_the_largest_rows_still_fit_a_message() -> None:
    statement = bytes(MAXIMUM_STATEMENT)
    routers = [(bytes([n]) * 32, "é" * 64, statement, True) for n in range(200)]
    parts = list(directory_parts(whole=True, routers=routers, publications=[statement] * 300))
    assert all(len(encode(part)) <= MAXIMUM_MESSAGE for part in parts)
    assert [decode(encode(part)) for part in parts] == parts
    assert len(parts) < 15


def test_a_long_name_is_cut() -> None:
    (part,) = directory_parts(whole=False, routers=[(bytes(32), "x" * 100, b"", False)])
    assert part.routers[0][1] == "x" * 64
