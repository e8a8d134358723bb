"""Settings of the audit: whom to trust, who we are, and what cannot be."""

import ssl
from pathlib import Path

import pytest

from relay.audit.settings import AuditSettings, load_collector
from relay.errors import RelayError
from tests.certificates import Authority

WHERE = ("collector.example", 6514)


def test_without_a_collector_there_is_none() -> None:
    assert load_collector(AuditSettings()) is None


def test_a_collector_has_tls_1_2_or_newer_and_its_name_is_checked(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for ca_file in (None, authority.file):
        collector = load_collector(AuditSettings(collector=WHERE, ca_file=ca_file))
        assert collector is not None
        assert str(collector) == "collector.example:6514"
        context = collector.ssl_context
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1  # and no public one beside it


def test_a_certificate_is_loaded_with_its_key(tmp_path: Path) -> None:
    identity = Authority(tmp_path).issue("router.example")
    settings = AuditSettings(
        collector=WHERE,
        certificate=identity.certificate,
        private_key=identity.private_key,
    )
    assert load_collector(settings) is not None


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    identity = Authority(tmp_path).issue()
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    with pytest.raises(RelayError, match="audit_private_key are needed together"):
        load_collector(AuditSettings(collector=WHERE, certificate=identity.certificate))
    with pytest.raises(RelayError, match=r"wrong\.pem: no certificates in PEM"):
        load_collector(AuditSettings(collector=WHERE, ca_file=wrong))
    with pytest.raises(RelayError, match=r"cannot use audit_certificate .*wrong\.pem"):
        load_collector(
            AuditSettings(collector=WHERE, certificate=wrong, private_key=identity.private_key)
        )
