"""Log lines: text for people on a terminal, one JSON object a line for machines.

Lines hold ids, sizes, states and codes, never patient data; what came over a wire cannot start a
line of its own or send a control sequence to a terminal. Tracebacks are plain: no local variables,
which might hold a data set.
"""

import logging
import sys
import textwrap
import traceback
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

# httpx logs each URL at INFO, and a signed URL is a credential for its lifetime; the HTTP server
# and WebSocket libraries log each connection. Their warnings are wanted, the rest is not.
LIBRARIES = logging.WARNING

# pydicom's warnings quote the values that they are about.
_QUOTES_PATIENTS = "pydicom"

# What may not reach a log as it is: C0, DEL and C1 controls, line and paragraph separators, marks
# that reorder the text around them (Trojan Source), and lone surrogates, which no encoder takes.
_UNSAFE = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for codes in (
        range(0x20),
        range(0x7F, 0xA0),
        range(0x200E, 0x2010),
        range(0x2028, 0x202F),
        range(0x2066, 0x206A),
        range(0xD800, 0xE000),
    )
    for code in codes
} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}

_UNSAFE_BUT_NEWLINES = {code: text for code, text in _UNSAFE.items() if code != ord("\n")}


def escape(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would act on."""
    return text.translate(_UNSAFE)


def configure(*, level: str, json: bool, stream: TextIO | None = None) -> None:
    """Write structlog's lines from `level` on, and libraries' warnings, to `stream` (stderr)."""
    stream = stream if stream is not None else sys.stderr
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            exception_formatter=structlog.dev.plain_traceback,
            sort_keys=False,
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _traceback,
            _safe,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    logging.basicConfig(handlers=[_Libraries()], level=LIBRARIES, force=True)
    logging.getLogger(_QUOTES_PATIENTS).setLevel(logging.CRITICAL)


class _Libraries(logging.Handler):
    """Hands what libraries log to structlog, so that it takes the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, record.getMessage(), library=record.name, exc_info=record.exc_info)


def _traceback(logger: Any, method: str, event: EventDict) -> EventDict:
    """Put a traceback in place of `exc_info`, indented: no line of it can pass for a log line."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    elif isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    if exc_info and exc_info[0] is not None:
        text = "".join(traceback.format_exception(*exc_info)).rstrip()
        event["exception"] = textwrap.indent(text, "  ")
    return event


def _safe(logger: Any, method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if key == "exception":
            event[key] = value.translate(_UNSAFE_BUT_NEWLINES)
        elif isinstance(value, str):
            event[key] = escape(value)
        elif isinstance(value, bytes):
            event[key] = value.hex()
    return event
