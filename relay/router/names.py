"""AE titles between a hospital and the network: local on one side, published on the other.

A device of this hospital is known to the network by its published title; a device of another one
is known here by its alias, or as it is published where it has none. Both ways are one to one: a
title that would mean two devices means none, since an image sent by it could reach the wrong one.

The title fields of an A-ASSOCIATE-RQ change here; those of commands in `relay.router.border`. An
A-ASSOCIATE-AC repeats what its request said, which each hop's upper layer sees to (DESIGN §4).
"""

from collections.abc import Iterator
from typing import Protocol

import attrs

from relay.dicom.pdu import AAssociateRQ
from relay.router.devices import Device, DeviceTable


class Aliases(Protocol):
    """By which local title another hospital's published one goes here (relay.router.aliases)."""

    def local_of(self, published: str) -> str | None: ...

    def published_of(self, local: str) -> str | None: ...

    def __iter__(self) -> Iterator[object]: ...


@attrs.frozen(slots=True)
class Names:
    """Both ways. `router` is the Router's own AE title, which no device has."""

    router: str
    devices: DeviceTable
    aliases: Aliases

    def published(self, local: str) -> str | None:
        """What the network calls `local`; None if the network cannot mean it."""
        if local == self.router or not local:
            return None
        if (device := self.devices.get(local)) is not None:
            return device.published
        return self.aliases.published_of(local) or local

    def local(self, published: str) -> str | None:
        """What this hospital calls `published`; None if the name means another device here."""
        if (own := self.own(published)) is not None:
            return own.ae_title
        if (alias := self.aliases.local_of(published)) is not None:
            return alias
        taken = (
            not published
            or published == self.router
            or self.devices.get(published) is not None
            or self.aliases.published_of(published) is not None
            or any(device.present_as == published for device in self.devices)
        )
        return None if taken else published

    def own(self, published: str) -> Device | None:
        """The device of this hospital that the network knows as `published`."""
        return next((d for d in self.devices if d.published == published), None)

    @property
    def differ(self) -> bool:
        """Whether any device is known by one title here and by another in the network."""
        return any(True for _ in self.aliases) or any(
            device.published != device.ae_title for device in self.devices
        )

    def shown_to(self, device: Device, calling: str) -> str | None:
        """The calling AE title that `device` sees when `calling`, of the network, calls it.

        None if it would be taken for another device here. A Router may have this one's title: what
        the device answers to that name ends here, and reaches no other device.
        """
        if device.present_as or calling == self.router:
            return device.present_as or calling
        return self.local(calling)


def why_ambiguous(title: str) -> str:
    """What to do about a published title that `Names.local` has no name for."""
    return (
        f"{title!r} is an AE title of this hospital too: give the other hospital's another name"
        f" here, `relay alias add LOCAL {title}`"
    )


def another_of_that_name(title: str) -> str:
    """What to do about another hospital's device of the same published title."""
    return (
        f"for another hospital's {title}, give that one a name of its own here,"
        f" `relay alias add LOCAL {title}`"
    )


def to_network(request: AAssociateRQ, caller: Device | None, called: str) -> AAssociateRQ:
    """`request` of a local device as the network sees it; None is the Router's own command line."""
    calling = request.calling if caller is None else caller.published
    return attrs.evolve(request, calling=calling, called=called)


def to_device(request: AAssociateRQ, called: Device, calling: str) -> AAssociateRQ:
    """`request` from the network as the device that it calls sees it."""
    return attrs.evolve(request, called=called.ae_title, calling=calling)
