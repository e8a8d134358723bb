import inspect
import re
import socket
import ssl

import pytest

from relay import errors


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, str] = {}
    ancestors: list[str] = []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"    ((?:[│ ] {3})*(?:[├└]── )?)(\w+)", line):
            depth = len(match[1]) // 4
            ancestors[depth:] = [match[2]]
            drawn[match[2]] = ancestors[depth - 1] if depth else "Exception"
    defined = {
        name: cls.__base__.__name__
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, Exception) and cls.__base__ is not None
    }
    assert drawn == defined


@pytest.mark.parametrize(
    ("key", "expected"), [("router.name", "f: router.name: a name"), ("", "f: a name")]
)
def test_a_configuration_error_is_one_line(key: str, expected: str) -> None:
    assert str(errors.ConfigurationError("f", key, "a name")) == expected


def test_errors_carry_the_answer_that_the_peer_should_get() -> None:
    assert errors.RemoteProtocolError("").abort_reason == 6
    assert errors.HandshakeError("", errors.Refusal.REPLAY).refusal is errors.Refusal.REPLAY
    assert errors.Refused(404, "").status == 404
    assert errors.ObjectMissing("").permanent
    assert not errors.ProviderError("").permanent


def test_the_leaves_of_a_group_however_deep() -> None:
    first, second, third = errors.Refused(404, ""), ValueError(), errors.DatabaseError()
    group = ExceptionGroup("", [first, ExceptionGroup("", [ExceptionGroup("", [second]), third])])
    assert list(errors.leaves(group)) == [first, second, third]


def chained(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (ssl.SSLError(1, "wrong version"), "no TLS there"),
        (socket.gaierror(-2, "unknown"), "no such host: h"),
        (ConnectionRefusedError(111, "refused"), "nobody listens there"),
        (ExceptionGroup("all", [ConnectionRefusedError(111, "refused")]), "nobody listens there"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_a_connection_fault_is_found_behind_what_wraps_it(inner: BaseException, words: str) -> None:
    error = chained(RuntimeError(), chained(OSError("all attempts failed"), inner))
    assert words in str(errors.connection_fault(error, "h"))


def test_a_certificate_fault_says_what_to_do() -> None:
    inner = ssl.SSLCertVerificationError(1, "x")
    inner.verify_message = "self-signed certificate"
    error = chained(RuntimeError(), inner)
    words = "its certificate does not hold: self-signed certificate"
    assert errors.connection_fault(error, "h") == words
    assert errors.connection_fault(error, "h", "trust it") == f"{words}; trust it"


@pytest.mark.parametrize(
    ("code", "advice"),
    [(9, "clock right"), (10, "clock is wrong"), (62, "address right"), (64, "address right")],
)
def test_a_certificate_that_no_ca_file_would_mend(code: int, advice: str) -> None:
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_message, error.verify_code = "for one of several reasons", code
    words = errors.connection_fault(error, "h", "give ca_file")
    assert words is not None
    assert advice in words
    assert "ca_file" not in words


def test_what_nobody_explains_is_no_connection_fault() -> None:
    assert errors.connection_fault(RuntimeError(), "h") is None
