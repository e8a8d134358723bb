"""Whom the federation asks for a caller: devices of this hospital, and those that others grant it.

A device whose Router is away is asked all the same: that it does not answer is what the caller has
to be told. So is a network of which nothing is known yet, since nobody can say what is missing.
What a peer's Router grants to some callers only is found out by asking, and remembered for a while.
"""

from collections import OrderedDict
from collections.abc import Iterator
from math import inf
from typing import Final

import attrs
import structlog
import trio

from relay.errors import RelayError
from relay.router.devices import Device
from relay.router.directory import Directory
from relay.router.federation.settings import FederationSettings
from relay.router.node import Node
from relay.router.queue import asking
from relay.router.services import Service

log = structlog.get_logger()

# Seconds for which a device's description holds: issuers and character sets change with a PACS.
DESCRIPTION_LIFE = 6 * 3600.0
# That there was none to be had holds for so many times the seconds that it took to learn this: who
# asks again and again waits a thirteenth of the time at most, and a Router that was away for a
# moment is asked again at once. Without a description a device is asked in the wrong characters, or
# not at all.
FAILURE_FACTOR = 12.0
# Seconds for a description: a person waits for the query behind it.
DESCRIPTION_WAIT = 5.0
# Titles of other hospitals, each for some callers.
MAXIMUM_DESCRIPTIONS = 4096

# Seconds for which a device is not asked for a caller to whom it was not granted, unless the Bridge
# says meanwhile that grants have changed. It does not say so of one more caller in a hospital that
# has the grant already.
NOT_GRANTED_LIFE = 60.0
MAXIMUM_NOT_GRANTED = 16384

# What stands for all other hospitals' devices as long as nobody has said which there are.
NETWORK: Final = "the network"


@attrs.frozen(slots=True)
class Source:
    """A device that can be asked. `device` is ours; None: another hospital's.

    `title` is its name in this hospital, `published` the network's: for a device of ours which is
    not published, its AE title. `hospital` is for people.
    """

    title: str
    published: str
    hospital: str
    device: Device | None
    retrieves: bool

    @property
    def known(self) -> bool:
        """Whether it is a device, and not what stands for those that are not known yet."""
        return bool(self.published)


@attrs.frozen(slots=True)
class Description:
    """What a device's hospital says of it; empty: nothing."""

    issuer: str = ""
    character_set: str = ""


@attrs.define(slots=True, eq=False)
class _Described:
    """What is remembered of one title for one caller, and since when and until when, by trio's
    clock."""

    description: Description = Description()
    since: float = -inf
    until: float = -inf
    asking: trio.Lock = attrs.field(factory=trio.Lock)

    def learn(self, description: Description, life: float) -> None:
        """This is so for `life` seconds from now on."""
        self.description = description
        self.since = trio.current_time()
        self.until = self.since + life


class Sources:
    """The devices that there are, and what is known of them."""

    def __init__(self, node: Node, settings: FederationSettings) -> None:
        self._node = node
        self._settings = settings
        self._described: OrderedDict[tuple[str, str], _Described] = OrderedDict()
        self._not_granted: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._grants_told = 0  # when those were not granted

    def of(self, caller: Device | None) -> list[Source]:
        """All that may be asked for `caller`; None is the Router itself. Ours first, by title."""
        return [*self._own(caller), *self._peers(caller)]

    def not_granted(self, caller: Device | None, source: Source) -> None:
        """Its hospital does not grant `source` to this caller: leave it out for a while."""
        self._forget_old_grants()
        key = (self._calling(caller), source.published)
        self._not_granted[key] = trio.current_time() + NOT_GRANTED_LIFE
        self._not_granted.move_to_end(key)
        if len(self._not_granted) > MAXIMUM_NOT_GRANTED:
            self._not_granted.popitem(last=False)

    async def describe(self, source: Source, caller: Device | None) -> Description:
        """What `source` is like, by the word of its hospital; nothing if that does not come soon.

        Takes DESCRIPTION_WAIT seconds at the most, and two more to end a session.
        """
        if source.device is not None:
            return Description(source.device.issuer, source.device.character_set)
        if not source.known:
            return Description()
        key = (self._calling(caller), source.published)
        known = self._described.setdefault(key, _Described())
        self._described.move_to_end(key)
        if len(self._described) > MAXIMUM_DESCRIPTIONS:
            self._described.popitem(last=False)
        came = trio.current_time()
        if came < known.until:
            return known.description
        with trio.move_on_after(DESCRIPTION_WAIT) as patience:
            async with known.asking:
                if known.since < came:  # nobody has learned it meanwhile
                    await self._ask(known, key, patience)
        return known.description

    async def _ask(
        self, known: _Described, key: tuple[str, str], patience: trio.CancelScope
    ) -> None:
        calling, title = key
        began = trio.current_time()
        try:
            said = await asking.describe(self._node, title, calling, DESCRIPTION_WAIT)
        except RelayError as error:
            log.info("device not described", called=title, why=str(error))
            self._failed(known, began)
        except trio.Cancelled:
            if patience.cancel_called:  # else it is the caller who does not want it any more
                self._failed(known, began)
            raise
        else:
            known.learn(Description(said.issuer, said.character_set), DESCRIPTION_LIFE)

    @staticmethod
    def _failed(known: _Described, began: float) -> None:
        known.learn(Description(), FAILURE_FACTOR * (trio.current_time() - began))

    # --- who there is -----------------------------------------------------------------------------

    def _own(self, caller: Device | None) -> Iterator[Source]:
        network = self._node.network
        hospital = self._node.ae_title if network is None else network.membership.name
        for device in self._node.devices:
            if device.federation and (caller is None or device.ae_title != caller.ae_title):
                yield Source(device.ae_title, device.published, hospital, device, True)

    def _peers(self, caller: Device | None) -> Iterator[Source]:
        network = self._node.network
        if network is None:
            return
        if not network.directory.knows_grants:
            yield Source(NETWORK, "", NETWORK, None, True)
            return
        self._forget_old_grants()
        calling, now = self._calling(caller), trio.current_time()
        yield from sorted(
            (
                source
                for source in self._granted(network.directory)
                if self._not_granted.get((calling, source.published), now) <= now
            ),
            key=lambda source: source.title,
        )

    def _forget_old_grants(self) -> None:
        """What was not granted may be by now, once the Bridge has said anything new of grants."""
        network = self._node.network
        told = 0 if network is None else network.directory.grants_told
        if told != self._grants_told:
            self._grants_told = told
            self._not_granted.clear()

    def _granted(self, directory: Directory) -> Iterator[Source]:
        """What is granted to this Router, for whichever of its callers."""
        for published, peer, words in directory.granted_titles(Service.QUERY):
            title = self._node.names.local(published)
            # One that has no name here cannot be called by anybody here.
            if title is not None and self._settings.ae_title not in (title, published):
                yield Source(title, published, peer.name, None, Service.RETRIEVE in words)

    def _calling(self, caller: Device | None) -> str:
        """The published title that the network hears as calling AE title."""
        return self._node.ae_title if caller is None else caller.published
