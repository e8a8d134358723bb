"""Passwords: which are taken, how they are kept, and that checking them is bounded."""

import threading

import pytest
import trio
import trio.testing

from relay.errors import Refused
from relay.people import passwords as module
from relay.people.passwords import AT_ONCE, WAITING, Busy, Cost, Passwords, check_new
from tests.people.conftest import CHEAP, PASSWORD


async def test_a_hash_is_of_one_password_alone() -> None:
    passwords = Passwords(CHEAP)
    kept = await passwords.hash(PASSWORD)
    assert kept.startswith("$argon2id$")
    assert PASSWORD not in kept
    assert kept != await passwords.hash(PASSWORD)
    assert await passwords.check(kept, PASSWORD)
    assert not await passwords.check(kept, PASSWORD + " ")
    assert not await passwords.check(None, PASSWORD)
    assert not await passwords.check(None, "nobody's password")
    assert not await passwords.check("no hash", PASSWORD)
    passwords.close()


async def test_the_same_characters_of_another_keyboard_hold() -> None:
    passwords = Passwords(CHEAP)
    kept = await passwords.hash("zwölf Boxkämpfer")
    assert await passwords.check(kept, "zwo\u0308lf Boxka\u0308mpfer")
    passwords.close()


async def test_another_cost_makes_a_hash_outdated() -> None:
    passwords, dearer = Passwords(CHEAP), Passwords(Cost(passes=2, memory=16))
    kept = await passwords.hash(PASSWORD)
    assert not passwords.is_outdated(kept)
    assert dearer.is_outdated(kept)
    assert await dearer.check(kept, PASSWORD)
    passwords.close()
    dearer.close()


def test_the_cost_is_one_that_rfc_9106_recommends() -> None:
    assert (Cost().passes, Cost().memory) == (3, 64 * 1024)


async def test_two_at_once_some_wait_and_the_rest_are_told_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passwords = Passwords(CHEAP)
    go_on, running, most = threading.Event(), [0], [0]

    def verify(kept: str | None, password: str) -> bool:
        running[0] += 1
        most[0] = max(most[0], running[0])
        go_on.wait(5)
        running[0] -= 1
        return True

    monkeypatch.setattr(passwords, "_verify", verify)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE + WAITING):
                nursery.start_soon(passwords.check, None, "x")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Busy) as busy:
                await passwords.check(None, "x")
            with pytest.raises(Busy):
                passwords.check_room()
            go_on.set()
    assert (busy.value.status, busy.value.seconds > 0) == (503, True)
    assert most[0] <= AT_ONCE == 2
    passwords.check_room()
    passwords.close()


@pytest.mark.parametrize(
    "password", [PASSWORD, "山" * 4 + "田太郎さんのです", "a b c d e f g", "Ada likes her engine"]
)
def test_what_is_taken(password: str) -> None:
    check_new(password, "Ada")


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("", "at least 12"),
        ("eleven char", "at least 12"),
        ("x" * 257, "at most 256"),
        ("administrator", "tried first"),
        ("PasswordPassword", "tried first"),
        ("ababababababab", "tried first"),
        ("Ada Lovelace 1", "the name itself"),
    ],
)
def test_what_is_not(password: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        check_new(password, "ada lovelace")
    assert refused.value.status == 400


def test_what_is_common_is_long_enough_to_be_asked_for() -> None:
    assert all(len(word) >= module.MINIMUM_LENGTH for word in module._COMMON)
