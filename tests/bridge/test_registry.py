"""The registry: AE titles are unique, serials only rise, and who is revoked is out."""

import pytest

from relay.bridge.registry import Change
from relay.errors import IdentityError, Refused

from .conftest import Rooms, Router


async def titles(rooms: Rooms) -> dict[str, str]:
    return {row["ae_title"]: row["name"] for row in await rooms.registry.list_publications()}


async def test_admit(rooms: Rooms) -> None:
    router = await rooms.router()
    await rooms.registry.admit(router.id)
    with pytest.raises(Refused, match="not enrolled") as caught:
        await rooms.registry.admit(Router(rooms.network.network).id)
    assert caught.value.status == 403


async def test_publish_tells_what_changed(rooms: Rooms) -> None:
    router = await rooms.router()
    pacs, ct = router.publication("PACS"), router.publication("CT1")
    change = await rooms.registry.publish(router.id, [pacs, ct])
    assert (set(change.publications), change.gone_titles) == ({pacs, ct}, ())
    change = await rooms.registry.publish(router.id, [pacs, ct])
    assert (change.publications, change.gone_titles, change.refusals) == ((), (), ())
    newer = router.publication("PACS", serial=2, services=("query",))
    change = await rooms.registry.publish(router.id, [newer])
    assert (change.publications, change.gone_titles) == ((newer,), ("CT1",))
    assert await titles(rooms) == {"PACS": "North Hospital"}
    assert change.listed == ((router.id, "North Hospital", (("PACS", ("query",)),)),)
    assert await rooms.registry.listing() == list(change.listed)
    assert await published(rooms, router) == [newer]
    assert await rooms.registry.owner("PACS") == router.id
    assert await rooms.registry.owner("CT1") is None


async def directory_row(rooms: Rooms, router: Router):
    [row], _ = await rooms.registry.rows([router.id])
    return row


async def published(rooms: Rooms, router: Router) -> list[bytes]:
    return (await rooms.registry.rows([router.id]))[1]


async def test_a_title_has_one_owner(rooms: Rooms) -> None:
    north = await rooms.publishing("North", "PACS")
    south = await rooms.router("South")
    change = await rooms.registry.publish(
        south.id, [south.publication("PACS"), south.publication("CT2")]
    )
    assert change.publications == (south.publication("CT2"),)
    [line] = change.refusals
    assert "North" in line
    assert line.startswith("PACS is published by North already: publish it under another title")
    assert "relay device add … --as" in line
    assert await titles(rooms) == {"PACS": "North", "CT2": "South"}
    # Once it is free, another may have it.
    await rooms.registry.publish(north.id, [])
    assert (await rooms.registry.publish(south.id, [south.publication("PACS")])).refusals == ()
    assert await titles(rooms) == {"PACS": "South"}


async def test_an_older_publication_is_refused_and_the_newer_kept(rooms: Rooms) -> None:
    router = await rooms.router()
    newer = router.publication("PACS", serial=5)
    await rooms.registry.publish(router.id, [newer])
    change = await rooms.registry.publish(router.id, [router.publication("PACS", serial=4)])
    assert "older than 5" in change.refusals[0]
    assert change.gone_titles == ()
    assert await published(rooms, router) == [newer]
    # Also after it was withdrawn.
    await rooms.registry.publish(router.id, [])
    change = await rooms.registry.publish(router.id, [router.publication("PACS", serial=4)])
    assert "older than 5" in change.refusals[0]
    assert await titles(rooms) == {}


async def test_statements_of_others_are_refused(rooms: Rooms) -> None:
    north, south = await rooms.router("North"), await rooms.router("South")
    elsewhere = Router(b"n" * 16, identity=south.identity).publication("CT2")
    whole = south.publication("CT3")
    damaged = whole[:-1] + bytes([whole[-1] ^ 1])
    change = await rooms.registry.publish(
        south.id, [north.publication("PACS"), elsewhere, damaged, b"", south.publication("CT4")]
    )
    assert len(change.refusals) == 4
    assert await titles(rooms) == {"CT4": "South"}


async def test_key_serials_only_rise(rooms: Rooms) -> None:
    router = await rooms.router()
    third = router.key_statement(3)
    change = await rooms.registry.publish_key(router.id, third)
    assert change.routers == ((router.id, "North Hospital", third),)
    await rooms.registry.publish_key(router.id, third)
    with pytest.raises(Refused, match="older than 3"):
        await rooms.registry.publish_key(router.id, router.key_statement(2))
    assert (await directory_row(rooms, router))[2] == third


async def written(rooms: Rooms) -> int:
    """Rows written so far."""
    return await rooms.database.run(lambda db: db.total_changes())


async def test_what_is_said_again_is_not_written_and_not_told(rooms: Rooms) -> None:
    """As each Router does on each connection, two thousand of them after the Bridge's restart."""
    north, south = await rooms.publishing("North", "PACS"), await rooms.router("South")
    key, publications = north.key_statement(2), [north.publication("PACS")]
    grants = [(south.id, "PACS", ("store", "echo")), (south.id, "PACS", ("query",))]
    await rooms.registry.publish_key(north.id, key)
    await rooms.registry.grants(north.id, grants)
    before = await written(rooms)
    assert await rooms.registry.publish_key(north.id, key) == Change(north.id)
    assert await rooms.registry.publish(north.id, publications) == Change(north.id)
    assert await rooms.registry.grants(north.id, grants[::-1]) == Change(north.id)
    assert await written(rooms) == before
    # What is another is both, though no row more or less.
    change = await rooms.registry.grants(north.id, [(south.id, "PACS", ("store",))])
    assert change.grantees == {north.id, south.id}
    assert await written(rooms) > before
    assert await rooms.registry.granted(south.id) == [(north.id, "PACS", ("store",))]


