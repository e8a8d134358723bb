"""The directory cut into messages, nothing lost, each small enough; what is granted in one."""

from hypothesis import given
from hypothesis import strategies as st

from relay.signalling.directory import (
    ConnectedRow,
    ListedRow,
    directory_parts,
    granted_message,
    listing_parts,
)
from relay.signalling.messages import (
    MAXIMUM_GRANTED,
    MAXIMUM_MESSAGE,
    MAXIMUM_PUBLICATIONS,
    MAXIMUM_SERVICES,
    MAXIMUM_STATEMENT,
    Directory,
    Granted,
    Listing,
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


@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.binary(min_size=32, max_size=32),
            st.text(max_size=64),
            st.lists(
                st.tuples(
                    st.text(max_size=16), st.lists(st.text(max_size=9), max_size=3).map(tuple)
                ),
                max_size=9,
            ).map(tuple),
        ),
        max_size=30,
    ),
)
def test_all_listed_are_there_once_and_only_the_first_part_begins_anew(
    whole: bool, routers: list[ListedRow]
) -> None:
    parts = list(listing_parts(whole=whole, routers=routers))
    assert [row for part in parts for row in part.routers] == routers
    assert [part.whole for part in parts] == [whole, *[False] * (len(parts) - 1)][: len(parts)]
    assert [decode(encode(part)) for part in parts] == parts


def test_a_listing_of_nothing() -> None:
    assert list(listing_parts(whole=True, routers=[])) == [Listing(True, ())]
    assert list(listing_parts(whole=False, routers=[])) == []


def test_a_listing_of_thousands_is_a_few_messages() -> None:
    services = ("echo", "store", "query", "retrieve")
    titles = tuple((f"TITLE{n}", services) for n in range(4))
    routers = [(n.to_bytes(32, "big"), f"Hospital {n}", titles) for n in range(5000)]
    parts = list(listing_parts(whole=True, routers=routers))
    assert [row for part in parts for row in part.routers] == routers
    assert all(len(encode(part)) <= MAXIMUM_MESSAGE for part in parts)
    assert len(parts) < 10


def test_who_fills_a_message_alone_is_listed_with_what_fits() -> None:
    services = tuple(f"private:1.{n}.{'1' * 60}" for n in range(MAXIMUM_SERVICES + 1))
    titles = tuple(("é" * 16, services) for _ in range(MAXIMUM_PUBLICATIONS))
    first, second = listing_parts(
        whole=True, routers=[(bytes(32), "é" * 100, titles), (bytes(32), "b", titles[:1])]
    )
    ((_, name, taken),) = first.routers
    assert name == "é" * 64
    assert 0 < len(taken) < MAXIMUM_PUBLICATIONS
    assert len(taken[0][1]) == MAXIMUM_SERVICES
    assert second.routers[0][1] == "b"
    for part in (first, second):
        assert len(encode(part)) <= MAXIMUM_MESSAGE
        assert decode(encode(part)) == part


def test_what_is_granted_is_one_message() -> None:
    rows = [(bytes([n]) * 32, f"PACS{n}", ("echo", "store")) for n in range(3)]
    assert granted_message([]) == Granted((), 0)
    assert granted_message(rows) == Granted(tuple(rows), 0)


def test_what_finds_no_room_among_what_is_granted_is_counted() -> None:
    short = [(bytes(32), "PACS", ("echo",))] * (MAXIMUM_GRANTED + 7)
    message = granted_message(short)
    assert (len(message.rows), message.left_out) == (MAXIMUM_GRANTED, 7)
    services = tuple(f"private:1.{n}.{'1' * 60}" for n in range(MAXIMUM_SERVICES + 1))
    long = [(bytes(32), "x" * 16, services)] * 100
    message = granted_message(long)
    assert 0 < len(message.rows) == 100 - message.left_out < 100
    for whole in (granted_message(short), message):
        assert len(encode(whole)) <= MAXIMUM_MESSAGE
        assert decode(encode(whole)) == whole


def test_who_grants_much_leaves_room_for_the_others() -> None:
    owner, other = bytes(32), bytes([1]) * 32
    many = [(owner, "A", ("echo",))] * MAXIMUM_GRANTED
    message = granted_message([*many, (other, "PACS", ("store",)), (other, "WS", ("store",))])
    assert [title for by, title, _ in message.rows if by == other] == ["PACS", "WS"]
    assert message.left_out == 2
