"""Coming in: by password, by link, and what ends it."""

import pytest
import trio

from relay.database import Database
from relay.errors import Refused
from relay.people.delays import Delayed
from relay.people.passwords import AT_ONCE, WAITING, Busy, Cost, Passwords
from relay.people.people import Act, Authentication, People
from relay.people.roles import Role
from tests.people.conftest import CHEAP, PASSWORD, Clock

HERE = ("10.0.0.1", "Firefox")


@pytest.fixture
async def ada(people: People) -> People:
    """People with Ada, an administrator, who has PASSWORD."""
    await people.add("Ada", Role.ADMINISTRATOR, PASSWORD)
    return people


async def refused(people: People, name: str, password: str, address: str = "a") -> Refused:
    with pytest.raises(Refused) as raised:
        await people.sign_in(name, password, address, "")
    return raised.value


async def test_name_and_password_sign_in(ada: People) -> None:
    secret = await ada.sign_in("ADA", PASSWORD, *HERE)
    sign_in = ada.sign_ins.find(secret)
    assert sign_in is not None
    assert (sign_in.person, sign_in.address, sign_in.agent) == ("Ada", *HERE)
    await ada.sign_out(sign_in)
    assert ada.sign_ins.find(secret) is None


async def test_nobody_learns_who_is_here(ada: People) -> None:
    """A wrong password, a name of nobody, and a person without a password: the same answer."""
    await ada.add("Bob", Role.VIEWER)
    answers = {
        (error.status, str(error))
        for error in (
            await refused(ada, "Ada", "wrong", "a"),
            await refused(ada, "Nobody", PASSWORD, "b"),
            await refused(ada, "Bob", "", "c"),
        )
    }
    assert answers == {(403, "name or password is wrong")}


