"""Stores come, take turns, and go while the Bridge runs; nothing is left behind."""

import json
import os

import pytest
import trio
import trio.testing

from relay.bridge.sessions import Sessions
from relay.bridge.stores import LEAVING_INTERVAL, RETRY_INTERVAL, Stores, open_stores
from relay.errors import ProviderError, Refused
from relay.providers import Finding, registry
from relay.providers.disk import DiskProvider
from relay.providers.registry import Host
from relay.signalling.messages import Direction, EndReason

from .conftest import NOW, Rooms
from .stores import FakeKind

SECRET = "hunter2"


@pytest.fixture
def kind(monkeypatch) -> FakeKind:
    kind = FakeKind()
    monkeypatch.setattr(registry, "BUILT_IN", {**registry.BUILT_IN, "fake": kind})
    return kind


def opening(rooms: Rooms, tmp_path):
    def host(name: str) -> Host:
        return Host(tmp_path / "stores" / name, "https://bridge.example", b"k" * 32, 2**20)

    return open_stores(rooms.database, host, clock=lambda: NOW)


@pytest.fixture
async def stores(rooms: Rooms, kind: FakeKind, tmp_path):
    async with opening(rooms, tmp_path) as stores:
        yield stores


async def rows(rooms: Rooms) -> dict[str, tuple]:
    found = await rooms.database.run(
        lambda db: list(db.execute("SELECT name, settings, in_use, leaving FROM provider"))
    )
    return {name: (json.loads(settings), *rest) for name, settings, *rest in found}


