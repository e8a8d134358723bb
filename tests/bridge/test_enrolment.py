"""Invitations: used once, by one Router, in time."""

import attrs
import pytest

from relay.bridge.enrolment import MAXIMUM_LIFETIME, RETRY_WINDOW
from relay.errors import IdentityError, Refused
from relay.invitation import EnrolmentAnswer, Invitation

from .conftest import NOW, Rooms, Router


async def codes(rooms: Rooms) -> list[bytes | None]:
    rows = await rooms.database.run(lambda db: list(db.execute("SELECT code FROM invitation")))
    return [row[0] for row in rows]


async def test_an_invitation_lets_one_router_in(rooms: Rooms) -> None:
    invitation = await rooms.enrolment.invite("North", lifetime=600)
    assert Invitation.parse(invitation.to_string()) == invitation
    assert invitation.expires == NOW + 600
    router = Router(rooms.network.network, "North Hospital")
    request = router.enrolment(invitation)
    enrolled = await rooms.enrolment.enrol(request)
    answer = EnrolmentAnswer.open(enrolled.answer, invitation, request, router.id)
    assert answer.name == "North"
    assert enrolled.router[:2] == (router.id, "North")
    await rooms.registry.admit(router.id)
    [row] = await rooms.registry.list_routers()
    assert row["name"] == "North"


async def test_a_router_cannot_pass_as_another_hospital(rooms: Rooms) -> None:
    await rooms.router("Hospital B")
    invitation = await rooms.enrolment.invite("Hospital C")
    impostor = Router(rooms.network.network, "Hospital B")
    request = impostor.enrolment(invitation)
    enrolled = await rooms.enrolment.enrol(request)
    assert enrolled.router[:2] == (impostor.id, "Hospital C")
    answer = EnrolmentAnswer.open(enrolled.answer, invitation, request, impostor.id)
    assert answer.name == "Hospital C"
    rows = await rooms.registry.list_routers()
    assert [row["name"] for row in rows] == ["Hospital B", "Hospital C"]


@pytest.mark.parametrize("name", ["Straße", " strasse ", "STRASSE"])
async def test_a_name_is_given_once(rooms: Rooms, name: str) -> None:
    invitation = await rooms.enrolment.invite("Straße", lifetime=600)
    with pytest.raises(Refused, match="open still") as caught:
        await rooms.enrolment.invite(name)
    assert caught.value.status == 409
    router = Router(rooms.network.network)
    await rooms.enrolment.enrol(router.enrolment(invitation))
    with pytest.raises(Refused, match="a Router is enrolled as") as caught:
        await rooms.enrolment.invite(name)
    assert caught.value.status == 409
    await rooms.registry.revoke(router.id)
    await rooms.enrolment.invite(name)


async def test_the_name_of_an_expired_invitation_is_free(rooms: Rooms) -> None:
    await rooms.enrolment.invite("North", lifetime=60)
    rooms.clock.now += 60
    await rooms.enrolment.invite("North")


async def test_a_used_invitation_does_not_bring_back_a_name_that_was_given_on(
    rooms: Rooms,
) -> None:
    first = await rooms.enrolment.invite("North")
    router = Router(rooms.network.network)
    await rooms.enrolment.enrol(router.enrolment(first))
    await rooms.enrolment.enrol(router.enrolment(await rooms.enrolment.invite("Far North")))
    await rooms.router("North")
    with pytest.raises(Refused, match="another Router is enrolled as 'North'"):
        await rooms.enrolment.enrol(router.enrolment(first))


async def test_a_lost_answer_may_be_asked_for_again(rooms: Rooms) -> None:
    invitation = await rooms.enrolment.invite("North")
    router = Router(rooms.network.network)
    await rooms.enrolment.enrol(router.enrolment(invitation))
    rooms.clock.now += RETRY_WINDOW - 1
    again = router.enrolment(invitation)  # a new key statement: other bytes
    enrolled = await rooms.enrolment.enrol(again)
    EnrolmentAnswer.open(enrolled.answer, invitation, again, router.id)
    assert len(await rooms.registry.list_routers()) == 1


async def test_the_code_is_erased_after_the_retry_window(rooms: Rooms) -> None:
    invitation = await rooms.enrolment.invite("North")
    router = Router(rooms.network.network)
    await rooms.enrolment.enrol(router.enrolment(invitation))
    rooms.clock.now += RETRY_WINDOW
    with pytest.raises(Refused, match="ask for a new one"):
        await rooms.enrolment.enrol(router.enrolment(invitation))
    await rooms.enrolment.list_invitations()
    assert await codes(rooms) == [None]


