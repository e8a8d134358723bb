"""What S3 answers, in words; and nothing of what it was asked."""

import httpx
import pytest

from relay.providers.s3answers import ADVICE, AnswerReader, words_for

NOW = 1_800_000_000.0
DATE = "Fri, 15 Jan 2027 08:00:00 GMT"

URL = "https://s3/b?X-Amz-Signature=0123"


def error(code: str, message: str = "words") -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


def answer(status: int, text: str = "", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, text=text, headers={"Date": DATE, **named})


@pytest.fixture
def reader() -> AnswerReader:
    return AnswerReader(lambda: NOW)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"GET {URL}: 403: {error('InvalidAccessKeyId')}", "InvalidAccessKeyId: .*access_key"),
        (f"failed for key k: Access Denied. (code: AccessDenied) {URL}", "AccessDenied: "),
        (f"GET {URL}: {error('Unheard')}", "^the store answered Unheard$"),
        (f"POST {URL}: non-2xx status code: 500 Internal", "^the store answered 500$"),
        (f"POST {URL}: HTTP error: error sending request", "check endpoint"),
        (f"{URL}: something else", "^RuntimeError$"),
    ],
)
def test_errors_in_words(text: str, words: str) -> None:
    import re

    found = words_for(RuntimeError(text))
    assert re.search(words, found)
    assert "X-Amz" not in found


@pytest.mark.parametrize("code", ADVICE)
def test_every_code_has_its_advice(reader: AnswerReader, code: str) -> None:
    assert reader.read(answer(403, error(code))) == f"{code}: {ADVICE[code]}"


def test_an_answer_without_a_code(reader: AnswerReader) -> None:
    assert reader.read(answer(502, "<html>proxy</html>")) == "the store answered 502"


@pytest.mark.parametrize("message", ["Request has expired", "Request is not valid yet"])
def test_a_clock_that_is_wrong_is_named_as_such(reader: AnswerReader, message: str) -> None:
    words = reader.read(answer(403, error("AccessDenied", message)))
    assert "set this machine's clock" in words


@pytest.mark.parametrize(
    ("now", "what", "ok"),
    [
        (NOW, "clock", True),
        (NOW + 30, "clock", True),
        (NOW - 29, "clock", True),
        (NOW + 32, "clock: 32 s ahead of the store's", False),
        (NOW - 3600, "clock: 3600 s behind the store's", False),
    ],
)
def test_clocks(now: float, what: str, ok: bool) -> None:
    reader = AnswerReader(lambda: now)
    reader.read(answer(200))
    finding = reader.clock()
    assert (finding.what, finding.ok) == (what, ok)
    assert ("15 minutes" in finding.advice) is not ok


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_a_store_without_a_clock(reader: AnswerReader, date: str) -> None:
    reader.read(answer(200, Date=date))
    assert reader.clock().ok


@pytest.mark.parametrize("header", ["x_amz_version_id", "x_amz_delete_marker"])
def test_versioning(reader: AnswerReader, header: str) -> None:
    reader.read(answer(200))
    assert reader.versioning(allowed=False).ok
    reader.read(answer(204, **{header: "null"}))
    assert not reader.versioning(allowed=False).ok
    assert reader.versioning(allowed=True).ok


@pytest.mark.parametrize(
    "locked",
    [
        answer(200, x_amz_object_lock_mode="COMPLIANCE"),
        # S3, "PutObject": what a bucket with a default retention period says to Relay's PUT.
        answer(
            400,
            error(
                "InvalidRequest",
                "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests"
                " with Object Lock parameters",
            ),
        ),
    ],
)
def test_retention(reader: AnswerReader, locked: httpx.Response) -> None:
    reader.read(answer(200))
    assert reader.retention(allowed=False).ok
    reader.read(locked)
    assert not reader.retention(allowed=False).ok
    assert reader.retention(allowed=True).ok
