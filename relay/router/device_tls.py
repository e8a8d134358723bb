"""TLS towards devices: who this Router is, whom it trusts, and by which profile (PS3.15 Annex B).

The profiles are the standard's. B.12 and B.13 are those of its current edition; B.10 is retired
there, and is what devices of some years ago offer. All three begin at TLS 1.2: B.9, which falls
back to TLS 1.0, is not compatible with RFC 8996.

TLS says who a machine is, as its certificate has it. Who may do what stays with AE titles,
addresses and grants: a device whose certificate is trusted may do no more than one without TLS.
"""

import functools
import ssl
import tempfile
from enum import Enum
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from relay import association
from relay.association import TCPAssociation
from relay.errors import RelayError
from relay.patience import Timeouts
from relay.router.devices import Device

# 112 bits: RSA from 2048, elliptic curves from 224, DH from 2048, SHA-256 and better. What RFC 9325
# §4.5 and PS3.15 §B.13 demand of certificates and key exchange.
_SECURITY_LEVEL = "@SECLEVEL=2"

# ffdhe2048 of RFC 7919, which DHE needs on the serving side. PS3.15 §B.10 asks for 2048 bits.
_FFDHE2048 = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


class Profile(Enum):
    """A Secure Transport Connection Profile: the cipher suites of TLS 1.2.

    Those of TLS 1.3 are the same for all: AES-GCM and ChaCha20-Poly1305, as OpenSSL has them.
    """

    # B.12, BCP 195 RFC 8996, 9325: what RFC 9325 §4.2 recommends.
    BCP_195 = "bcp195"
    # B.13, Modified BCP 195 RFC 8996, 9325: its list, less Camellia, which OpenSSL does not have.
    MODIFIED_BCP_195 = "modified-bcp195"
    # B.10, Non-Downgrading BCP 195 (retired): with DHE, which RFC 9325 no longer recommends.
    NON_DOWNGRADING_BCP_195 = "non-downgrading-bcp195"


_SUITES = {
    Profile.BCP_195: "ECDHE+AESGCM",
    Profile.MODIFIED_BCP_195: "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM",
    Profile.NON_DOWNGRADING_BCP_195: "ECDHE+AESGCM:DHE+AESGCM:!aDSS",
}


class DeviceCertificates(Enum):
    """Whether devices that call must show a certificate of their own."""

    NONE = "none"
    ASKED = "asked"
    REQUIRED = "required"


_VERIFY = {
    DeviceCertificates.NONE: ssl.CERT_NONE,
    DeviceCertificates.ASKED: ssl.CERT_OPTIONAL,
    DeviceCertificates.REQUIRED: ssl.CERT_REQUIRED,
}


def _context(protocol: int, profile: Profile) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{_SUITES[profile]}:{_SECURITY_LEVEL}")
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    # What somebody puts into device_ca_file is trusted as it stands: a device's own certificate
    # need not be an authority's.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@functools.cache
def _unconfigured() -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_CLIENT, Profile.BCP_195)
    context.load_default_certs()
    return context


@attrs.frozen(slots=True)
class DeviceTLS:
    """The contexts for devices that are called, and for those that call.

    `serving` is None where the Router has no certificate to serve with. As it stands without
    arguments: the system's authorities are trusted, and no certificate is shown.
    """

    calling: ssl.SSLContext = attrs.field(factory=_unconfigured)
    serving: ssl.SSLContext | None = None

    async def connect(self, device: Device, timeouts: Timeouts) -> TCPAssociation:
        """Connect to `device`, over TLS if that is how it is called; nothing is sent yet.

        Raises AssociationAborted, which says why there is no connection.
        """
        return await association.connect(
            device.host,
            device.port,
            timeouts=timeouts,
            ssl_context=self.calling if device.tls else None,
            # A zone (fe80::1%eth0) is this machine's word, and in no certificate.
            server_hostname=device.tls_name or device.host.partition("%")[0],
        )


def load(
    *,
    certificate: Path | None = None,
    private_key: Path | None = None,
    device_ca_file: Path | None = None,
    device_certificates: str = DeviceCertificates.ASKED.value,
    profile: str = Profile.BCP_195.value,
) -> DeviceTLS:
    """Read the files (PEM) and make the contexts.

    `certificate` and `private_key` are the Router's own, both or neither: served to devices that
    call, and shown to those that ask for one when called. `device_ca_file` holds the authorities,
    or the certificates themselves, that are trusted for devices in both directions; without it the
    system's authorities are trusted for those that are called, and none is asked of those that
    call. Raises RelayError, one line that names the file.
    """
    chosen = Profile(profile)
    calling = _context(ssl.PROTOCOL_TLS_CLIENT, chosen)
    if device_ca_file is None:
        calling.load_default_certs()
    else:
        _trust(calling, device_ca_file)
    if certificate is None or private_key is None:
        return DeviceTLS(calling)
    serving = _context(ssl.PROTOCOL_TLS_SERVER, chosen)
    # Each association is a handshake of its own, so that what is no longer trusted is out at once;
    # and a client that only speaks does not leave tickets unread, on which closing would reset.
    serving.num_tickets = 0
    _allow_dhe(serving)
    _check_pair(certificate, private_key)
    for context in (calling, serving):
        _identify(context, certificate, private_key)
    if device_ca_file is not None:
        _trust(serving, device_ca_file)
        serving.verify_mode = _VERIFY[DeviceCertificates(device_certificates)]
    return DeviceTLS(calling, serving)


def _trust(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(authorities)
    except ssl.SSLError as error:
        raise RelayError(f"device_ca_file {authorities}: no certificates in PEM") from error
    except OSError as error:
        raise RelayError(f"device_ca_file {authorities}: {error.strerror}") from error


def _check_pair(certificate: Path, private_key: Path) -> None:
    """What OpenSSL would only call a PEM error."""
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    except OSError as error:
        raise RelayError(f"certificate {certificate}: {error.strerror}") from error
    except ValueError as error:
        raise RelayError(f"certificate {certificate}: no certificate in PEM") from error
    try:
        key = serialization.load_pem_private_key(private_key.read_bytes(), None)
    except OSError as error:
        raise RelayError(f"private_key {private_key}: {error.strerror}") from error
    except TypeError as error:
        raise RelayError(
            f"private_key {private_key}: is encrypted, and nobody is there to type its passphrase:"
            " store it without one, readable by this process alone"
        ) from error
    except ValueError as error:
        raise RelayError(f"private_key {private_key}: no private key in PEM") from error
    public = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if chain[0].public_key().public_bytes(*public) != key.public_key().public_bytes(*public):
        raise RelayError(
            f"private_key {private_key} is not the key of the first certificate in {certificate}"
        )


def _identify(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    try:
        context.load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "reason", None) or error.strerror or str(error)
        raise RelayError(
            f"certificate {certificate} with private_key {private_key}:"
            f" {why.lower().replace('_', ' ')}"
        ) from error


def _allow_dhe(context: ssl.SSLContext) -> None:
    # Python takes these parameters from a file only.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(_FFDHE2048)
        file.flush()
        context.load_dh_params(file.name)