async def test_another_router_is_refused(rooms: Rooms) -> None:
    invitation = await rooms.enrolment.invite("North")
    await rooms.enrolment.enrol(Router(rooms.network.network).enrolment(invitation))
    with pytest.raises(Refused, match="unknown, expired or used") as caught:
        await rooms.enrolment.enrol(Router(rooms.network.network).enrolment(invitation))
    assert caught.value.status == 403
    assert len(await rooms.registry.list_routers()) == 1


async def test_expired(rooms: Rooms) -> None:
    invitation = await rooms.enrolment.invite("North", lifetime=60)
    rooms.clock.now += 60
    with pytest.raises(Refused, match="expired"):
        await rooms.enrolment.enrol(Router(rooms.network.network).enrolment(invitation))
    [row] = await rooms.enrolment.list_invitations()
    assert row["state"] == "expired"
    assert await codes(rooms) == [None]


@pytest.mark.parametrize(
    "changed",
    [{"code": b"c" * 16}, {"bridge": b"b" * 32}, {"network": b"n" * 16}],
    ids=["code", "bridge", "network"],
)
async def test_a_changed_invitation_holds_nothing(rooms: Rooms, changed) -> None:
    invitation = attrs.evolve(await rooms.enrolment.invite("North"), **changed)
    with pytest.raises(IdentityError):
        await rooms.enrolment.enrol(Router(invitation.network).enrolment(invitation))
    assert await rooms.registry.list_routers() == []
    [row] = await rooms.enrolment.list_invitations()
    assert row["state"] == "open"


async def test_unknown_invitation(rooms: Rooms) -> None:
    invitation = attrs.evolve(await rooms.enrolment.invite("North"), invitation_id=b"i" * 16)
    with pytest.raises(Refused, match="unknown"):
        await rooms.enrolment.enrol(Router(rooms.network.network).enrolment(invitation))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\xc4\x00\xc4\x00\xc4\x00", b"x" * 9000])
async def test_garbage(rooms: Rooms, data: bytes) -> None:
    with pytest.raises(IdentityError):
        await rooms.enrolment.enrol(data)


async def test_a_revoked_router_stays_out(rooms: Rooms) -> None:
    router = await rooms.router()
    await rooms.registry.revoke(router.id)
    invitation = await rooms.enrolment.invite("North again")
    with pytest.raises(Refused, match="revoked"):
        await rooms.enrolment.enrol(router.enrolment(invitation))


async def test_an_enrolled_router_may_come_again_under_a_new_name(rooms: Rooms) -> None:
    router = await rooms.router()
    invitation = await rooms.enrolment.invite("Great North Hospital")
    await rooms.enrolment.enrol(router.enrolment(invitation))
    [row] = await rooms.registry.list_routers()
    assert row["name"] == "Great North Hospital"


async def test_an_older_key_does_not_come_back_by_enrolment(rooms: Rooms) -> None:
    router = await rooms.router()
    await rooms.registry.publish_key(router.id, router.key_statement(serial=9))
    invitation = await rooms.enrolment.invite("North again")
    with pytest.raises(IdentityError, match="newer HPKE key"):
        await rooms.enrolment.enrol(router.enrolment(invitation))


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb", "a\x1b[31m"])
async def test_bad_names(rooms: Rooms, name: str) -> None:
    with pytest.raises(Refused, match="printable"):
        await rooms.enrolment.invite(name)


@pytest.mark.parametrize("lifetime", [0, -1, 59, MAXIMUM_LIFETIME + 1])
async def test_bad_lifetimes(rooms: Rooms, lifetime: int) -> None:
    with pytest.raises(Refused, match="lifetime"):
        await rooms.enrolment.invite("North", lifetime)


async def test_open_invitations_are_bounded(rooms: Rooms, monkeypatch) -> None:
    monkeypatch.setattr("relay.bridge.enrolment.MAXIMUM_INVITATIONS", 2)
    for name in ("North", "South"):
        await rooms.enrolment.invite(name)
    with pytest.raises(Refused, match="2 invitations") as caught:
        await rooms.enrolment.invite("West")
    assert caught.value.status == 429
