"""Syslog messages with an audit message in them, framed for TLS.

RFC 5424 (header), RFC 5425 §4.3 (octet counting), PS3.15 §A.6 (what the header says).
"""

import os
import socket
from typing import Final

from relay.audit.codes import Outcome
from relay.audit.document import AuditSource, moment, to_xml
from relay.audit.events import AuditEvent

# PS3.15 §A.6: security/authorization; "normal but significant", or a warning (RFC 5424 §6.2.1).
FACILITY: Final = 10
NOTICE: Final = 5
WARNING: Final = 4

# PS3.15 §A.6: of messages by its schema.
MESSAGE_ID: Final = "DICOM+RFC3881"

APPLICATION: Final = "relay"

# RFC 5424 §6: how long a HOSTNAME may be.
_HOST_NAME_LENGTH = 255

# RFC 5424 §6.4: what begins a MSG that is UTF-8.
_BOM = b"\xef\xbb\xbf"


def host_name() -> str:
    """This machine's name as a HOSTNAME (RFC 5424 §6.2.4); "-" where it has none that may be."""
    name = socket.gethostname()
    printable = "".join(c for c in name if "!" <= c <= "~")
    return printable[:_HOST_NAME_LENGTH] or "-"


def message(event: AuditEvent, source: AuditSource, host: str) -> bytes:
    """The syslog message of `event`. RFC 5424 §6."""
    severity = NOTICE if event.outcome is Outcome.SUCCESS else WARNING
    header = (
        f"<{8 * FACILITY + severity}>1 {moment(event.at)} {host} {APPLICATION} {os.getpid()}"
        f" {MESSAGE_ID} - "
    )
    return header.encode("ascii") + _BOM + to_xml(event, source)


def framed(message: bytes) -> bytes:
    """A frame of RFC 5425 §4.3: the length in octets, a space, the message."""
    return b"%d %b" % (len(message), message)