async def test_rows_that_grant_the_same_share_their_services(rooms: Rooms) -> None:
    """They are kept for each connected Router."""
    north, south = await rooms.publishing("North", "PACS", "CT1"), await rooms.router("South")
    await rooms.registry.grants(
        north.id, [(south.id, "PACS", ("store",)), (south.id, "CT1", ("store",))]
    )
    [(_, _, one), (_, _, other)] = await rooms.registry.granted(south.id)
    assert one == ("store",)
    assert one is other


async def test_key_of_another(rooms: Rooms) -> None:
    north, south = await rooms.router("North"), await rooms.router("South")
    with pytest.raises(IdentityError, match="another Router's"):
        await rooms.registry.publish_key(north.id, south.key_statement(2))


async def test_grants_replace_those_before(rooms: Rooms) -> None:
    north, south = await rooms.publishing("North", "PACS"), await rooms.router("South")
    rows = [(south.id, "PACS", ("echo", "store")), (south.id, "PACS", ("query",))]
    await rooms.registry.grants(north.id, rows)
    [row] = await rooms.registry.list_grants()
    assert row["services"] == ["echo", "query", "store"]
    assert row["grantee"] == south.identity.fingerprint
    await rooms.registry.grants(north.id, [])
    assert await rooms.registry.list_grants() == []


async def test_what_others_grant(rooms: Rooms) -> None:
    north, south = await rooms.publishing("North", "PACS", "CT1"), await rooms.router("South")
    west = await rooms.router("West")
    change = await rooms.registry.grants(
        north.id,
        [
            (south.id, "PACS", ("store", "query", "echo")),
            (south.id, "GONE", ("store",)),
            (west.id, "CT1", ("query",)),
        ],
    )
    assert change.grantees == {north.id, south.id, west.id}
    everybody = [await rooms.registry.concerns(router.id) for router in (north, south, west)]
    assert everybody == [
        {north.id, south.id, west.id},
        {south.id, north.id},
        {west.id, north.id},
    ]
    # What is granted, published still, and published with that service.
    assert await rooms.registry.granted(south.id) == [(north.id, "PACS", ("echo", "store"))]
    assert await rooms.registry.granted(west.id) == []
    change = await rooms.registry.grants(north.id, [(west.id, "CT1", ("echo",))])
    assert change.grantees == {north.id, south.id, west.id}  # also who may use nothing any more
    assert await rooms.registry.concerns(south.id) == {south.id}
    assert await rooms.registry.granted(south.id) == []
    assert await rooms.registry.granted(west.id) == [(north.id, "CT1", ("echo",))]
    change = await rooms.registry.publish(north.id, [north.publication("PACS")])
    assert change.grantees == {west.id}
    assert await rooms.registry.granted(west.id) == []
    # Nothing is changed by saying the same again.
    change = await rooms.registry.publish(north.id, [north.publication("PACS")])
    assert change.grantees == frozenset()


async def test_what_is_granted_of_a_title_is_its_owners(rooms: Rooms) -> None:
    north, south = await rooms.publishing("North", "PACS"), await rooms.router("South")
    await rooms.registry.grants(south.id, [(north.id, "PACS", ("store",))])
    assert await rooms.registry.granted(north.id) == []  # South does not publish PACS


async def test_revoked_is_out_with_all_that_was_its(rooms: Rooms) -> None:
    north = await rooms.publishing("North", "PACS")
    south = await rooms.publishing("South", "CT2")
    await rooms.registry.grants(north.id, [(south.id, "PACS", ("store",))])
    await rooms.registry.grants(south.id, [(north.id, "CT2", ("store",))])
    change = await rooms.registry.revoke(south.id)
    assert (change.gone_routers, change.gone_titles) == ((south.id,), ("CT2",))
    assert change.grantees == {north.id}
    assert await rooms.registry.list_grants() == []
    assert await titles(rooms) == {"PACS": "North"}
    for call in (
        rooms.registry.admit(south.id),
        rooms.registry.publish(south.id, []),
        rooms.registry.grants(south.id, []),
        rooms.registry.publish_key(south.id, south.key_statement(7)),
    ):
        with pytest.raises(Refused, match="revoked"):
            await call
    assert [row[0] for row in await rooms.registry.listing()] == [north.id]
    assert await rooms.registry.rows([south.id]) == ([], [])
    await rooms.registry.revoke(south.id)  # harmless
    rows = await rooms.registry.list_routers()
    assert [(row["name"], row["revoked"]) for row in rows] == [("North", False), ("South", True)]


async def test_revoking_nobody(rooms: Rooms) -> None:
    with pytest.raises(Refused, match="no Router") as caught:
        await rooms.registry.revoke(b"r" * 32)
    assert caught.value.status == 404


async def test_routers_are_found_by_fingerprint(rooms: Rooms) -> None:
    router = await rooms.router()
    named = router.identity.fingerprint
    assert await rooms.registry.find_router(f" {named.upper()}\n") == router.id
    with pytest.raises(Refused, match="no Router"):
        await rooms.registry.find_router("'; DROP TABLE router; --")


@pytest.mark.parametrize("title", ["'; DROP TABLE", "../secret", "<b>PACS</b>", "%s%n", '"PACS"'])
async def test_titles_are_data(rooms: Rooms, title: str) -> None:
    await rooms.publishing("North", title)
    assert await titles(rooms) == {title: "North"}
