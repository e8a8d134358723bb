"""The codes of audit messages, as the standard has them.

PS3.16 CID 400 (event), 401 and 403 (event type), 402 (role), 404 (what an identifier is); the
values that PS3.15 §A.5.1 lists itself.
"""

from enum import Enum

import attrs

DCM = "DCM"
# PS3.15 §A.5.1.2.4: its own values are named by the document from which they come.
RFC_3881 = "RFC-3881"


@attrs.frozen(slots=True)
class Code:
    """A code of a coding scheme, with its meaning. PS3.15 §A.5.1, CodedValueType."""

    value: str
    meaning: str
    scheme: str = DCM


class Kind(Enum):
    """What an entry tells of: its word for people and scripts, and its Event ID (CID 400)."""

    APPLICATION = "application", Code("110100", "Application Activity")
    BEGIN = "begin", Code("110102", "Begin Transferring DICOM Instances")
    TRANSFER = "transfer", Code("110104", "DICOM Instances Transferred")
    QUERY = "query", Code("110112", "Query")
    ALERT = "alert", Code("110113", "Security Alert")
    SIGN_IN = "sign-in", Code("110114", "User Authentication")

    def __init__(self, word: str, code: Code) -> None:
        self.word = word
        self.code = code

    @classmethod
    def of(cls, word: str) -> "Kind":
        """The kind of this word. Raises ValueError."""
        for kind in cls:
            if kind.word == word:
                return kind
        raise ValueError(f"{word!r} is none of {', '.join(kind.word for kind in cls)}")


class EventType(Enum):
    """What kind of such an event it is: CID 401, and 403 for a Security Alert."""

    START = Code("110120", "Application Start")
    STOP = Code("110121", "Application Stop")
    LOGIN = Code("110122", "Login")
    LOGOUT = Code("110123", "Logout")
    NODE_AUTHENTICATION = Code("110126", "Node Authentication")
    NETWORK_CONFIGURATION = Code("110128", "Network Configuration")
    SECURITY_CONFIGURATION = Code("110129", "Security Configuration")
    RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")
    USER_SECURITY = Code("110137", "User security Attributes Changed")


class RoleID(Enum):
    """What a participant does in the event (CID 402)."""

    APPLICATION = Code("110150", "Application")
    LAUNCHER = Code("110151", "Application Launcher")
    DESTINATION = Code("110152", "Destination Role ID")
    SOURCE = Code("110153", "Source Role ID")


class IDType(Enum):
    """What the identifier of an object is (CID 404, and PS3.15 §A.5.1.2.4)."""

    STUDY = Code("110180", "Study Instance UID")
    SOP_CLASS = Code("110181", "SOP Class UID")
    NODE = Code("110182", "Node ID")
    PATIENT = Code("2", "Patient Number", RFC_3881)
    URI = Code("12", "URI", RFC_3881)


class Action(Enum):
    """What was done (PS3.15 §A.5.2, EventActionCode)."""

    READ = "R"
    EXECUTE = "E"


class Outcome(Enum):
    """How it ended (PS3.15 §A.5.2, EventOutcomeIndicator)."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"
    MAJOR_FAILURE = "12"
