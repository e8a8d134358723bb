"""Devices: what a person may enter, what is kept, and where a device cannot be."""

from pathlib import Path
from typing import Any

import pytest
import trio

from relay.database import open_database
from relay.errors import Refused
from relay.router import devices
from relay.router.devices import MAXIMUM_DEVICES, Device, DeviceTable, plain_address
from relay.router.schema import MIGRATIONS

PACS = {"ae_title": "PACS", "host": "192.0.2.7", "port": 104, "services": ["store", "echo"]}


def test_a_device_as_a_person_describes_it() -> None:
    device = Device.from_json(PACS)
    assert device.services == {"store", "echo"}
    assert (device.answer_wait, device.resume_window) == (25, 20)
    assert device.check_address
    assert not device.user_identity
    assert Device.from_json(device.to_json()) == device


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"host": None}, "host"),
        ({"host": ""}, "host"),
        ({"host": "a b"}, "host"),
        ({"host": "x; rm -rf /"}, "host"),
        ({"ae_title": "A\\B"}, "AE title"),
        ({"port": 0}, "port"),
        ({"port": "104"}, "port"),
        ({"port": True}, "port"),
        ({"services": "store"}, "services"),
        ({"services": ["everything"]}, "no such service"),
        ({"maximum_associations": 0}, "maximum_associations"),
        ({"answer_wait": -1}, "answer_wait"),
        ({"resume_window": float("inf")}, "resume_window"),
        ({"check_address": 1}, "check_address"),
        ({"split": 0}, "split"),
        ({"split": 9}, "split"),
        ({"declares": []}, "device: declares: is no object"),
        ({"declares": {"1.2.840.10008.1.1": ["1.2"]}}, "declares: .* is not of Storage"),
        ({"federation": "yes"}, "federation is true or false"),
        ({"get_via_move": 1}, "get_via_move is true or false"),
        ({"issuer": "N" * 65}, "issuer is a text of up to 64"),
        ({"issuer": "NORTH\\SOUTH"}, "device: issuer is one value"),
        ({"issuer": "NORTH\n"}, "issuer is a text of up to 64"),
        ({"issuer": "Süd"}, "issuer is a text of up to 64"),
        ({"issuer": 5}, "issuer is a text of up to 64"),
        ({"character_set": "UTF-8"}, "device: character_set: no defined term of DICOM: 'UTF-8'"),
        ({"character_set": "ISO_IR 100" + " " * 128}, "character_set is a text of up to 128"),
        ({"character_set": ["ISO_IR 100"]}, "character_set is a text of up to 128"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_what_does_not_hold_is_named(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        Device.from_json(PACS | entry)
    assert caught.value.status == 400


async def test_devices_are_kept(tmp_path: Path) -> None:
    device = Device("PACS", "h", 11112, services=frozenset({"store"}), check_address=False)
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await DeviceTable.load(database)
        assert await table.put(device)
        assert not await table.put(device)
        await table.put(Device("WS", "h"))
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await DeviceTable.load(database)
        assert [d.ae_title for d in table] == ["PACS", "WS"]
        assert table.get("PACS") == device
        assert table.published_as("PACS") == device
        assert table.published_as("WS") is None  # it only calls out
        await table.remove("PACS")
        assert table.get("PACS") is None
        with pytest.raises(Refused, match="no device"):
            await table.remove("PACS")
        assert [d.ae_title for d in await DeviceTable.load(database)] == ["WS"]


async def test_what_is_declared_is_kept(tmp_path: Path) -> None:
    taken = {"1.2.840.10008.5.1.4.1.1.2": ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]}
    device = Device.from_json(PACS | {"declares": taken, "split": 8})
    assert device.declares.to_json() == taken
    assert Device.from_json(device.to_json()) == device
    assert device != Device.from_json(PACS | {"split": 8})
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await DeviceTable.load(database)
        assert await table.put(device)
        assert list(await DeviceTable.load(database)) == [device]
        assert await table.put(Device.from_json(PACS | {"declares": {}}))
        assert list(await DeviceTable.load(database)) == [Device.from_json(PACS)]


async def test_what_the_federation_is_told_is_kept(tmp_path: Path) -> None:
    told = {
        "federation": True,
        "issuer": " NORTH&1.2.3&ISO ",
        "character_set": " ISO 2022 IR 6\\ISO 2022 IR 87 ",
        "get_via_move": True,
    }
    device = Device.from_json(PACS | told)
    assert (device.federation, device.get_via_move) == (True, True)
    assert device.issuer == "NORTH&1.2.3&ISO"
    assert device.character_set == "ISO 2022 IR 6\\ISO 2022 IR 87"
    assert Device.from_json(device.to_json()) == device
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        table = await DeviceTable.load(database)
        assert await table.put(device)
        assert list(await DeviceTable.load(database)) == [device]


async def test_a_device_of_before_is_as_usual(tmp_path: Path) -> None:
    """Nothing of it was said, and nothing is changed by that."""
    async with open_database(tmp_path / "db", MIGRATIONS[:3]) as database:
        await database.run(
            lambda c: c.execute(
                "INSERT INTO device (ae_title, published, host, port, services,"
                " maximum_associations, answer_wait, resume_window, check_address, user_identity)"
                " VALUES ('PACS', 'PACS', 'h', 104, '', 16, 25, 20, 1, 0)"
            )
        )
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        assert list(await DeviceTable.load(database)) == [Device("PACS", "h")]


async def test_the_table_has_an_end(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db", MIGRATIONS) as database:
        full = DeviceTable(database, [Device(f"D{n}", "h") for n in range(MAXIMUM_DEVICES)])
        with pytest.raises(Refused, match="already has"):
            await full.put(Device("ONE_MORE", "h"))
        many = frozenset(f"private:1.{n}.{'1' * 55}" for n in range(40))
        long = DeviceTable(database, [Device(f"D{n}", "h", services=many) for n in range(73)])
        with pytest.raises(Refused, match="longer than"):
            await long.put(Device("ONE_MORE", "h", services=many))


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8::0", "2001:db8::"),
    ],
)
def test_addresses_compare_in_one_form(address: str, plain: str) -> None:
    assert plain_address(address) == plain


async def test_names_are_looked_up() -> None:
    assert "127.0.0.1" in await devices.addresses("localhost")
    assert await devices.addresses("::1") == {"::1"}


async def test_a_name_that_nobody_knows_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*args: object, **options: object) -> None:
        raise OSError("no such name")

    monkeypatch.setattr(trio.socket, "getaddrinfo", nobody)
    assert await devices.addresses("pacs.hospital.example") == frozenset()


@pytest.mark.parametrize(
    ("host", "port", "listening", "own"),
    [
        ("127.0.0.1", 104, [("0.0.0.0", 104)], True),
        ("localhost", 104, [("127.0.0.1", 104)], True),
        ("127.0.0.1", 105, [("0.0.0.0", 104)], False),
        ("192.0.2.1", 104, [("0.0.0.0", 104)], False),
        ("127.0.0.2", 104, [("127.0.0.1", 104)], False),
    ],
)
async def test_a_device_cannot_be_the_router_itself(
    host: str, port: int, listening: list[tuple[str, int]], own: bool
) -> None:
    assert await devices.is_own_listener(Device("PACS", host, port), listening) is own