async def refused(call, status: int, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        await call
    assert caught.value.status == status


def sessions_over(rooms: Rooms, stores: Stores) -> Sessions:
    return Sessions(
        rooms.database,
        stores.providers,
        in_use=stores.in_use,
        clock=rooms.clock,
        monotonic=rooms.clock,
    )


async def opened(sessions: Sessions, granted) -> bytes:
    message = granted[0].opening(granted[1], "PACS", os.urandom(16))
    await sessions.open(granted[0].id, message, callee_connected=True)
    return message.session


def store_of(sessions: Sessions, session: bytes) -> str:
    return next(row["provider"] for row in sessions.describe() if row["session"] == session.hex())


# --- adding -------------------------------------------------------------------------------------


async def test_added_store_is_open_and_not_yet_used(stores: Stores, rooms: Rooms, tmp_path) -> None:
    await stores.add("cloud", "fake", {"called": "c", "secret": "env:SECRET"})
    assert stores.in_use == ["disk"]
    assert set(stores.providers) == {"disk", "cloud"}
    # At rest there is the reference, as it was given.
    assert (await rows(rooms))["cloud"] == ({"called": "c", "secret": "env:SECRET"}, 0, 0)


async def test_it_is_there_after_a_restart(rooms: Rooms, kind: FakeKind, tmp_path) -> None:
    async with opening(rooms, tmp_path) as stores:
        await stores.add("cloud", "fake", {})
        await stores.use(["cloud", "disk"])
    async with opening(rooms, tmp_path) as stores:
        assert stores.in_use == ["cloud", "disk"]
        assert set(stores.providers) == {"disk", "cloud"}


@pytest.mark.parametrize(
    ("name", "of_kind", "settings", "status", "words"),
    [
        ("", "fake", {}, 400, "name: expected"),
        ("../etc", "fake", {}, 400, "name: expected"),
        ("A", "fake", {}, 400, "name: expected"),
        ("x" * 33, "fake", {}, 400, "name: expected"),
        ("disk", "fake", {}, 409, "there is an object store disk"),
        ("disk2", "disk", {}, 409, "only one"),
        ("cloud", "floppy", {}, 400, "no provider of kind 'floppy': there are disk, fake, s3"),
        ("cloud", "fake", {"secret": "bad"}, 400, "secret: does not fit"),
        ("cloud", "fake", {"BAD KEY": "x"}, 400, "no setting's name"),
        ("cloud", "fake", {"a": 7}, 400, "a: expected text"),
        ("cloud", "fake", {"a": "x" * 10_000}, 400, "a: expected text"),
        ("cloud", "fake", {f"a{n}": "x" for n in range(40)}, 400, "at most 32"),
        ("cloud", "s3", {"bucket": "b-1"}, 400, "region: is needed"),
    ],
)
async def test_what_cannot_be_added(
    stores: Stores, rooms: Rooms, name: str, of_kind: str, settings, status: int, words: str
) -> None:
    await refused(stores.add(name, of_kind, settings), status, words)
    assert set(stores.providers) == {"disk"}
    assert set(await rows(rooms)) == {"disk"}


async def test_a_store_that_cannot_be_kept_is_closed_again(
    stores: Stores, rooms: Rooms, kind: FakeKind, monkeypatch
) -> None:
    async def full(work):
        raise ProviderError("disk full")

    monkeypatch.setattr(stores, "_database", type("Full", (), {"run": staticmethod(full)})())
    with pytest.raises(ProviderError, match="disk full"):
        await stores.add("cloud", "fake", {})
    with trio.fail_after(5):
        while "cloud" in stores.providers:
            await trio.sleep(0.01)
    assert not kind.opened[""].open


async def test_secrets_are_in_no_description(stores: Stores, logs) -> None:
    await stores.add("cloud", "fake", {"called": "c", "password": SECRET})
    assert SECRET not in str(await stores.describe())
    assert SECRET not in repr(stores.find("cloud"))
    assert SECRET not in str(logs)


# --- order and failover -------------------------------------------------------------------------


async def test_order(stores: Stores, rooms: Rooms) -> None:
    for name in ("one", "two"):
        await stores.add(name, "fake", {"called": name})
    await stores.use(["two", "one"])
    assert stores.in_use == ["two", "one"]
    assert [row["name"] for row in await stores.describe()] == ["two", "one", "disk"]
    assert {name: row[1] for name, row in (await rows(rooms)).items()} == {
        "two": 1,
        "one": 2,
        "disk": 0,
    }
    await stores.use(["disk"])
    assert stores.in_use == ["disk"]


async def test_use_asked_wrongly(stores: Stores) -> None:
    await refused(stores.use([]), 400, "names: expected")
    await refused(stores.use(["disk", "disk"]), 400, "each of them once")
    await refused(stores.use(["floppy"]), 404, "no object store 'floppy'; there is: disk")


async def test_what_does_not_pass_its_check_is_not_used(stores: Stores, kind: FakeKind) -> None:
    await stores.add("cloud", "fake", {})
    kind.opened[""].findings = [Finding("PUT", True), Finding("no versioning", False, "it is on")]
    await refused(stores.use(["cloud"]), 409, "cloud does not pass its check: no versioning: it is")
    assert stores.in_use == ["disk"]
    kind.opened[""].findings = []
    await stores.use(["cloud"])
    # Once in use, it is not checked each time that the order changes.
    kind.opened[""].findings = [Finding("PUT", False)]
    await stores.use(["disk", "cloud"])


async def test_check_that_hangs(stores: Stores, kind: FakeKind, mock_clock) -> None:
    await stores.add("cloud", "fake", {})
    kind.opened[""].hangs = True
    mock_clock.autojump_threshold = 0
    await refused(stores.check("cloud"), 504, "did not answer in 50 s")
    await refused(stores.use(["cloud"]), 504, "50 s")


async def test_new_sessions_use_the_first_that_works(
    stores: Stores, rooms: Rooms, kind: FakeKind, granted, mock_clock
) -> None:
    await stores.add("cloud", "fake", {})
    await stores.use(["cloud", "disk"])
    sessions = sessions_over(rooms, stores)
    before = await opened(sessions, granted)
    assert store_of(sessions, before) == "cloud"

    kind.opened[""].error = ProviderError("500")
    for _ in range(2):
        with pytest.raises(ProviderError):
            await sessions.put_urls(granted[0].id, before, Direction.CALLER_TO_CALLEE, 0, 1)
    assert store_of(sessions, await opened(sessions, granted)) == "disk"
    # What is under way stays where it is.
    assert store_of(sessions, before) == "cloud"
    assert stores.failing() == ["cloud"]
    row = (await stores.describe())[0]
    assert row["worked"]
    assert (row["name"], row["failing"], row["last_failure"]) == ("cloud", True, "500")

    kind.opened[""].error = None
    mock_clock.jump(60)
    with trio.fail_after(5):
        while stores.failing():
            await trio.testing.wait_all_tasks_blocked()
    assert store_of(sessions, await opened(sessions, granted)) == "cloud"


async def test_where_none_works_the_first_is_tried(stores: Stores, kind: FakeKind) -> None:
    await stores.add("one", "fake", {"called": "one"})
    await stores.add("two", "fake", {"called": "two"})
    await stores.use(["one", "two"])
    for provider in kind.opened.values():
        provider.error = ProviderError("down")
    for name in ("one", "two"):
        for _ in range(2):
            with pytest.raises(ProviderError):
                await stores.providers[name].delete(["a"])
    assert stores.in_use == ["one", "two"]


# --- removal ------------------------------------------------------------------------------------


async def test_removed_at_once_where_nothing_rests_on_it(
    stores: Stores, rooms: Rooms, kind: FakeKind
) -> None:
    await stores.add("cloud", "fake", {})
    assert await stores.remove("cloud") == 0
    assert set(stores.providers) == {"disk"}
    assert set(await rows(rooms)) == {"disk"}
    assert not kind.opened[""].open
    await refused(stores.remove("cloud"), 404, "no object store 'cloud'")
    await stores.add("cloud", "fake", {})  # its name is free again


async def test_the_only_one_in_use_stays(stores: Stores) -> None:
    await stores.add("cloud", "fake", {})
    await refused(stores.remove("disk"), 409, "the only object store in use")
    await stores.use(["cloud"])
    assert await stores.remove("disk") == 0
    assert stores.own is None
    await stores.add("ssd", "disk", {})
    assert isinstance(stores.own, DiskProvider)


async def test_it_stays_while_sessions_rest_on_it(
    stores: Stores, rooms: Rooms, kind: FakeKind, granted, mock_clock
) -> None:
    await stores.add("cloud", "fake", {})
    await stores.use(["cloud", "disk"])
    sessions = sessions_over(rooms, stores)
    session = await opened(sessions, granted)
    assert await stores.remove("cloud") == 1
    assert stores.in_use == ["disk"]
    await refused(stores.use(["cloud"]), 409, "being removed")
    # Its session goes on, and is swept.
    await sessions.put_urls(granted[0].id, session, Direction.CALLER_TO_CALLEE, 0, 1)

    async def later() -> None:
        mock_clock.jump(LEAVING_INTERVAL)
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
            await rooms.database.run(lambda db: None)

    await later()
    await sessions.end(session, EndReason.FINISHED)
    await later()
    assert "cloud" in stores.providers  # not yet swept for the last time
    await sessions.forget(session)
    await later()
    assert set(stores.providers) == {"disk"}
    assert set(await rows(rooms)) == {"disk"}
    assert not kind.opened[""].open


async def test_leaving_goes_on_after_a_restart(
    rooms: Rooms, kind: FakeKind, granted, tmp_path
) -> None:
    async with opening(rooms, tmp_path) as stores:
        await stores.add("cloud", "fake", {})
        await stores.use(["cloud"])
        session = await opened(sessions_over(rooms, stores), granted)
        await stores.use(["disk", "cloud"])
        assert await stores.remove("cloud") == 1
    async with opening(rooms, tmp_path) as stores:
        assert stores.in_use == ["disk"]
        sessions = sessions_over(rooms, stores)
        await sessions.load()
        await sessions.put_urls(granted[0].id, session, Direction.CALLER_TO_CALLEE, 0, 1)
        await sessions.end(session, EndReason.FINISHED)
        await sessions.forget(session)
        assert await stores.remove("cloud") == 0


# --- starting with a store that does not open ---------------------------------------------------


async def test_a_store_that_does_not_open_is_tried_again(
    rooms: Rooms, kind: FakeKind, tmp_path, mock_clock
) -> None:
    async with opening(rooms, tmp_path) as stores:
        await stores.add("cloud", "fake", {})
        await stores.use(["cloud", "disk"])
    kind.refuses = ProviderError("environment variable KEY is not set")
    async with opening(rooms, tmp_path) as stores:
        assert stores.in_use == ["disk", "cloud"]
        assert stores.failing() == ["cloud"]
        [finding] = await stores.check("cloud")
        assert (finding.ok, finding.advice) == (False, "environment variable KEY is not set")
        kind.refuses = None
        for _ in range(3):
            mock_clock.jump(RETRY_INTERVAL)
            await trio.testing.wait_all_tasks_blocked()
        assert stores.in_use == ["cloud", "disk"]
        assert "cloud" in stores.providers


async def test_a_store_whose_code_ends_by_itself_is_opened_again(
    stores: Stores, kind: FakeKind, mock_clock
) -> None:
    await stores.add("cloud", "fake", {})
    await stores.use(["cloud", "disk"])
    kind.opened[""].crash.set()
    await trio.testing.wait_all_tasks_blocked()
    assert stores.in_use == ["disk", "cloud"]  # new sessions go where there is something
    assert stores.failing() == ["cloud"]
    for _ in range(2):
        mock_clock.jump(RETRY_INTERVAL)
        await trio.testing.wait_all_tasks_blocked()
    assert stores.in_use == ["cloud", "disk"]
    kind.opened[""].crash.set()
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(5):
        assert await stores.remove("cloud") == 0
    assert "cloud" not in stores.providers


async def test_a_store_that_never_opened_can_be_removed(
    rooms: Rooms, kind: FakeKind, tmp_path
) -> None:
    async with opening(rooms, tmp_path) as stores:
        await stores.add("cloud", "fake", {})
    kind.refuses = ProviderError("gone")
    async with opening(rooms, tmp_path) as stores:
        with trio.fail_after(5):
            assert await stores.remove("cloud") == 0
    assert set(await rows(rooms)) == {"disk"}


async def test_a_bridge_without_any_store_does_not_start(
    rooms: Rooms, kind: FakeKind, tmp_path
) -> None:
    async with opening(rooms, tmp_path) as stores:
        await stores.add("cloud", "fake", {})
        await stores.use(["cloud"])
    kind.refuses = ProviderError("environment variable KEY is not set")
    with pytest.raises(ProviderError, match="KEY is not set"):
        async with opening(rooms, tmp_path):
            pass
