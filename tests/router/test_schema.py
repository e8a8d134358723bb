"""Settings, serial numbers that only rise, and what an older Relay has kept."""

from pathlib import Path

import pytest

from relay.database import open_database
from relay.router.devices import Device, DeviceTable
from relay.router.grants import Grant, GrantTable
from relay.router.schema import MIGRATIONS, change, get_setting, next_serial, put_setting


async def test_settings_are_kept_and_replaced(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        await database.run(lambda c: put_setting(c, "name", b"one"))
        await database.run(lambda c: put_setting(c, "name", b"two"))
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        assert await database.run(lambda c: get_setting(c, "name")) == b"two"
        assert await database.run(lambda c: get_setting(c, "other")) is None
        await database.run(change("DELETE FROM setting WHERE name = ?", "name"))
        assert await database.run(lambda c: get_setting(c, "name")) is None


async def test_serials_rise_whatever_the_clock_does(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        drawn = [await next_serial(database, "key", now) for now in (1000, 1000, 500, 2000)]
        assert drawn == [1000, 1001, 1002, 2000]
        assert await next_serial(database, "other", 7) == 7


@pytest.mark.parametrize("before", range(1, len(MIGRATIONS)))
async def test_devices_and_grants_of_before_are_as_they_were(tmp_path: Path, before: int) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS[:before]) as database:
        await database.run(
            change(
                "INSERT INTO device (ae_title, published, host, port, services,"
                " maximum_associations, answer_wait, resume_window, check_address, user_identity)"
                " VALUES ('PACS', 'PACS', '192.0.2.1', 11112, 'store query', 3, 12.5, 20, 0, 1)"
            )
        )
        await database.run(
            change(
                'INSERT INTO "grant" (grantee, ae_title, services, calling, user_identity)'
                " VALUES (?, 'PACS', 'store', '[\"WS 1\"]', 1)",
                b"n" * 32,
            )
        )
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        assert list(await DeviceTable.load(database)) == [
            Device(
                "PACS",
                "192.0.2.1",
                11112,
                services=frozenset({"store", "query"}),
                maximum_associations=3,
                answer_wait=12.5,
                check_address=False,
                user_identity=True,
            )
        ]
        assert list(await GrantTable.load(database)) == [
            Grant(b"n" * 32, "PACS", frozenset({"store"}), frozenset({"WS 1"}), True)
        ]
