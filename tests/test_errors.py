import inspect
import re

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
