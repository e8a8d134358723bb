from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay import config_file
from relay.cli.root import main
from relay.config import BridgeConfig, Mode, RouterConfig, keys
from relay.values import Address


def init(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments, "--config", str(folder / "relay.toml")])


def test_a_router_asks_for_nothing(tmp_path: Path) -> None:
    result = init(tmp_path, "--mode", "router")
    assert result.exit_code == 0, result.output
    assert f"relay --mode router --config {tmp_path / 'relay.toml'}" in result.stdout
    loaded = config_file.load(tmp_path / "relay.toml")
    assert isinstance(loaded, RouterConfig)
    assert (tmp_path / "relay.toml").stat().st_mode & 0o777 == 0o600


def test_what_is_given_is_set_and_the_rest_is_there_to_read(tmp_path: Path) -> None:
    result = init(
        tmp_path,
        *("--mode", "router", "--ae-title", "MARY"),
        *("--listen", "10.0.0.1:104", "--data-dir", "d", "--proxy", "http://proxy:3128"),
    )
    assert result.exit_code == 0, result.output
    loaded = config_file.load(tmp_path / "relay.toml")
    assert isinstance(loaded, RouterConfig)
    assert loaded.ae_title == "MARY"
    assert loaded.listen == (Address("10.0.0.1", 104),)
    assert loaded.data_dir == tmp_path / "d"
    assert loaded.proxy is not None
    text = (tmp_path / "relay.toml").read_text()
    assert all(name in text for name in keys(Mode.ROUTER))


def test_a_router_with_a_certificate_serves_devices_over_tls(tmp_path: Path) -> None:
    for name in ("router.pem", "key.pem", "devices.pem"):
        (tmp_path / name).touch()
    result = init(
        tmp_path,
        *("--mode", "router", "--tls-listen", "0.0.0.0:2762", "--device-ca-file", "devices.pem"),
        *("--certificate", "router.pem", "--private-key", "key.pem"),
    )
    assert result.exit_code == 0, result.output
    loaded = config_file.load(tmp_path / "relay.toml")
    assert isinstance(loaded, RouterConfig)
    assert loaded.tls_listen == (Address("0.0.0.0", 2762),)
    assert loaded.certificate == tmp_path / "router.pem"
    assert loaded.device_ca_file == tmp_path / "devices.pem"


def test_a_routers_pages_are_on_this_machine_unless_it_is_said(tmp_path: Path) -> None:
    for number, (arguments, expected) in enumerate(
        (
            ((), (Address("127.0.0.1", 8080),)),
            (("--pages", "127.0.0.1:8081"), (Address("127.0.0.1", 8081),)),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert init(folder, "--mode", "router", *arguments).exit_code == 0
        loaded = config_file.load(folder / "relay.toml")
        assert isinstance(loaded, RouterConfig)
        assert loaded.pages.listen == expected
    result = init(tmp_path, "--mode", "router", "--pages", "0.0.0.0:8080")
    assert result.exit_code == 2
    assert "router.pages.certificate: expected a PEM file" in result.stderr


def test_a_bridges_pages_are_where_routers_come(tmp_path: Path) -> None:
    arguments = ("--mode", "bridge", "--url", "https://relay.example.org", "--behind-proxy")
    assert init(tmp_path, *arguments, "--pages", "127.0.0.1:8081").exit_code == 0
    loaded = config_file.load(tmp_path / "relay.toml")
    assert isinstance(loaded, BridgeConfig)
    assert loaded.pages.on_network_port
    assert loaded.pages.listen == (Address("127.0.0.1", 8081),)


def test_a_bridge_behind_a_proxy_is_complete(tmp_path: Path) -> None:
    result = init(
        tmp_path, "--mode", "bridge", "--url", "https://relay.example.org:8443", "--behind-proxy"
    )
    assert result.exit_code == 0, result.output
    loaded = config_file.load(tmp_path / "relay.toml")
    assert isinstance(loaded, BridgeConfig)
    assert loaded.listen == (Address("127.0.0.1", 8080),)


def test_a_bridge_with_a_certificate_listens_on_the_port_of_its_url(tmp_path: Path) -> None:
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).touch()
    result = init(
        tmp_path,
        *("--mode", "bridge", "--url", "https://relay.example.org:8443"),
        *("--certificate", "chain.pem", "--private-key", "key.pem"),
    )
    assert result.exit_code == 0, result.output
    loaded = config_file.load(tmp_path / "relay.toml")
    assert isinstance(loaded, BridgeConfig)
    assert loaded.listen == (Address("0.0.0.0", 8443),)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "--mode bridge or --mode router"),
        (["--mode", "bridge"], 2, "--url"),
        (["--mode", "router", "--url", "https://h"], 2, "a Router takes no --url"),
        (["--mode", "bridge", "--url", "https://h", "--ae-title", "A"], 2, "no --ae-title"),
        (["--mode", "router", "--ae-title", "A" * 17], 2, "router.ae_title: expected an AE title"),
        (["--mode", "bridge", "--url", "http://h", "--behind-proxy"], 2, "bridge.url: expected"),
        (["--mode", "bridge", "--url", "https://h"], 2, "or behind_proxy = true"),
        (["--mode", "router", "--listen", "10.0.0.1"], 2, "router.listen: expected"),
        (["--mode", "router", "--ca-file", "no.pem"], 2, "no.pem cannot be read"),
        (["--mode", "router", "--tls-listen", "h:2762"], 2, "because tls_listen is given"),
        (["--mode", "bridge", "--url", "https://h", "--tls-listen", "h:1"], 2, "no --tls-listen"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    result = init(tmp_path, *arguments)
    assert result.exit_code == status
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text("mine")
    result = init(tmp_path, "--mode", "router")
    assert result.exit_code == 1
    assert "is there already, and is not overwritten: edit it, or move it away" in result.stderr
    assert (tmp_path / "relay.toml").read_text() == "mine"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    result = init(tmp_path / "none", "--mode", "router")
    assert result.exit_code == 1
    assert "No such file" in result.stderr
