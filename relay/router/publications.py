"""What this Router tells the Bridge about itself: its HPKE key, its devices, its grants.

Told anew with every connection, and after each change; the Bridge answers with what it does not
take (an AE title that another hospital publishes already), which people see in the status.
"""

from collections.abc import Callable
from typing import Protocol

import structlog

from relay.database import Database
from relay.identity import Identity, Publication
from relay.router import services
from relay.router.devices import DeviceTable
from relay.router.grants import GrantTable
from relay.router.keyring import Keyring
from relay.router.schema import next_serial
from relay.signalling import messages

log = structlog.get_logger()

# How the Bridge begins the refusal of a title that another hospital has.
_TAKEN = "{} is published by "


class Requests(Protocol):
    """What is needed of the signalling client."""

    async def request(self, build: Callable[[int], messages.Message]) -> messages.Message: ...


class Publisher:
    """Keeps the Bridge's picture of this Router right.

    With the first publication of a process, and when devices have changed, their statements get a
    new serial: what was said earlier, also before a backup was restored, holds no more.
    """

    def __init__(
        self,
        database: Database,
        identity: Identity,
        network: bytes,
        keyring: Keyring,
        devices: DeviceTable,
        grants: GrantTable,
    ) -> None:
        self._database = database
        self._identity = identity
        self._network = network
        self._keyring = keyring
        self._devices = devices
        self._grants = grants
        self._serial: int | None = None
        self.refusals: tuple[str, ...] = ()

    def devices_changed(self) -> None:
        """What is published next goes before what was said earlier."""
        self._serial = None

    async def publish(self, client: Requests, now: int) -> None:
        """Tell the Bridge everything; `now` is Unix seconds.

        Raises SignallingError if the connection is lost.
        """
        await self._request(
            client,
            lambda number: messages.PublishKey(number, self._keyring.statement(self._network)),
        )
        if self._serial is None:
            self._serial = await next_serial(self._database, "publication serial", now)
        statements = tuple(self._statements(self._serial))
        refused = await self._request(client, lambda n: messages.Publish(n, statements))
        refused += await self._request(
            client, lambda n: messages.Grants(n, self._grants.for_bridge())
        )
        self.refusals = refused

    def refusal_of(self, title: str) -> str | None:
        """What the Bridge said against publishing `title`, when it was told last."""
        for words in self.refusals:
            if words.startswith((_TAKEN.format(title), f"{title}: ")):
                return words
        return None

    def is_taken(self, title: str) -> bool:
        """Whether the Bridge said that another hospital publishes `title`."""
        return any(words.startswith(_TAKEN.format(title)) for words in self.refusals)

    def _statements(self, serial: int) -> list[bytes]:
        return [
            Publication(
                self._network, device.published, services.ordered(device.services), serial
            ).sign(self._identity)
            for device in self._devices
            if device.services
        ]

    @staticmethod
    async def _request(
        client: Requests, build: Callable[[int], messages.Message]
    ) -> tuple[str, ...]:
        answer = await client.request(build)
        if not isinstance(answer, messages.Done):
            return ()
        for words in answer.refusals:
            log.warning("refused by the Bridge", why=words)
        return answer.refusals
