"""What a person asks the Bridge about those who have nothing to do with this hospital yet.

A Router is shown only whom it concerns (relay.router.directory). Before a grant is asked for, the
owner of the AE title is sought; and where people see all hospitals, who is connected is looked up.
"""

from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from relay.errors import SignallingError
from relay.router.directory import Directory
from relay.signalling import messages
from relay.signalling.messages import Message
from relay.signalling.requests import Reply

log = structlog.get_logger()

# Seconds for the Bridge's answer, and for what it shows to be checked and kept: a person waits.
SEEKING = 5.0

# Seconds between looks: whoever asks again and again, as a page does, must not use up what the
# Bridge allows this Router for its publications.
LOOK_AGAIN = 2.0


class Asking(Protocol):
    """What is needed of the signalling client."""

    @property
    def connected(self) -> bool: ...

    async def request(
        self, build: Callable[[int], Message], deadline: float | None = None
    ) -> Reply: ...


class Side(Protocol):
    """What is needed of the network's side."""

    @property
    def directory(self) -> Directory: ...

    @property
    def client(self) -> Asking: ...


async def seek(network: Side, ae_title: str) -> None:
    """Have the owner of the published `ae_title` shown, if the Bridge says who it is."""
    directory = network.directory
    if directory.is_shown(ae_title):
        return
    try:
        reply = await network.client.request(lambda n: messages.Seek(n, ae_title), SEEKING)
    except SignallingError as error:
        log.info("not sought", ae_title=ae_title, why=str(error))
        return
    if isinstance(reply, messages.Done) and reply.refusals:
        log.info("not found", ae_title=ae_title, why=reply.refusals[0])
        return
    # What was shown came before the answer, and may be being checked still.
    with trio.move_on_after(SEEKING):
        while not directory.is_shown(ae_title):
            await directory.wait_news()


async def look(network: Side) -> None:
    """Learn who is connected now; what was known holds where the Bridge does not say."""
    now = trio.current_time()
    if not network.client.connected or now - network.directory.looked_at < LOOK_AGAIN:
        return
    network.directory.looked_at = now
    try:
        reply = await network.client.request(messages.Look, SEEKING)
    except SignallingError as error:
        log.info("not looked", why=str(error))
        return
    if isinstance(reply, messages.Present):
        network.directory.take_present(reply.routers)
