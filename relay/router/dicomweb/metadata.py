"""The metadata of objects: their attributes in JSON, without bulk data (PS3.18 §10.4.1.1.4).

A C-GET sends whole objects, so that these pass through whole; what is kept of each is its head, as
long as it takes to write that out.
"""

import json
from collections.abc import Callable, Sequence

import attrs
import trio

from relay.dicom.dimse import Status
from relay.dicom.elements import Encoding, encoding_of
from relay.dicom.pdu import Buffer
from relay.errors import Refused
from relay.router.dicomweb.answering import Answer
from relay.router.dicomweb.classes import KnownClasses
from relay.router.dicomweb.frames import encoded_in
from relay.router.dicomweb.json_model import model
from relay.router.dicomweb.keys import INSTANCE_UID, SERIES_UID, STUDY_UID
from relay.router.dicomweb.scanning import Event, Scanner, TooLargeError, UnreadableError
from relay.router.federation.sinks import Arriving, Taking
from relay.router.federation.targets import read_text

# From this size a head is made into JSON in a thread, while others are served: it takes some
# 50 ms for each MiB.
LARGE = 128 * 1024

# Available Transfer Syntax UID: in which an instance can be had.
_TRANSFER_SYNTAX = "00083002"


def scan(scanner: Scanner, fragment: Buffer) -> list[Event]:
    """What of a data set a fragment completes. Raises Refused: 413, or 502 for what is none."""
    try:
        return scanner.feed(fragment)
    except TooLargeError as error:
        raise Refused(413, f"the object is too large for that: {error}") from None
    except UnreadableError as error:
        raise Refused(502, f"the device sent what cannot be read: {error}") from None


@attrs.define(slots=True, eq=False)
class MetadataSink:
    """Sends the metadata of objects to a client (relay.router.federation.sinks.Sink), each once.

    `url` makes an instance's URL of its study, series and own UID. `wanted`: the only ones that are
    sent, if any is named; there are archives that send more.
    """

    answer: Answer
    media_type: str
    contexts: Sequence[tuple[str, Sequence[str]]]
    url: Callable[[str, str, str], str]
    known: KnownClasses
    wanted: Sequence[str] = ()
    sent: set[str] = attrs.field(factory=set)

    async def begin(self, instance: Arriving) -> Taking | int:
        """See `Sink.begin`."""
        encoding = encoding_of(instance.transfer_syntax)
        if encoding is None:
            return Status.SOP_CLASS_NOT_SUPPORTED
        if instance.sop_instance in self.sent:
            return Status.SUCCESS
        if self.wanted and instance.sop_instance not in self.wanted:
            return Status.SUCCESS
        return _Reading(self, instance, encoding)

    async def send(self, instance: Arriving, scanner: Scanner) -> None:
        """One object's head is whole."""
        if len(scanner.head) > LARGE:
            text, series = await trio.to_thread.run_sync(self._write, instance, scanner)
        else:
            text, series = self._write(instance, scanner)
        self.known.note(series, instance.sop_class, instance.source)
        self.sent.add(instance.sop_instance)
        if not self.answer.started:
            await self.answer.start(self.media_type)
        await self.answer.write((b"," if len(self.sent) > 1 else b"[") + text)

    async def end(self) -> None:
        """All have come."""
        await self.answer.end(b"]")

    def _write(self, instance: Arriving, scanner: Scanner) -> tuple[bytes, str]:
        """The JSON, and the Series Instance UID in it."""
        study, series, own = (
            read_text(bytes(scanner.head), tag, scanner.encoding)
            for tag in (STUDY_UID, SERIES_UID, INSTANCE_UID)
        )
        base = self.url(study, series, own or instance.sop_instance)
        try:
            found = model(
                scanner.head,
                encoded_in(instance.transfer_syntax),
                bulk=scanner.bulk,
                uri=lambda path: f"{base}/bulkdata/{path}",
            )
        except ValueError as error:
            raise Refused(502, f"the device sent what cannot be read: {error}") from None
        # What it came in, for who asks for frames next (PS3.18 §8.7.4).
        found[_TRANSFER_SYNTAX] = {"vr": "UI", "Value": [instance.transfer_syntax]}
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode("utf-8", "replace"), series


@attrs.define(slots=True, eq=False)
class _Reading:
    sink: MetadataSink
    instance: Arriving
    encoding: Encoding
    scanner: Scanner = attrs.field(
        default=attrs.Factory(lambda self: Scanner(self.encoding), takes_self=True)
    )

    async def data(self, fragment: Buffer, last: bool) -> None:
        """See `Taking.data`. Raises Refused: 413, or 502 for what is no data set."""
        scan(self.scanner, fragment)

    async def end(self) -> int:
        """See `Taking.end`."""
        await self.sink.send(self.instance, self.scanner)
        return Status.SUCCESS

    async def abandon(self) -> None:
        """See `Taking.abandon`: nothing of it has gone out."""
