"""What goes wrong with TLS, in words for the log and for people: what it is, and what to do.

OpenSSL's reasons and the peer's alerts (RFC 8446 §6) are known by name; what is not known here is
told as OpenSSL has it. All words but those of plain ends hold "TLS".
"""

import ssl

# How a connection ends without a word.
CLOSED, LOST = "connection closed by the peer", "connection lost"

# OpenSSL's X509_V_ERR_*, as Python gives them in `verify_code`.
_NOT_YET_VALID, _EXPIRED = 9, 10
_NO_ISSUER = (2, 18, 19, 20, 21)
_WRONG_NAME = (62, 64)

# What the peer says of the certificate that it was shown (alerts of RFC 8446 §6.2).
_CERTIFICATE_ALERTS = frozenset(
    {
        "UNKNOWN_CA",
        "BAD_CERTIFICATE",
        "UNSUPPORTED_CERTIFICATE",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_UNKNOWN",
        "ACCESS_DENIED",
        "DECRYPT_ERROR",
    }
)
_NO_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)
_NO_VERSION = frozenset(
    {"UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_SSL_VERSION", "PROTOCOL_VERSION"}
)
_NO_CIPHER = frozenset(
    {
        "NO_SHARED_CIPHER",
        "NO_CIPHERS_AVAILABLE",
        "WRONG_CIPHER_RETURNED",
        "NO_SHARED_SIGNATURE_ALGORITHMS",
        "NO_SUITABLE_SIGNATURE_ALGORITHM",
        "NO_SUITABLE_KEY_SHARE",
        "DH_KEY_TOO_SMALL",
        "INSUFFICIENT_SECURITY",
    }
)


def in_words(error: BaseException | None, *, calling: bool) -> str:
    """What `error` of a TLS connection means, and what to do. `calling`: as its client."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: certificate refused: {error.verify_message}{_certificate_advice(error)}"
    if is_end(error) or not isinstance(error, ssl.SSLError):
        words = f"{CLOSED} in the TLS handshake"
        return (
            f"{words}: is this its TLS port, and does it want a certificate?" if calling else words
        )
    reason = error.reason or ""
    what = reason.partition("ALERT_")[2] or reason
    if what in ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST"):
        return "HTTP on the TLS port"
    if what in _NO_TLS:
        return (
            "TLS: the peer answers without TLS: is this its TLS port, and TLS switched on there?"
            if calling
            else "no TLS on a TLS port"
        )
    if what in _NO_VERSION:
        return "TLS: no version in common: here are TLS 1.2 and 1.3"
    if what in _NO_CIPHER:
        return "TLS: no cipher suite in common: see tls_profile, and what the peer is set to"
    if what == "HANDSHAKE_FAILURE":
        return (
            "TLS: the peer ends the handshake: no cipher suite in common (see tls_profile), or it"
            " wants a certificate and was shown none"
        )
    if what == "CERTIFICATE_REQUIRED":
        return "TLS: the peer wants a certificate: set certificate and private_key"
    if what == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "TLS: the peer shows no certificate, and device_certificates requires one"
    if what in _CERTIFICATE_ALERTS:
        said = what.lower().replace("_", " ")
        return (
            f"TLS: the peer refuses the certificate that it was shown ({said}):"
            " it must know the certificate, or its authority"
        )
    return f"TLS: {(reason or 'protocol error').lower().replace('_', ' ')}"


def _certificate_advice(error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code in _WRONG_NAME:
        return ": give the name that is in it as tls_name of the device"
    if code in _NO_ISSUER:
        return ": add it, or its authority's, to device_ca_file"
    if code == _EXPIRED:
        return ": it must be renewed there, unless the clock here is wrong"
    if code == _NOT_YET_VALID:
        return ": are the clocks right?"
    return ""


def is_end(error: BaseException | None) -> bool:
    """Whether the peer has closed without close_notify (RFC 8446 §6.1), as many devices do."""
    return isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or (
        isinstance(error, ssl.SSLError) and error.reason == "UNEXPECTED_EOF_WHILE_READING"
    )
