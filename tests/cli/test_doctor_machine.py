"""The machine itself: folder, disk, ports."""

import socket
from pathlib import Path

import pytest

from relay.cli import certificate, doctor_machine
from relay.config_file import load
from relay.errors import RelayError
from relay.values import Address


async def listened(*addresses: Address) -> list[tuple[bool, str]]:
    return [(f.ok, f.advice) async for f in doctor_machine.listening(addresses)]


async def test_a_port_that_is_free() -> None:
    assert await listened(Address("127.0.0.1", 0), Address("::1", 0)) == [(True, ""), (True, "")]


async def test_a_port_that_is_taken_says_how_to_find_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ((fine, advice),) = await listened(Address("127.0.0.1", port))
    assert not fine
    assert f"ss -ltnp sport = :{port}" in advice


async def test_an_address_that_is_not_ours() -> None:
    ((fine, advice),) = await listened(Address("192.0.2.77", 0))
    assert not fine
    assert "ip address" in advice


async def test_a_port_for_root_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(addresses: object) -> list[socket.socket]:
        raise RelayError("cannot listen") from PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor_machine, "listen_tcp", refuse)
    ((fine, advice),) = await listened(Address("0.0.0.0", 104))
    assert not fine
    assert "CAP_NET_BIND_SERVICE" in advice


async def test_a_name_that_is_none_is_said_as_it_is() -> None:
    ((fine, advice),) = await listened(Address("nobody.invalid", 1))
    assert not fine
    assert "nobody.invalid" in advice


def test_all_listeners_are_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(
        '[router]\nlisten = ["127.0.0.1:1", "[::1]:2"]\ndicomweb.listen = "127.0.0.1:3"\n'
    )
    found = doctor_machine.addresses(load(file))
    assert found == [Address("127.0.0.1", 1), Address("::1", 2), Address("127.0.0.1", 3)]


def test_a_secret_that_others_may_read(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch(mode=0o640)
    assert doctor_machine.private("private key", key).ok
    key.chmod(0o644)
    finding = doctor_machine.private("private key", key)
    assert (finding.ok, finding.advice) == (False, f"chmod o= {key}")
    assert not doctor_machine.private("private key", tmp_path / "none").ok


def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(doctor_machine, "LEAST_FREE_SPACE", 2**62)
    *_, room = doctor_machine.data_dir(tmp_path)
    assert not room.ok
    assert "make room" in room.advice


def test_folders_that_are_wrong_are_said(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (absent,) = doctor_machine.data_dir(data)
    assert "made at the first start" in absent.advice
    data.write_text("a file")
    (finding,) = doctor_machine.data_dir(data)
    assert finding.advice == "not a folder"
    data.unlink()
    data.mkdir(mode=0o755)
    private, _ = doctor_machine.data_dir(data)
    assert "chmod 700" in private.advice


def test_a_private_key_of_another_certificate_is_said(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, chain, _ = certificate.make(tmp_path, "relay.example.org")
    _, _, key = certificate.make(tmp_path / "other", "relay.example.org")
    finding = doctor_machine.key_of(chain, key)
    assert not finding.ok
    assert str(key) in finding.advice
