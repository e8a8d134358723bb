"""The words for what goes wrong with TLS. Those of real mismatches are in test_tls."""

import ssl

import pytest

from relay.tls import explains
from relay.tls_words import CLOSED, in_words, is_end


def error(reason: str | None) -> ssl.SSLError:
    """As OpenSSL's errors come from Python: all that counts is `reason`."""
    made = ssl.SSLError(1, "words of OpenSSL")
    made.reason = reason  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV1_ALERT_PROTOCOL_VERSION", "no version in common"),
        ("TLSV1_ALERT_INSUFFICIENT_SECURITY", "no cipher suite in common"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "or it wants a certificate"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "set certificate and private_key"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "(certificate expired)"),
        ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", "(certificate unknown)"),
        ("TLSV1_ALERT_ACCESS_DENIED", "(access denied)"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "TLS: tlsv1 alert internal error"),
        ("LENGTH_TOO_LONG", "TLS: length too long"),
        (None, "TLS: protocol error"),
    ],
)
@pytest.mark.parametrize("calling", [True, False])
def test_reasons(reason: str | None, words: str, calling: bool) -> None:
    said = in_words(error(reason), calling=calling)
    assert words in said
    assert explains(said)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (9, "are the clocks right?"),
        (10, "renewed"),
        (18, "device_ca_file"),
        (20, "device_ca_file"),
        (62, "tls_name"),
        (64, "tls_name"),
        (66, ""),
    ],
)
def test_certificates(code: int, advice: str) -> None:
    refused = ssl.SSLCertVerificationError(1, "words")
    refused.verify_code, refused.verify_message = code, "what OpenSSL says"
    said = in_words(refused, calling=True)
    assert said.startswith("TLS: certificate refused: what OpenSSL says")
    assert said.endswith("says") if not advice else advice in said


@pytest.mark.parametrize("cause", [None, ConnectionResetError(), ssl.SSLEOFError()])
def test_an_end_in_the_handshake_has_a_hint_for_the_caller_only(cause: Exception | None) -> None:
    assert in_words(cause, calling=False) == f"{CLOSED} in the TLS handshake"
    assert in_words(cause, calling=True).endswith(
        "is this its TLS port, and does it want a certificate?"
    )


def test_ends() -> None:
    assert is_end(ssl.SSLEOFError())
    assert is_end(ssl.SSLZeroReturnError())
    assert is_end(error("UNEXPECTED_EOF_WHILE_READING"))
    assert not is_end(error("DECRYPTION_FAILED_OR_BAD_RECORD_MAC"))
    assert not is_end(None)
