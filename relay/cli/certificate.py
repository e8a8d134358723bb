"""TLS certificates: is this one good for that host, and one made for a demonstration."""

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from relay.providers import Finding
from relay.web.tls import certificate_names, covers

# Long enough for a person to renew by hand, and to notice that the robot did not.
SOON = datetime.timedelta(days=14)


def examine(path: Path, host: str) -> Iterator[Finding]:
    """Whether the certificate in `path` (PEM, the server's first) is for `host`, and how long."""
    certificate = _load(path)
    if isinstance(certificate, Finding):
        yield certificate
        return
    yield _time(path, certificate, "the Bridge", "no Router gets in")
    names = certificate_names(certificate)
    covered = covers(names, _as_in_certificates(host))
    yield Finding(
        f"certificate is for {host}",
        covered,
        "" if covered else f"it is for {', '.join(names) or 'no name'}; see bridge.url",
    )


def lasting(path: Path, *, server: str, lost: str) -> Finding:
    """How long the certificate in `path` holds with which `server` serves; then it is `lost`."""
    certificate = _load(path)
    if isinstance(certificate, Finding):
        return certificate
    return _time(path, certificate, server, lost)


def _load(path: Path) -> x509.Certificate | Finding:
    """What is in it, or what is wrong."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        return Finding(f"certificate {path}", False, f"not a PEM certificate: {error}")


def _time(path: Path, certificate: x509.Certificate, server: str, lost: str) -> Finding:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    until = f"certificate {path} holds until {ends:%Y-%m-%d}"
    if begins > _now():
        advice = f"only from {begins:%Y-%m-%d %H:%M} UTC on: is this machine's clock right?"
    elif ends <= _now():
        advice = f"it has expired, and {lost}: renew it, and restart {server}"
    elif ends - _now() <= SOON:
        advice = f"renew it, and restart {server}"
    else:
        advice = ""
    return Finding(until, not advice, advice)


def _as_in_certificates(host: str) -> str:
    """An IPv6 address has many spellings in a URL, and one here."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def make(folder: Path, host: str) -> tuple[Path, Path, Path]:
    """Make an authority of our own and a certificate of its for `host`, good for two days.

    Returns the paths of the authority's certificate, the server's certificate, and its key. The
    authority's key is kept nowhere.
    """
    authority_key, key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    authority_name = _name("Relay demonstration authority")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key())
        .add_extension(constraints, critical=True)
        .add_extension(usage, critical=True)
        .add_extension(authority_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _builder(_name(host), authority_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    paths = folder / "ca.pem", folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[2].touch(mode=0o600)
    paths[2].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    day = datetime.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - day)
        .not_valid_after(_now() + day)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
