"""What S3's answers mean: its error codes in words, and what its headers tell of the bucket."""

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from types import MappingProxyType

import httpx

from relay.providers import Finding

# A GET URL lives 60 s by this machine's clock: half of it may get lost between two clocks.
CLOCK_TOLERANCE = 30.0

# Characters of an error that are looked through: S3's are XML of some hundred.
ERROR_READ = 4096

_CLOCK = "set this machine's clock (NTP): S3 refuses requests more than 15 minutes off"

# S3 API reference, "Error responses"; what an administrator can do about each.
ADVICE = MappingProxyType(
    {
        "AccessDenied": "the access key may not do this: give it the rights of docs/providers.md,"
        " or is `bucket` misspelt?",
        "AuthorizationHeaderMalformed": "the bucket is in another region: check region",
        "AuthorizationQueryParametersError": "the bucket is in another region: check region",
        "ExpiredToken": "session_token has expired: give a new one",
        "IllegalLocationConstraintException": "the bucket is in another region: check region",
        "InvalidAccessKeyId": "the store does not know the access key: check access_key",
        "InvalidBucketName": "no bucket can have that name: check bucket",
        "InvalidToken": "session_token does not hold: give a new one, or none",
        "MethodNotAllowed": "the store does not know this request: is endpoint an S3 address?",
        "NoSuchBucket": "there is no such bucket: check region and endpoint, or is `bucket`"
        " misspelt?",
        "NotImplemented": "the store does not know a header of this request (If-None-Match)",
        "PermanentRedirect": "the bucket is in another region: check region and endpoint",
        "RequestTimeTooSkewed": _CLOCK,
        "SignatureDoesNotMatch": "the secret key does not fit the access key: check secret_key",
        "SlowDown": "the store asks for fewer requests: try again later",
    }
)

_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
# How obstore tells of one object that DeleteObjects did not delete.
_CODE_OF_ONE = re.compile(r"\(code: ([A-Za-z]{1,64})\)")
_STATUS = re.compile(r"status code: (\d{3})")


def words_for(error: Exception) -> str:
    """What a library's error says, in words that hold neither URLs nor keys."""
    text = str(error)
    if code := _CODE.search(text) or _CODE_OF_ONE.search(text):
        return _advice(code[1])
    if status := _STATUS.search(text):
        return f"the store answered {status[1]}"
    if "HTTP error" in text:
        return "no answer: check endpoint, firewall, certificate and ca_file"
    return type(error).__name__


def _advice(code: str) -> str:
    return f"{code}: {ADVICE[code]}" if code in ADVICE else f"the store answered {code}"


class AnswerReader:
    """Looks at the answers to a probe. `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._skew: float | None = None
        self._versions = False
        self._locked = False
        self.seen = False

    def read(self, answer: httpx.Response) -> str:
        """Note what this answer tells; the advice if it was not the one to expect."""
        self.seen = True
        self._versions |= (
            "x-amz-version-id" in answer.headers or "x-amz-delete-marker" in answer.headers
        )
        self._locked |= any(name.startswith("x-amz-object-lock") for name in answer.headers)
        self._note_clock(answer.headers.get("date", ""))
        text = answer.text[:ERROR_READ] if answer.is_error else ""
        # S3, "PutObject": a bucket with default retention wants a checksum, which Relay sends none.
        self._locked |= "Object Lock" in text
        code = _CODE.search(text)
        if code is None:
            return f"the store answered {answer.status_code}"
        if code[1] == "AccessDenied" and re.search(r"expired|not valid yet", text):
            return f"RequestTimeTooSkewed: {_CLOCK}"
        return _advice(code[1])

    def _note_clock(self, date: str) -> None:
        try:
            # To whole seconds, so half of one is the fairest guess.
            self._skew = self._clock() - parsedate_to_datetime(date).timestamp() - 0.5
        except ValueError:
            return  # a store that does not say what time it has

    def clock(self) -> Finding:
        """How far this machine's clock is from the store's."""
        if self._skew is None:
            return Finding("clock: the store does not say its time", True)
        seconds = abs(self._skew)
        if seconds <= CLOCK_TOLERANCE:
            return Finding("clock", True)
        way = "ahead of" if self._skew > 0 else "behind"
        return Finding(f"clock: {seconds:.0f} s {way} the store's", False, _CLOCK)

    def versioning(self, *, allowed: bool) -> Finding:
        """Whether the bucket keeps what is deleted, as versions."""
        if not self._versions:
            return Finding("no versioning", True)
        if allowed:
            return Finding("versioning is on, and allowed", True)
        return Finding(
            "no versioning",
            False,
            "the bucket keeps every deleted object as an old version, for ever: use a bucket that"
            " never had versioning, or give allow_versioning=true and a lifecycle rule that deletes"
            " old versions",
        )

    def retention(self, *, allowed: bool) -> Finding:
        """Whether the bucket refuses to delete (object lock, retention, legal hold)."""
        if not self._locked:
            return Finding("no retention", True)
        if allowed:
            return Finding("retention is on, and allowed", True)
        return Finding(
            "no retention",
            False,
            "the bucket has object lock with retention: what Relay deletes stays; use another"
            " bucket, or give allow_retention=true",
        )
