"""Whole objects as they come from a device, each as a DICOM file (PS3.18 §10.4.3, PS3.10 §7).

The data set goes out as it comes in, fragment by fragment: nothing of it is held or changed.
"""

from collections.abc import Sequence

import attrs

from relay.dicom.dimse import Status
from relay.dicom.pdu import Buffer
from relay.router.dicomweb import media, part10
from relay.router.dicomweb.answering import Answer
from relay.router.dicomweb.media import ObjectsAccepted
from relay.router.dicomweb.multipart import Writer
from relay.router.dicomweb.part10 import Meta
from relay.router.federation.sinks import Arriving, Taking


@attrs.define(slots=True, eq=False)
class ObjectSink:
    """Sends objects to a client (relay.router.federation.sinks.Sink), each one once.

    `alone`: one object, and not as a part. `broken`: one of those `sent` has come in part only.
    `wanted`: the only ones that are sent, if any is named; there are archives that send more.
    """

    answer: Answer
    accepted: ObjectsAccepted
    contexts: Sequence[tuple[str, Sequence[str]]]
    alone: bool = False
    broken: bool = False
    wanted: Sequence[str] = ()
    sent: set[str] = attrs.field(factory=set)
    _writer: Writer = attrs.field(factory=lambda: Writer(media.DICOM))

    async def begin(self, instance: Arriving) -> Taking | int:
        """See `Sink.begin`."""
        if instance.transfer_syntax not in self.accepted.syntaxes:
            return Status.SOP_CLASS_NOT_SUPPORTED
        if instance.sop_instance in self.sent:
            return Status.SUCCESS  # from an owner that was asked for what another one began
        if self.wanted and instance.sop_instance not in self.wanted:
            return Status.SUCCESS
        self.sent.add(instance.sop_instance)
        kind = f"{media.DICOM}; transfer-syntax={instance.transfer_syntax}"
        if not self.answer.started:
            await self.answer.start(kind if self.alone else self._writer.content_type)
        meta = part10.write(
            Meta(instance.sop_class, instance.sop_instance, instance.transfer_syntax)
        )
        await self.answer.write(meta if self.alone else self._writer.begin(kind) + meta)
        return _Sending(self)

    async def end(self) -> None:
        """All have come."""
        await self.answer.end(b"" if self.alone else self._writer.end())


@attrs.frozen(slots=True)
class _Sending:
    sink: ObjectSink

    async def data(self, fragment: Buffer, last: bool) -> None:
        """See `Taking.data`."""
        await self.sink.answer.write(fragment)

    async def end(self) -> int:
        """See `Taking.end`."""
        return Status.SUCCESS

    async def abandon(self) -> None:
        """See `Taking.abandon`."""
        self.sink.broken = True
