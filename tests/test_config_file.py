from pathlib import Path

import pytest

from relay import config_file
from relay.config import BridgeConfig, Mode, RouterConfig
from relay.errors import ConfigurationError


def write(folder: Path, text: str) -> Path:
    path = folder / "relay.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("[router", "", "not valid TOML"),
        ("[ruter]", "ruter", "unknown table; did you mean router?"),
        ("router = 1", "router", "expected a table"),
        ("", "", "has neither [bridge] nor [router]"),
        ("[router]\n[bridge]\n", "", "has both [bridge] and [router]: say which"),
        ('[router]\nae_titel="X"', "router.ae_titel", "did you mean ae_title?"),
        ("[router]\nzzz=1", "router.zzz", "unknown key; expected one of ae_title"),
        ('[router]\nae_title="A\\\\B"', "router.ae_title", "expected an AE title"),
        ('[router]\nae_title="  "', "router.ae_title", "expected an AE title"),
        ('[router]\nae_title="SEVENTEEN_LETTERS"', "router.ae_title", "1 to 16"),
        ('[router]\nlisten="here"', "router.listen", '"HOST:PORT"'),
        ('[router]\nlisten="h:65536"', "router.listen", '"HOST:PORT"'),
        ("[router]\nlisten=[]", "router.listen", '"HOST:PORT"'),
        ("[router]\nlisten=104", "router.listen", '"HOST:PORT"'),
        ('[router]\ntls_listen="2762"', "router.tls_listen", "which may be empty"),
        ('[router]\ntls_listen="h:2762"', "router.certificate", "because tls_listen is given"),
        (
            '[router]\ncertificate="relay.toml"',
            "router.private_key",
            "because certificate is given",
        ),
        (
            '[router]\nprivate_key="relay.toml"',
            "router.certificate",
            "because private_key is given",
        ),
        (
            '[router]\ndevice_certificates="required"',
            "router.device_ca_file",
            'because device_certificates is "required"',
        ),
        ("[router]\ndevice_certificates=true", "router.device_certificates", '"asked"'),
        ('[router]\ntls_profile="bcp"', "router.tls_profile", '"non-downgrading-bcp195"'),
        ('[router]\ntrust="all"', "router.trust", '"first-use", "contacts"'),
        ("[router]\ntrust=[]", "router.trust", '"first-use", "contacts"'),
        ("[router]\nmaximum_associations=0", "router.maximum_associations", "1 to 10000"),
        ("[router]\nmaximum_associations=true", "router.maximum_associations", "whole"),
        ('[router]\ngrace_period="30"', "router.grace_period", "a number of seconds"),
        ("[router]\ngrace_period=nan", "router.grace_period", "a number of seconds"),
        ("[router]\nfederation=1", "router.federation", "expected a table: [router.federation]"),
        ("[router.federation]\nqueres=1", "router.federation.queres", "did you mean queries?"),
        ("[router]\nfederatoin=1", "router.federatoin", "did you mean federation?"),
        ("[router.federation]\nqueries=0", "router.federation.queries", "1 to 64"),
        ('[router.federation]\nae_title="A\\\\B"', "router.federation.ae_title", '"" for none'),
        (
            '[router]\nae_title="X"\nfederation.ae_title="X"',
            "router.federation.ae_title",
            "another AE title than the Router's own",
        ),
        (
            '[router.federation]\nstore_to="FEDERATION"',
            "router.federation.store_to",
            "AE title of a device",
        ),
        ('[router.dicomweb]\norigins=["https://A.example"]', "router.dicomweb.origins", "lower"),
        ('[router.dicomweb]\norigins=["https://a.example/"]', "router.dicomweb.origins", "path"),
        ('[router.dicomweb]\norigins=["http://a.example:80"]', "router.dicomweb.origins", "port"),
        ('[router.dicomweb]\norigins=["*"]', "router.dicomweb.origins", "a list of origins"),
        ('[router.dicomweb]\norigins="http://a"', "router.dicomweb.origins", "a list of origins"),
        (
            '[router.dicomweb]\nopen=true\nlisten=["127.0.0.1:80", "0.0.0.0:80"]',
            "router.dicomweb.open",
            "others than this machine",
        ),
        (
            '[router.dicomweb]\ncertificate="relay.toml"',
            "router.dicomweb.private_key",
            "because certificate is given",
        ),
        (
            '[router.pages]\nlisten=["127.0.0.1:80", "10.0.0.1:80"]',
            "router.pages.certificate",
            "others than this machine",
        ),
        ('[router.pages]\nlisten="relay:80"', "router.pages.certificate", "others than"),
        (
            '[router.pages]\nprivate_key="relay.toml"',
            "router.pages.certificate",
            "because private_key is given",
        ),
        ('[router.pages]\nhosts="a.example"', "router.pages.hosts", "a list of host names"),
        ('[router.pages]\nhosts=["https://a.example"]', "router.pages.hosts", "without a port"),
        ('[router.pages]\nhosts=["a.example:8443"]', "router.pages.hosts", "without a port"),
        ('[router.pages]\nhosts=["A.example"]', "router.pages.hosts", "lower case"),
        (
            '[bridge]\nurl="https://h"\nbehind_proxy=true\n[bridge.pages]\nlisten="0.0.0.0:81"',
            "bridge.pages.certificate",
            "others than this machine",
        ),
        ('[router]\ndata_dir=""', "router.data_dir", "expected a path"),
        (
            '[router]\nca_file="no.pem"',
            "router.ca_file",
            "no.pem cannot be read: No such",
        ),
        ('[router]\nproxy="socks://h:1"', "router.proxy", '"http://HOST:PORT"'),
        ('[router]\nproxy="http://u:p@h:1"', "router.proxy", "env:NAME or file:PATH"),
        ('[router]\nproxy="env:RELAY_UNSET"', "router.proxy", "RELAY_UNSET is not set"),
        ('[router]\nproxy="file:no"', "router.proxy", "no cannot be read: No such file"),
        ('[router]\nallowed_origins=["http://h"]', "router.allowed_origins", "https"),
        ('[router]\nallowed_origins="https://h"', "router.allowed_origins", "a list"),
        ('[bridge]\nurl="http://h"\nbehind_proxy=true', "bridge.url", "expected an https URL"),
        ('[bridge]\nurl="https://h/x"\nbehind_proxy=true', "bridge.url", "without a path"),
        ('[bridge]\nurl="https://u@h"\nbehind_proxy=true', "bridge.url", "https URL"),
        ('[bridge]\nurl="https://h:x"\nbehind_proxy=true', "bridge.url", "https URL"),
        ('[bridge]\nurl="https://h"', "bridge.certificate", "or behind_proxy = true"),
        (
            '[bridge]\nurl="https://h"\nbehind_proxy=true\nprivate_key="relay.toml"',
            "bridge.private_key",
            "not used with behind_proxy",
        ),
        ('[bridge]\nurl="https://h"\nbehind_proxy=1', "bridge.behind_proxy", "true or false"),
        ('[bridge]\nurl="https://h"\nblob_space="20 GB"', "bridge.blob_space", "expected a size"),
        (
            '[bridge]\nurl="https://h"\nblob_space=1',
            "bridge.blob_space",
            'such as 67108864 or "64 MiB"',
        ),
    ],
)
def test_an_error_is_one_line_with_file_key_and_expectation(
    tmp_path: Path, text: str, key: str, expected: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        config_file.load(path)
    message = str(caught.value)
    assert caught.value.key == key
    assert expected in message
    assert message.startswith(f"{path}: {key}")
    assert "\n" not in message


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no\.toml: cannot be read: No such file"):
        config_file.load(tmp_path / "no.toml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        config_file.load(tmp_path)
    path = tmp_path / "relay.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        config_file.load(path)
    path.write_bytes(b"#" * (config_file.MAXIMUM_FILE + 1))
    with pytest.raises(ConfigurationError, match="larger than"):
        config_file.load(path)


def test_the_mode_chooses_the_table(tmp_path: Path) -> None:
    path = write(tmp_path, '[router]\n[bridge]\nurl="https://h"\nbehind_proxy=true\n')
    assert isinstance(config_file.load(path, Mode.ROUTER), RouterConfig)
    assert isinstance(config_file.load(path, Mode.BRIDGE), BridgeConfig)
    with pytest.raises(
        ConfigurationError, match="a Router's configuration; this command is for a Bridge's"
    ):
        config_file.load(write(tmp_path, "[router]\n"), Mode.BRIDGE)
    bridge = write(tmp_path, '[bridge]\nurl="https://h"\nbehind_proxy=true\n')
    with pytest.raises(
        ConfigurationError, match="a Bridge's configuration; this command is for a Router's"
    ):
        config_file.load(bridge, Mode.ROUTER)
    with pytest.raises(ConfigurationError, match=r"expected a \[bridge\] table"):
        config_file.load(write(tmp_path, ""), Mode.BRIDGE)


def test_a_proxy_may_be_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_PROXY", "http://user:pass@proxy:3128\n")
    (tmp_path / "proxy").write_text("http://user:pass@proxy:3128\n")
    for source in ("env:RELAY_PROXY", "file:proxy"):
        loaded = config_file.load(write(tmp_path, f'[router]\nproxy="{source}"'))
        assert isinstance(loaded, RouterConfig)
        assert loaded.proxy is not None
        assert loaded.proxy.reveal() == "http://user:pass@proxy:3128"
        assert "pass" not in repr(loaded)


def test_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_file, "DEFAULT_PATHS", (tmp_path / "first", tmp_path / "second"))
    with pytest.raises(ConfigurationError, match="relay init"):
        config_file.find(None)
    (tmp_path / "second").touch()
    assert config_file.find(None) == tmp_path / "second"
    assert config_file.find(Path("given")) == Path("given")
