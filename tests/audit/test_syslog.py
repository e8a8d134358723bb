"""Syslog: the header of RFC 5424 and the frame of RFC 5425, as PS3.15 §A.6 wants them."""

import re
import socket

import pytest

from relay.audit.document import to_xml
from relay.audit.syslog import framed, host_name, message
from tests.audit.samples import SOURCE, kinds

HEADER = re.compile(
    rb"<(\d+)>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) relay (\d+)"
    rb" DICOM\+RFC3881 - \xef\xbb\xbf"
)


@pytest.mark.parametrize("event", kinds(), ids=lambda event: event.kind.word)
def test_the_header_is_followed_by_the_audit_message(event) -> None:
    said = message(event, SOURCE, "router.hospital.example")
    match = HEADER.match(said)
    assert match is not None
    assert said[match.end() :] == to_xml(event, SOURCE)
    assert match[1] == (b"85" if event.outcome.value == "0" else b"84")
    assert match[3] == b"router.hospital.example"


def test_a_frame_begins_with_its_length_in_octets() -> None:
    assert framed("ü".encode()) == b"2 \xc3\xbc"


@pytest.mark.parametrize(
    ("name", "shown"), [("router", "router"), ("a b\n", "ab"), ("ü", "-"), ("", "-")]
)
def test_a_host_name_is_printable(monkeypatch: pytest.MonkeyPatch, name: str, shown: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert host_name() == shown
