"""What the configuration says of the audit, as plain values: relay.toml's own are in relay.config.

The defaults are those of relay.toml; the command line's tests hold the two together.
"""

import ssl
from pathlib import Path

import attrs

from relay.audit.audit import DEFAULT_DAYS, DEFAULT_SPACE
from relay.audit.sender import Collector
from relay.errors import RelayError
from relay.web.tls import client_tls


@attrs.frozen(slots=True, kw_only=True)
class AuditSettings:
    """How long entries are kept, on how much of the disk, and where they are sent.

    `collector` is the host and port of a syslog collector over TLS, None for none; `ca_file` whom
    to trust for it, None for the system's authorities; `certificate` and `private_key` who we are,
    if it asks.
    """

    days: int = DEFAULT_DAYS
    space: int = DEFAULT_SPACE
    collector: tuple[str, int] | None = None
    ca_file: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


def load_collector(settings: AuditSettings) -> Collector | None:
    """Where the audit is sent. Raises RelayError that names what cannot be used."""
    if settings.collector is None:
        return None
    if (settings.certificate is None) is not (settings.private_key is None):
        raise RelayError("audit_certificate and audit_private_key are needed together, or neither")
    return Collector(*settings.collector, _tls(settings))


def _tls(settings: AuditSettings) -> ssl.SSLContext:
    """TLS 1.2 or newer (PS3.15 §A.6), to a collector whose name is checked (RFC 5425 §5.2)."""
    context = client_tls(settings.ca_file)
    if settings.ca_file is not None:
        # A hospital's collector has a certificate of the hospital's own: no public authority is to
        # vouch for another one of that name.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(settings.ca_file)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if settings.certificate is not None and settings.private_key is not None:
        try:
            context.load_cert_chain(settings.certificate, settings.private_key)
        except (OSError, ssl.SSLError) as error:
            raise RelayError(
                f"cannot use audit_certificate {settings.certificate} with audit_private_key"
                f" {settings.private_key}: {error.strerror or error}"
            ) from error
    return context
