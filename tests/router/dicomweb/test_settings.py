"""What is a loopback address, and that the defaults are those of relay.toml."""

import pytest

from relay.config import keys_of
from relay.config_tables import DicomwebConfig
from relay.router.dicomweb.settings import DicomwebSettings, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_alone(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.1", "viewer.example.org"])
def test_others_too(host: str) -> None:
    assert not is_loopback(host)


def test_the_defaults_are_those_of_the_configuration() -> None:
    default = keys_of(DicomwebConfig)["maximum_requests"].default
    assert DicomwebSettings().maximum_requests == int(default or "")
    assert not DicomwebSettings().listen
