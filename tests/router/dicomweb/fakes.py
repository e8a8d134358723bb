"""What a sink sends to, and objects that arrive at it, without a connection."""

import attrs
from starlette.types import Message

from relay.router.dicomweb.answering import Answer
from relay.router.federation.sinks import Arriving, Sink
from tests.router.federation.archives import Stored


@attrs.define
class Sent:
    """What an answer was given to send."""

    messages: list[Message] = attrs.field(factory=list)

    @property
    def answer(self) -> Answer:
        return Answer(self._send)

    async def _send(self, message: Message) -> None:
        # As the server does: a view is of a buffer that is gone later.
        self.messages.append(dict(message) | {"body": bytes(message.get("body", b""))})

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages)

    @property
    def content_type(self) -> str:
        headers: dict[bytes, bytes] = dict(self.messages[0]["headers"])
        return headers[b"content-type"].decode()

    @property
    def ended(self) -> bool:
        return not self.messages[-1].get("more_body", False)


def arriving(one: Stored) -> Arriving:
    return Arriving(
        sop_class=one.sop_class,
        sop_instance=one.uid,
        transfer_syntax=one.transfer_syntax,
        source="A",
    )


async def give(sink: Sink, one: Stored, *, size: int = 16, cut: int | None = None) -> int:
    """`one` arrives at `sink` in pieces; the status. `cut`: only so much of it, and it is lost."""
    taking = await sink.begin(arriving(one))
    if isinstance(taking, int):
        return taking
    data = one.data[:cut]
    for at in range(0, len(data), size):
        last = cut is None and at + size >= len(data)
        await taking.data(memoryview(data)[at : at + size], last)
    if cut is not None:
        await taking.abandon()
        return -1
    return await taking.end()
