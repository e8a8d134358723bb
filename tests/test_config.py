from pathlib import Path

from relay.bandwidth import UNLIMITED
from relay.config import (
    AuditQueries,
    BridgeConfig,
    DeviceCertificates,
    LogFormat,
    LogLevel,
    Mode,
    RouterConfig,
    TLSProfile,
    Trust,
    keys,
)
from relay.config_file import load
from relay.config_tables import (
    Answers,
    DicomwebConfig,
    FederationConfig,
    OnIncomplete,
    RouterPagesConfig,
)
from relay.values import Address


def write(folder: Path, text: str) -> Path:
    path = folder / "relay.toml"
    path.write_text(text)
    return path


def test_a_router_needs_nothing_said(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "[router]\n"))
    assert isinstance(loaded, RouterConfig)
    assert loaded == RouterConfig(
        ae_title="RELAY",
        data_dir=Path("/var/lib/relay"),
        listen=(Address("0.0.0.0", 11112),),
        tls_listen=(),
        certificate=None,
        private_key=None,
        device_ca_file=None,
        device_certificates=DeviceCertificates.ASKED,
        tls_profile=TLSProfile.BCP_195,
        proxy=None,
        ca_file=None,
        allowed_origins=(),
        trust=Trust.FIRST_USE,
        maximum_associations=256,
        spool_space=50 * 2**30,
        spool_reserve=2**30,
        spool_key=None,
        bandwidth=UNLIMITED,
        warn_after=3600.0,
        webhook=None,
        audit_syslog=None,
        audit_ca_file=None,
        audit_certificate=None,
        audit_private_key=None,
        audit_days=2557,
        audit_space=16 * 2**30,
        audit_queries=AuditQueries.KEYS,
        grace_period=30.0,
        log_level=LogLevel.INFO,
        log_format=LogFormat.AUTO,
        federation=FederationConfig(
            ae_title="FEDERATION",
            answers=Answers.MERGED,
            on_incomplete=OnIncomplete.FAILURE,
            narrowing=True,
            maximum_answers=5000,
            queries=4,
            retrieves=4,
            site_wait=30.0,
            store_to="",
        ),
        dicomweb=DicomwebConfig(
            listen=(),
            certificate=None,
            private_key=None,
            origins=(),
            open=False,
            maximum_requests=16,
        ),
        pages=RouterPagesConfig(listen=(), certificate=None, private_key=None, hosts=()),
    )


def test_a_bridge_needs_its_url_and_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text("certificate")
    (tmp_path / "key.pem").write_text("key")
    loaded = load(
        write(
            tmp_path,
            """
            [bridge]
            url = "https://relay.example.org:8443/"
            certificate = "chain.pem"
            private_key = "key.pem"
            data_dir = "data"
            listen = ["127.0.0.1:8443", "[::1]:8443"]
            blob_space = "1 GiB"
            """,
        )
    )
    assert isinstance(loaded, BridgeConfig)
    assert loaded.url == "https://relay.example.org:8443"
    assert loaded.listen == (Address("127.0.0.1", 8443), Address("::1", 8443))
    assert [str(address) for address in loaded.listen] == ["127.0.0.1:8443", "[::1]:8443"]
    assert loaded.blob_space == 2**30
    # A relative path counts from the file's folder, wherever the command is run.
    assert loaded.data_dir == tmp_path / "data"
    assert loaded.certificate == tmp_path / "chain.pem"
    assert loaded.pages.on_network_port
    assert loaded.pages.listen == ()


def test_keys_are_in_the_order_of_the_fields_and_an_example_is_the_default() -> None:
    bridge = keys(Mode.BRIDGE)
    assert next(iter(bridge)) == "url"
    assert [name for name, key in bridge.items() if key.required] == ["url"]
    assert bridge["listen"].example == bridge["listen"].default == '"0.0.0.0:443"'
    assert not any(key.required for key in keys(Mode.ROUTER).values())
