"""TLS contexts: whom a process trusts, and who it is. TLS 1.2 or newer both ways."""

import ssl
from pathlib import Path

from relay.errors import RelayError


def client_tls(ca_file: Path | None = None) -> ssl.SSLContext:
    """Trust in the system's authorities and in what `ca_file` (PEM) holds.

    What somebody put into `ca_file` is trusted as it stands: a Bridge's own certificate need not be
    an authority's. Raises RelayError naming the file.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise RelayError(f"{ca_file}: no certificates in PEM: {error}") from error
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """This certificate chain and key, for HTTP/1.1. Raises RelayError naming the files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise RelayError(
            f"cannot use certificate {certificate} with key {key}: {error.strerror or error}"
        ) from error
    return context
