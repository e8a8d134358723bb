"""Whose an AE title is: what one hospital calls by one name must be one thing.

On a Router several kinds of titles meet: its own, those of its devices on this side and as the
network knows them, the one under which callers are presented, the local titles of aliases, and what
others publish. Each call and each Move Destination is looked up among them (DESIGN §4); two of one
name would send objects to the wrong device. What would make two is refused here, in words that say
what to do.
"""

import shlex
import unicodedata
from collections.abc import Sequence

import attrs

from relay.errors import Refused
from relay.router.aliases import Alias, AliasTable
from relay.router.devices import Device
from relay.router.directory import Directory

LONGEST_TITLE = 16  # PS3.5 §6.2, VR AE
# Of it at most so much for what tells two hospitals' devices apart.
LONGEST_ENDING = 8

_ANOTHER = "choose another local title"


@attrs.frozen(slots=True)
class Titles:
    """All titles that one Router knows now. `directory` is None while it is not enrolled."""

    own: str  # the Router's
    devices: Sequence[Device]
    aliases: AliasTable
    directory: Directory | None
    hospital: str = ""  # its name, known once it is enrolled
    federation: str = ""  # by which devices here call all that there is; empty: nobody does

    def check_device(self, device: Device) -> None:
        """Raise Refused (409) if `device`, added or changed, had a title that is another's."""
        self._check_not_federation(device.ae_title, device.published, device.present_as)
        self._check_local(device)
        self._check_published(device)
        self._check_presented(device)

    def check_alias(self, alias: Alias) -> None:
        """Raise Refused (409) if a title of `alias` is in use here, or hides another's."""
        local, published = alias.local, alias.published
        self._check_not_federation(local, published)
        if local == self.own:
            raise _taken(local, "this Router's own AE title", _ANOTHER)
        for device in self.devices:
            if local in (device.ae_title, device.published):
                raise _taken(local, f"the device {device.ae_title}", _ANOTHER)
            if local == device.present_as:
                raise _taken(
                    local,
                    f"what {device.ae_title} is called by (--present-as)",
                    _ANOTHER,
                )
            if published == device.published:
                raise _taken(
                    published,
                    f"also the published title of the device {device.ae_title} here",
                    "if another hospital's is meant, first give this one another with"
                    f" {self.remedy(device)}",
                )
        if local != published and self._shown(local):
            raise _taken(
                local,
                "published by another hospital, which could not be called any more",
                _ANOTHER,
            )

    def _check_local(self, device: Device) -> None:
        title = device.ae_title
        if title == self.own:
            raise Refused(409, f"{title!r} is this Router's own AE title")
        if (published := self.aliases.published_of(title)) is not None:
            raise _taken(title, f"here for {published!r}", f"`relay alias remove {title}` first")
        for other in self._others(device):
            if title == other.published:
                raise _taken(
                    title,
                    f"what the network knows {other.ae_title} as",
                    f"publish that one by another: `relay device add {other.ae_title} … --as …`",
                )
            if title == other.present_as:
                raise _taken(
                    title,
                    f"what {other.ae_title} is called by",
                    f"`relay device add {other.ae_title} … --present-as …` changes that",
                )

    def _check_published(self, device: Device) -> None:
        title = device.published
        advice = f"give {device.ae_title} another with `--as {self.suggested(device.ae_title)}`"
        if title == self.own:
            raise _taken(title, "this Router's own AE title", advice)
        if (local := self.aliases.local_of(title)) is not None:
            raise _taken(
                title,
                f"another hospital's, known here as {local!r}",
                f"{advice}, or `relay alias remove {local}` first",
            )
        if self.aliases.published_of(title) is not None:
            raise _taken(title, "the local title of an alias", advice)
        for other in self._others(device):
            if title in (other.ae_title, other.published):
                raise _taken(title, f"the device {other.ae_title}", advice)
            if title == other.present_as:
                raise _taken(title, f"what {other.ae_title} is called by", advice)

    def _check_presented(self, device: Device) -> None:
        # The Router's own title is fine: a PACS may have one entry, for its Router.
        title = device.present_as
        if not title:
            return
        advice = "present callers as this Router's own AE title, or one that nobody has"
        if title in (device.ae_title, device.published):
            raise _taken(title, "the device itself", advice)
        for other in self._others(device):
            if title in (other.ae_title, other.published):
                raise _taken(title, f"the device {other.ae_title}", advice)
        if self.aliases.published_of(title) is not None:
            raise _taken(title, "the local title of an alias", advice)
        if self._shown(title):
            raise _taken(title, "published by another hospital", advice)

    def check_federation(self) -> None:
        """Raise Refused (409) if the federation's own title is somebody's here already."""
        title = self.federation
        if not title:
            return
        advice = "give the federation another one, `ae_title` of [router.federation] in relay.toml"
        if title == self.own:
            raise _taken(title, "this Router's own AE title", advice)
        for device in self.devices:
            if title in (device.ae_title, device.published, device.present_as):
                raise _taken(title, f"the device {device.ae_title}", advice)
        if self.aliases.published_of(title) is not None or self.aliases.local_of(title) is not None:
            raise _taken(title, "in an alias", advice)

    def _check_not_federation(self, *titles: str) -> None:
        # Also as published by another hospital: no federation asks another one (DESIGN §4).
        if self.federation and self.federation in titles:
            raise _taken(
                self.federation,
                "what this hospital's federation is called by",
                "choose another title, or change `ae_title` of [router.federation] in relay.toml",
            )

    def remedy(self, device: Device) -> str:
        """The command that gives `device` another title in the network."""
        title = shlex.quote(device.ae_title)
        return f"`relay device add {title} {device.host} --as {self.suggested(device.ae_title)}`"

    def suggested(self, ae_title: str) -> str:
        """A title by which the network could know `ae_title`: free as far as this Router knows.

        Made of the hospital's name where that is known: its only word, or its initials.
        """
        word = _ending_of(self.hospital)
        for ending in (*([word] if word else []), *"BCDEFGHIJKLMNOPQRSTUVWXYZ"):
            ending = ending[:LONGEST_ENDING]
            title = f"{ae_title[: LONGEST_TITLE - 1 - len(ending)].rstrip(' ')}_{ending}"
            if self._free(title):
                return title
        return "…"

    def _free(self, title: str) -> bool:
        return (
            title not in (self.own, self.federation)
            and all(title not in (d.ae_title, d.published, d.present_as) for d in self.devices)
            and self.aliases.published_of(title) is None
            and self.aliases.local_of(title) is None
            and not self._shown(title)
        )

    def _others(self, device: Device) -> list[Device]:
        return [known for known in self.devices if known.ae_title != device.ae_title]

    def _shown(self, title: str) -> bool:
        return self.directory is not None and self.directory.is_published(title)


def _ending_of(hospital: str) -> str:
    """What of a hospital's name can stand in an AE title; empty if nothing can."""
    plain = unicodedata.normalize("NFKD", hospital).upper()
    words = ["".join(c for c in word if c.isascii() and c.isalnum()) for word in plain.split()]
    words = [word for word in words if word]
    return words[0] if len(words) == 1 else "".join(word[0] for word in words)


def _taken(title: str, whose: str, advice: str) -> Refused:
    return Refused(409, f"{title!r} is {whose}: {advice}")