async def test_a_name_of_nobody_costs_as_much_as_one_of_somebody(
    ada: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    check = ada.passwords.check

    async def watched(kept: str | None, password: str) -> bool:
        checked.append(kept)
        return await check(kept, password)

    monkeypatch.setattr(ada.passwords, "check", watched)
    await refused(ada, "Nobody", "x")
    assert checked == [None]


async def test_failures_delay_what_follows(ada: People, autojump_clock: object) -> None:
    for _ in range(3):
        assert (await refused(ada, "Ada", "wrong")).status == 403
    delayed = await refused(ada, "Ada", PASSWORD)
    assert isinstance(delayed, Delayed)
    assert delayed.status == 429
    await trio.sleep(delayed.seconds)
    await ada.sign_in("Ada", PASSWORD, "a", "")
    # ... and what holds is a new beginning.
    assert (await refused(ada, "Ada", "wrong")).status == 403


async def test_many_at_once_do_not_pass_the_delays_together(ada: People) -> None:
    statuses = []

    async def attempt() -> None:
        statuses.append((await refused(ada, "Ada", "wrong")).status)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(attempt)
    assert statuses.count(403) == 3
    assert statuses.count(429) == 3


async def test_who_finds_no_room_has_not_failed(
    ada: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ada.passwords, "_asked", AT_ONCE + WAITING)
    for _ in range(5):
        assert isinstance(await refused(ada, "Ada", PASSWORD), Busy)
    monkeypatch.setattr(ada.passwords, "_asked", 0)
    await ada.sign_in("Ada", PASSWORD, "a", "")


async def test_a_password_that_was_changed_meanwhile_does_not_hold(
    ada: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = ada.passwords.check

    async def slow(kept: str | None, password: str) -> bool:
        holds = await check(kept, password)
        await ada.set_password("Ada", "another one entirely")
        return holds

    monkeypatch.setattr(ada.passwords, "check", slow)
    assert (await refused(ada, "Ada", PASSWORD)).status == 403


async def test_a_hash_of_another_cost_is_made_anew(database: Database, ada: People) -> None:
    dearer = Passwords(Cost(passes=2, memory=16))
    again = await People.load(database, passwords=dearer, clock=ada.clock)
    before = again.persons.get("Ada").password
    await again.sign_in("Ada", PASSWORD, *HERE)
    after = again.persons.get("Ada").password
    assert after is not None
    assert after != before
    assert not dearer.is_outdated(after)
    await again.sign_in("Ada", PASSWORD, *HERE)
    again.close()


async def test_what_ends_a_persons_sign_ins(ada: People) -> None:
    await ada.add("Bob", Role.ADMINISTRATOR, PASSWORD)
    for act in (
        lambda: ada.set_password("Ada", PASSWORD),
        lambda: ada.change_role("Ada", Role.OPERATOR),
        lambda: ada.remove("Ada"),
    ):
        secret = await ada.sign_in("Ada", PASSWORD, *HERE)
        other = await ada.sign_in("Bob", PASSWORD, *HERE)
        await act()
        assert ada.sign_ins.find(secret) is None
        assert ada.sign_ins.find(other) is not None


async def test_ones_own_password(ada: People, autojump_clock: object) -> None:
    here, there = [await ada.sign_in("Ada", PASSWORD, *HERE) for _ in range(2)]
    sign_in = ada.sign_ins.find(here)
    assert sign_in is not None
    with pytest.raises(Refused, match="present password"):
        await ada.change_own_password(sign_in, "wrong", "another one entirely")
    with pytest.raises(Refused, match="at least 12"):
        await ada.change_own_password(sign_in, PASSWORD, "short")
    await ada.change_own_password(sign_in, PASSWORD, "another one entirely")
    assert ada.sign_ins.find(here) is not None
    assert ada.sign_ins.find(there) is None
    await ada.sign_in("Ada", "another one entirely", *HERE)
    # Whoever sits down at an open browser cannot try them, either.
    for _ in range(3):
        with pytest.raises(Refused, match="present password"):
            await ada.change_own_password(sign_in, "wrong", PASSWORD)
    with pytest.raises(Delayed):
        await ada.change_own_password(sign_in, "wrong", PASSWORD)


# --- one-time links ------------------------------------------------------------------------------


async def test_the_first_link_makes_an_administrator_once(people: People) -> None:
    assert people.is_empty
    code = people.first_code()
    assert people.opened_by(code) == ""
    secret = await people.open(code, "Ada", PASSWORD, *HERE)
    assert people.sign_ins.find(secret) is not None
    assert people.persons.get("Ada").role is Role.ADMINISTRATOR
    assert not people.is_empty
    with pytest.raises(Refused, match="does not hold") as used:
        await people.open(code, "Eve", PASSWORD, *HERE)
    assert used.value.status == 403
    with pytest.raises(Refused, match="people already"):
        people.first_code()


@pytest.mark.parametrize(
    ("name", "password"), [("", PASSWORD), ("Ada", "short"), ("a\nb", PASSWORD)]
)
async def test_a_mistake_does_not_use_it_up(people: People, name: str, password: str) -> None:
    code = people.first_code()
    with pytest.raises(Refused) as refused:
        await people.open(code, name, password, *HERE)
    assert refused.value.status == 400
    await people.open(code, "Ada", PASSWORD, *HERE)


async def test_of_two_who_open_it_at_once_one_comes_in(people: People) -> None:
    code = people.first_code()
    outcomes = []

    async def come(name: str) -> None:
        try:
            await people.open(code, name, PASSWORD, *HERE)
        except Refused as refused:
            outcomes.append(refused.status)
        else:
            outcomes.append(200)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come, "Ada")
        nursery.start_soon(come, "Eve")
    assert sorted(outcomes) == [200, 403]
    assert len(people.persons) == 1


async def test_the_first_link_is_for_who_was_added_and_has_no_password(people: People) -> None:
    await people.add("Ada", Role.VIEWER)
    await people.open(people.first_code(), "ada", PASSWORD, *HERE)
    assert people.persons.get("Ada").role is Role.ADMINISTRATOR


async def test_a_persons_link_sets_the_password_and_ends_what_was_before(ada: People) -> None:
    secret = await ada.sign_in("Ada", PASSWORD, *HERE)
    code = await ada.link_code("ada")
    assert ada.opened_by(code) == "Ada"
    fresh = await ada.open(code, "Eve", "another one entirely", *HERE)
    assert ada.sign_ins.find(secret) is None
    sign_in = ada.sign_ins.find(fresh)
    assert sign_in is not None
    assert sign_in.person == "Ada"
    assert (await refused(ada, "Ada", PASSWORD)).status == 403
    with pytest.raises(Refused, match="does not hold"):
        ada.opened_by(code)


async def test_a_link_is_void_once_its_person_has_a_password_or_is_gone(ada: People) -> None:
    await ada.add("Bob", Role.VIEWER)
    code = await ada.link_code("Bob")
    await ada.set_password("Bob", "another one entirely")
    with pytest.raises(Refused):
        ada.opened_by(code)
    code = await ada.link_code("Bob")
    await ada.remove("Bob")
    with pytest.raises(Refused):
        ada.opened_by(code)


# --- what others hear ----------------------------------------------------------------------------


async def test_every_coming_and_going_is_heard(ada: People) -> None:
    heard: list[Authentication] = []
    ada.heard = heard.append
    await refused(ada, "Eve" * 100, "wrong", "10.0.0.9")
    secret = await ada.sign_in("Ada", PASSWORD, *HERE)
    sign_in = ada.sign_ins.find(secret)
    assert sign_in is not None
    await ada.sign_out(sign_in)
    assert [(a.act, a.name[:3], a.address, a.refused) for a in heard] == [
        (Act.SIGN_IN, "Eve", "10.0.0.9", "name or password is wrong"),
        (Act.SIGN_IN, "Ada", HERE[0], ""),
        (Act.SIGN_OUT, "Ada", HERE[0], ""),
    ]
    assert len(heard[0].name) <= 64


async def test_what_is_refused_otherwise_is_heard_too(ada: People) -> None:
    heard: list[Authentication] = []
    ada.heard = heard.append
    for _ in range(4):
        await refused(ada, "Ada", "wrong", "10.0.0.9")
    with pytest.raises(Refused):
        await ada.token("Bearer relay_api_x", "10.0.0.8")
    with pytest.raises(Refused):
        await ada.open("no code", "Eve", PASSWORD, "10.0.0.7", "")
    assert [(a.name, a.address, bool(a.refused)) for a in heard[3:]] == [
        ("Ada", "10.0.0.9", True),
        ("API token", "10.0.0.8", True),
        ("one-time link", "10.0.0.7", True),
    ]
    assert "too early" in heard[3].refused


async def test_a_password_that_somebody_chooses_is_heard(ada: People) -> None:
    heard: list[Authentication] = []
    ada.heard = heard.append
    await ada.add("Bob", Role.VIEWER)
    secret = await ada.open(await ada.link_code("Bob"), "", PASSWORD, *HERE)
    sign_in = ada.sign_ins.find(secret)
    assert sign_in is not None
    with pytest.raises(Refused, match="present password"):
        await ada.change_own_password(sign_in, "wrong", "another one entirely")
    await ada.change_own_password(sign_in, PASSWORD, "another one entirely")
    assert [(a.act, a.name, bool(a.refused)) for a in heard] == [
        (Act.PASSWORD, "Bob", False),
        (Act.SIGN_IN, "Bob", False),
        (Act.SIGN_IN, "Bob", True),
        (Act.PASSWORD, "Bob", False),
    ]


async def test_who_is_let_in_while_the_password_changes_is_not(
    ada: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of a sign-in is written while its person is removed, or has another password."""
    begin = ada.sign_ins.begin

    async def slow(*given: str) -> str:
        await ada.set_password("Ada", "another one entirely")
        return await begin(*given)

    monkeypatch.setattr(ada.sign_ins, "begin", slow)
    with pytest.raises(Refused, match="sign in again"):
        await ada.sign_in("Ada", PASSWORD, *HERE)
    assert list(ada.sign_ins.of("Ada")) == []


async def test_a_password_is_not_changed_by_a_sign_in_that_ended_meanwhile(
    ada: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in = ada.sign_ins.find(await ada.sign_in("Ada", PASSWORD, *HERE))
    assert sign_in is not None
    check = ada.passwords.check

    async def slow(kept: str | None, password: str) -> bool:
        held = await check(kept, password)
        await ada.set_password("Ada", "an administrator's own")
        return held

    monkeypatch.setattr(ada.passwords, "check", slow)
    with pytest.raises(Refused, match="sign in again"):
        await ada.change_own_password(sign_in, PASSWORD, "a thief's own password")
    monkeypatch.undo()
    assert await ada.sign_in("Ada", "an administrator's own", *HERE)


async def test_no_secret_is_in_a_log(
    database: Database, clock: Clock, logs: list[dict[str, object]]
) -> None:
    people = await People.load(database, passwords=Passwords(CHEAP), clock=clock)
    code = people.first_code()
    secret = await people.open(code, "Ada", PASSWORD, *HERE)
    await refused(people, "Ada", "a wrong password")
    await people.set_password("Ada", "another one entirely")
    link = await people.link_code("Ada")
    token = await people.tokens.add("prometheus", Role.VIEWER)
    people.close()
    assert logs
    for hidden in (code, secret, PASSWORD, "a wrong password", "another one", link, token):
        assert hidden not in str(logs)


async def test_a_hash_made_anew_undoes_no_change_of_the_password(
    database: Database, clock: Clock, ada: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = await People.load(
        database, passwords=Passwords(Cost(passes=2, memory=8, lanes=1)), clock=clock
    )
    make = people.passwords.hash

    async def slow(password: str) -> str:
        kept = await make(password)
        monkeypatch.undo()
        await people.set_password("Ada", "an administrator's own")
        return kept

    monkeypatch.setattr(people.passwords, "hash", slow)
    with pytest.raises(Refused):
        await people.sign_in("Ada", PASSWORD, *HERE)
    assert await people.sign_in("Ada", "an administrator's own", *HERE)
    people.close()
