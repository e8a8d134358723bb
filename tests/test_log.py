import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from relay import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Each test configures logging for itself; the others find it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(*, as_json: bool, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    log.configure(level=level, json=as_json, stream=stream)
    return stream


def test_json_is_one_object_a_line() -> None:
    stream = lines(as_json=True)
    structlog.get_logger().info("association open", calling="CT1", bytes=5)
    structlog.get_logger().warning("association lost")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (
        first["event"],
        first["level"],
        first["calling"],
        first["bytes"],
    ) == ("association open", "info", "CT1", 5)
    assert second["level"] == "warning"
    assert first["timestamp"].endswith("Z")


def test_text_is_for_people_and_uncoloured_off_a_terminal() -> None:
    stream = lines(as_json=False)
    structlog.get_logger().info("association open", calling="CT1")
    assert "association open" in stream.getvalue()
    assert "calling=CT1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_lines_below_the_level_are_not_written() -> None:
    stream = lines(as_json=True, level="warning")
    structlog.get_logger().info("association open")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "hostile",
    [
        "CT1\n2026-01-01 [info] forged",
        "\r\x1b[2Jgone",
        "\x9b31m",
        "a\u2028b",
        "\u202egnp.exe",
        "\ud800",
        "\0",
    ],
    ids=ascii,
)
def test_what_came_over_a_wire_stays_on_its_line(as_json: bool, hostile: str) -> None:
    stream = lines(as_json=as_json)
    structlog.get_logger().info("association open", calling=hostile)
    structlog.get_logger().info(hostile)
    written = stream.getvalue()
    assert written.count("\n") == 2
    assert not set(written) & set("\r\x1b\x9b\u2028\u202e\0")
    written.encode()


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_holds_no_local_variables_and_no_line_of_the_attackers(as_json: bool) -> None:
    stream = lines(as_json=as_json)
    patient = "DOE^JANE"
    try:
        if patient:
            raise ValueError("bad title\n2026-01-01 [info] forged\x1b[2J")
    except ValueError:
        structlog.get_logger().exception("association failed")
    written = stream.getvalue()
    assert "ValueError: bad title" in written
    assert patient not in written
    assert "\x1b" not in written
    assert not any(line.startswith("2026-01-01 [info] forged") for line in written.splitlines())


def test_bytes_are_written_as_hex() -> None:
    stream = lines(as_json=True)
    structlog.get_logger().info("session open", session=b"\x01\xff")
    assert json.loads(stream.getvalue())["session"] == "01ff"


def test_a_library_that_quotes_values_is_not_heard() -> None:
    stream = lines(as_json=True)
    logging.getLogger("pydicom").warning("Invalid value for VR PN: 'DOE^JANE'")
    logging.getLogger("pydicom.valuerep").error("Invalid value for VR PN: 'DOE^JANE'")
    assert stream.getvalue() == ""


def test_libraries_take_the_same_form_from_warnings_on() -> None:
    stream = lines(as_json=True)
    logging.getLogger("httpx").info("HTTP Request: PUT https://store.example.org/signed")
    logging.getLogger("httpx").warning("pool is %s", "full")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["library"], line["level"]) == ("pool is full", "httpx", "warning")
