"""Settings, and serial numbers that only rise."""

from pathlib import Path

from relay.database import open_database
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
