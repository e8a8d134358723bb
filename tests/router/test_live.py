"""The register of live associations."""

import trio
import trio.testing

from relay.router.live import LiveAssociation, LiveRegister, Side


def entry(
    device: str = "PACS", permitted: bool = True, side: Side = Side.CALLEE
) -> LiveAssociation:
    return LiveAssociation(
        number="abc",
        side=side,
        device=device,
        calling="WS",
        called=device,
        peer="peer",
        still_permitted=lambda: permitted,
    )


async def test_what_is_no_longer_permitted_is_cancelled_and_the_rest_is_not() -> None:
    register = LiveRegister(5)
    went_on = []
    with register.hold(entry()):
        with register.hold(entry()) as revoked:
            revoked.still_permitted = lambda: False
            assert register.recheck() == 1
            assert register.recheck() == 0
            await trio.lowlevel.checkpoint()
            went_on.append("the revoked one")
        went_on.append("the other")
    assert went_on == ["the other"]


async def test_what_was_taken_away_before_it_began_never_begins() -> None:
    """Its device was removed while the call waited, say: no later change would ask for it again."""
    register = LiveRegister(5)
    went_on = []
    with register.hold(entry(permitted=False)) as held:
        assert held.revoked
        await trio.lowlevel.checkpoint()
        went_on.append("it")
    assert not went_on
    assert not len(register)


async def test_waiting_until_none_is_left() -> None:
    register = LiveRegister(5)
    await register.wait_empty()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            with register.hold(entry()) as held:
                assert held.to_json()["side"] == "callee"
                nursery.start_soon(register.wait_empty)
                await trio.testing.wait_all_tasks_blocked()
