"""Every message of Relay's that people may see, as the source has it: what docs/troubleshooting.md
is held against.

A message is the literal of a call; what is filled in is a gap, written as …. What is only passed on
from somebody else (a gap and nothing besides) is no message of Relay's.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from pathlib import Path

import attrs

ROOT = Path(__file__).parent.parent
GAP = "…"

_LEVELS = ("warning", "error", "exception", "critical")

# Those that are raised, or made to be raised, with words for people. The rest of relay.errors is of
# bytes that are wrong (RemoteProtocolError, ChunkError, HandshakeError), or of Relay's own faults
# (LocalProtocolError): the page has one entry for all of a kind, and they are no more than the
# `why` of a line of the log that it has, too.
_RAISED = (
    "AssociationAborted",
    "AuditFull",
    "ConfigurationError",
    "DatabaseError",
    "Delayed",
    "Expectation",
    "Failure",
    "IdentityError",
    "NotRunning",
    "NotTakenError",
    "ObjectDamaged",
    "PeerSilent",
    "ProviderError",
    "QueryRefused",
    "Refused",
    "RelayError",
    "SessionEnded",
    "SignallingError",
    "SourceFailed",
    "SpoolError",
    "SpoolFull",
    "UsageError",
    "rejected",
    "_mismatch",
    "_refused",
    "_said",
    "_unable",
    "unsynced",
    "wrong",
)
_FINDINGS = ("Finding",)
# Tables of words: of a device's status, of an A-ASSOCIATE-RJ.
_ROWS = ("_Row",)

# The demonstration says its own, and so do wire codecs, whose faults are the peer's bytes.
_NOT_FOR_PEOPLE = (
    "relay/bridge/auditing.py",  # words of the audit
    "relay/cli/demo/",
    "relay/packed.py",
    "relay/signalling/messages.py",
    "relay/tunnel/",
    "relay/providers/blob_urls.py",
    "relay/web/chunks.py",
    "relay/web/exchange.py",
    "relay/web/head.py",
)

# Where words are put together before they are raised, logged or found: all texts of some length
# that are returned or given a name there.
_WORDED = (
    "relay/bridge/warnings.py",
    "relay/cli/certificate.py",
    "relay/cli/control.py",
    "relay/cli/doctor.py",
    "relay/cli/doctor_calls.py",
    "relay/cli/doctor_devices.py",
    "relay/cli/doctor_machine.py",
    "relay/cli/doctor_moves.py",
    "relay/cli/doctor_web.py",
    "relay/cli/reach.py",
    "relay/errors.py",
    "relay/router/arrival.py",
    "relay/router/departure.py",
    "relay/router/federation/moving.py",
    "relay/router/names.py",
    "relay/router/network.py",
    "relay/router/outgoing.py",
    "relay/router/probe.py",
    "relay/router/queue/consignment.py",
    "relay/router/queue/delivery.py",
    "relay/router/queue/ledger.py",
    "relay/router/queue/results.py",
    "relay/router/refusals.py",
    "relay/router/relaying.py",
    "relay/spool/spool.py",
    "relay/tls_words.py",
    "relay/web/tls.py",
)
_SOME_LENGTH = 4  # words of Relay's own: shorter ones are parts of others


class Source(Enum):
    """What a message is of."""

    LOG = "a warning or an error of the log"
    RAISED = "an error, a refusal, a rejection"
    FINDING = "a finding of `relay doctor`, of a device's test or of a store's check"
    STATUS = "what a device's status means for the queue"
    WORDS = "words that are put together, in the modules of `_WORDED`"


@attrs.frozen(slots=True)
class Message:
    """`text` of `source`, in `file`, from the root on."""

    source: Source
    file: str
    text: str


def messages() -> Iterator[Message]:
    """All of them, in the order of the files."""
    for path in sorted((ROOT / "relay").rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        if not file.startswith(_NOT_FOR_PEOPLE):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield from _of_call(file, node)
                elif isinstance(node, ast.Return | ast.Assign) and node.value and file in _WORDED:
                    yield from _of_words(file, node.value)


def _of_call(file: str, call: ast.Call) -> Iterator[Message]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if isinstance(call.func, ast.Attribute) and name in _LEVELS and _is_log(call.func.value):
        source, words = Source.LOG, call.args[:1]
    elif name in _RAISED:
        source, words = Source.RAISED, call.args
    elif name in _FINDINGS:
        source, words = Source.FINDING, call.args
    elif name in _ROWS:
        source, words = Source.STATUS, call.args[2:]
    else:
        return
    for word in words:
        for text in _texts(word):
            if _says_something(text):
                yield Message(source, file, text)


def _of_words(file: str, value: ast.expr) -> Iterator[Message]:
    for text in _texts(value):
        if len(re.findall(r"[a-z]{2,}", text)) >= _SOME_LENGTH and _says_something(text):
            yield Message(Source.WORDS, file, text.strip(f" ,:;{GAP}"))


def _is_log(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in ("log", "said")


def _texts(node: ast.expr) -> Iterator[str]:
    """What `node` may say; nothing where that is not in the source."""
    match node:
        case ast.Constant(value=str(text)):
            yield text.replace("{}", GAP)
        case ast.JoinedStr(values=parts):
            yield "".join(_part(part) for part in parts)
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body)
            yield from _texts(orelse)
        case ast.Name(id=name) if name in _constants():
            yield _constants()[name]


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    value = part.value if isinstance(part, ast.FormattedValue) else part
    return _constants().get(value.id, GAP) if isinstance(value, ast.Name) else GAP


@cache
def _constants() -> Mapping[str, str]:
    """Texts that modules give a name in capitals, where one name is one text everywhere."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "relay").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                    found.setdefault(name, set()).add(text)
    return {name: min(texts) for name, texts in found.items() if name.isupper() and len(texts) == 1}


def _says_something(text: str) -> bool:
    """Whether it is more than a gap, a key of relay.toml or a file's name."""
    return " " in text and len(re.findall(r"[A-Za-z]{2,}", text.replace(GAP, " "))) >= 2


def plain(text: str) -> str:
    """`text` as it is compared: without the marks and breaks of Markdown."""
    return re.sub(r"\s+", " ", re.sub(r"[`*\\]", "", text)).strip()
