"""Sign-ins: they end when they should, and of their secret a digest is kept."""

from pathlib import Path

import pytest

from relay.database import Database
from relay.people.persons import Persons
from relay.people.roles import Role
from relay.people.sign_ins import IDLE, LIFE, MAXIMUM_OF_ONE, NOTE_EVERY, SignIn, SignIns
from tests.people.conftest import NOW, Clock


@pytest.fixture
async def sign_ins(database: Database, clock: Clock) -> SignIns:
    persons = await Persons.load(database)
    await persons.add("Ada", Role.VIEWER, None, 0)
    await persons.add("Bob", Role.VIEWER, None, 0)
    return await SignIns.load(database, clock)


def found(sign_ins: SignIns, secret: str) -> SignIn:
    sign_in = sign_ins.find(secret)
    assert sign_in is not None
    return sign_in


async def test_it_is_found_by_its_secret_alone(
    database: Database, sign_ins: SignIns, clock: Clock, tmp_path: Path
) -> None:
    secret = await sign_ins.begin("Ada", "10.0.0.1", "Firefox" * 100)
    sign_in = found(sign_ins, secret)
    assert (sign_in.person, sign_in.address, len(sign_in.agent)) == ("Ada", "10.0.0.1", 200)
    assert sign_ins.find(secret[:-1]) is None
    assert sign_ins.find("") is None
    assert sign_ins.find(sign_in.id) is None
    again = await SignIns.load(database, clock)
    assert found(again, secret).person == "Ada"
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"10.0.0.1" in kept
    assert secret.encode() not in kept
    assert secret not in repr(sign_in) + str(sign_in.to_json())


async def test_it_ends_when_it_is_not_used(sign_ins: SignIns, clock: Clock) -> None:
    secret = await sign_ins.begin("Ada", "", "")
    clock.now += IDLE - 1
    await sign_ins.use(found(sign_ins, secret))
    clock.now += IDLE - 1
    sign_in = found(sign_ins, secret)
    clock.now += 1
    assert sign_ins.find(secret) is None
    assert not sign_ins.holds(sign_in)
    assert list(sign_ins.of("Ada")) == []


async def test_it_ends_after_its_life_however_it_is_used(sign_ins: SignIns, clock: Clock) -> None:
    secret = await sign_ins.begin("Ada", "", "")
    while clock.now < NOW + LIFE - 600:
        clock.now += 600
        await sign_ins.use(found(sign_ins, secret))
    clock.now = NOW + LIFE
    assert sign_ins.find(secret) is None


async def test_its_last_use_outlives_a_restart(
    database: Database, sign_ins: SignIns, clock: Clock
) -> None:
    secret = await sign_ins.begin("Ada", "", "")
    clock.now += NOTE_EVERY
    await sign_ins.use(found(sign_ins, secret))
    clock.now += IDLE - 1
    assert (await SignIns.load(database, clock)).find(secret) is not None
    clock.now += 1
    assert (await SignIns.load(database, clock)).find(secret) is None


async def test_a_person_ends_others(database: Database, sign_ins: SignIns, clock: Clock) -> None:
    one, two = await sign_ins.begin("Ada", "", ""), await sign_ins.begin("Ada", "", "")
    other = await sign_ins.begin("Bob", "", "")
    await sign_ins.end_all_of("Ada", but=found(sign_ins, two))
    for held in (sign_ins, await SignIns.load(database, clock)):
        assert held.find(one) is None
        assert held.find(two) is not None
        assert held.find(other) is not None


async def test_of_one_person_there_are_not_too_many(sign_ins: SignIns, clock: Clock) -> None:
    other = await sign_ins.begin("Bob", "", "")
    secrets = []
    for _ in range(MAXIMUM_OF_ONE + 1):
        clock.now += 1
        secrets.append(await sign_ins.begin("Ada", "", ""))
    assert sign_ins.find(secrets[0]) is None
    assert all(sign_ins.find(secret) for secret in [*secrets[1:], other])
    assert len(list(sign_ins.of("Ada"))) == MAXIMUM_OF_ONE
