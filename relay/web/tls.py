"""TLS contexts: whom a process trusts, and who it is. TLS 1.2 or newer both ways."""

import ssl
from pathlib import Path

from cryptography import x509

from relay.errors import RelayError

# What to do about a certificate whose authority is not known.
PRIVATE_AUTHORITY = (
    "if it comes from a private authority, or a proxy opens TLS, give that authority as ca_file"
)


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


def certificate_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names and IP addresses that it is for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    names = extension.value
    return [
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]


def covers(names: list[str], host: str) -> bool:
    """Whether one of `names` is the name of `host`.

    RFC 6125 §6.4: the name itself, or a wildcard in place of its first label.
    """
    host = host.lower()
    wildcard = "*." + host.partition(".")[2]
    return any(name.lower() in (host, wildcard) for name in names)


def names_in(path: Path) -> list[str]:
    """What the first certificate of the chain in `path` (PEM) is for. Raises RelayError."""
    return certificate_names(_first(path))


def end_of(path: Path) -> int:
    """Until when the first certificate of the chain in `path` (PEM) holds, in Unix seconds.

    Raises RelayError.
    """
    return int(_first(path).not_valid_after_utc.timestamp())


def _first(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise RelayError(f"{path}: no certificate in PEM: {error}") from error
