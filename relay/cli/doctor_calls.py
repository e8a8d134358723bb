"""What `relay doctor` says of calls that were refused lately, and of what others may use.

A device's own message is three numbers; its Router knows why (GET /v1/refusals). What has been
mended since is not said any more; what may have been, out of sight of this Router, is told as
history and is no fault. Move Destinations are in relay.cli.doctor_moves.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from relay.providers import Finding
from relay.router.devices import addresses, plain_address
from relay.router.queue.destinations import Mode
from relay.router.refusals import (
    ABORTED,
    NO_CONNECTION,
    NO_DEVICE,
    NOT_ENROLLED,
    NOT_KNOWN_YET,
    NOT_PUBLISHED,
    NOTHING_GRANTED,
    PEER_OFFLINE,
)

# Who looks for the cause of a call that failed has made it a moment ago; older ones are in the log.
RECENT = 900.0  # seconds

# Different ones; a device that calls again and again is one.
MOST = 10

# Behind a cause that may be gone.
SINCE = "(so it was then; the next call shows whether it still is)"

_CALLS_FROM = re.compile(r"calls from ([0-9A-Fa-f:.]+)[,; ]")


@attrs.frozen(slots=True)
class Known:
    """What the running Router knows now, by which a cause stands or is gone.

    `devices` is GET /v1/devices, `directory` GET /v1/directory, `aliases` GET /v1/aliases, `grants`
    GET /v1/grants, `destinations` GET /v1/destinations.
    """

    devices: Sequence[Mapping[str, Any]]
    directory: Sequence[Mapping[str, Any]] = ()
    aliases: Sequence[Mapping[str, Any]] = ()
    grants: Sequence[Mapping[str, Any]] = ()
    destinations: Sequence[Mapping[str, Any]] = ()

    def device(self, title: str) -> Mapping[str, Any] | None:
        """The device that has this AE title here."""
        return next((row for row in self.devices if row["ae_title"] == title), None)

    def published(self, title: str) -> Mapping[str, Any] | None:
        """What the network knows of the title that goes by `title` here."""
        named = {row["local"]: row["published"] for row in self.aliases}
        sought = named.get(title, title)
        return next((row for row in self.directory if row["ae_title"] == sought), None)

    def accepts_nothing(self, called: str, calling: str) -> bool:
        """Whether `called` is queued, and it is not known what it takes of our device `calling`."""
        device = self.device(calling)
        title = device["published_as"] if device is not None else calling
        return any(
            row["local"] == called
            and row["mode"] == Mode.QUEUED.value
            and row["calling"] in ("", title)
            and title not in row["known"]
            for row in self.destinations
        )

    def granted(self, published: str, service: str) -> bool:
        """Whether any hospital may use `service` of the device here that is `published` so."""
        return any(
            grant["ae_title"] == published and service in grant["services"] for grant in self.grants
        )


@attrs.frozen(slots=True)
class _Refused:
    """One cause, and how often and how long ago it struck last."""

    calling: str
    called: str
    why: str
    times: int
    minutes: int


async def recent(
    refusals: Iterable[Mapping[str, Any]], known: Known, now: float
) -> AsyncIterator[Finding]:
    """Each cause of the last minutes that is not gone, the newest first. `now`: Unix seconds."""
    for refused in _causes(refusals, now):
        stands = await _stands(refused, known)
        if stands is False:
            continue
        ago = f"{refused.minutes} min ago" if refused.minutes else "just now"
        often = f" {refused.times} times" if refused.times > 1 else ""
        fate = "was aborted" if refused.why.startswith(ABORTED) else "was refused"
        what = f"{refused.calling} called {refused.called}, and {fate}{often}, {ago}"
        if stands:
            yield Finding(what, False, refused.why + _remedy(refused, known))
        else:
            yield Finding(what, True, f"{refused.why} {SINCE}")


async def _stands(refused: _Refused, known: Known) -> bool | None:
    """Whether the cause is there still; None: that cannot be seen from here."""
    why, device = refused.why, known.device(refused.calling)
    if why.endswith(NO_DEVICE):
        return device is None
    if found := _CALLS_FROM.search(why):
        return device is None or not await _may_call_from(device, found[1])
    if NOT_ENROLLED in why or NO_CONNECTION in why:
        return False  # where it stands, it is said of the Router itself
    if NOT_KNOWN_YET in why:
        return known.accepts_nothing(refused.called, refused.calling)
    row = known.published(refused.called)
    if NOT_PUBLISHED in why:
        return row is None
    if row is not None and NOTHING_GRANTED in why:
        return None if row["granted"] else True  # what is granted may be for other callers
    if row is not None and PEER_OFFLINE in why:
        return not row["connected"]
    return None


def _remedy(refused: _Refused, known: Known) -> str:
    """What the Router does not say itself: it does not know what is a device of this hospital."""
    if NOT_KNOWN_YET in refused.why:
        return (
            f"; nothing is accepted from {refused.calling} until {refused.called} has been reached"
            " once, and it is asked again within a minute: is it on, does it answer its Router,"
            " and does it know that AE title?"
        )
    if refused.why.endswith(NO_DEVICE):
        return (
            f"; if it is a device of yours: relay device add {_word(refused.calling)} HOST"
            " [PORT], or have it call under the AE title that you have added"
        )
    device, found = known.device(refused.calling), _CALLS_FROM.search(refused.why)
    return _moved(device, found[1]) if device is not None and found else ""


def _causes(refusals: Iterable[Mapping[str, Any]], now: float) -> list[_Refused]:
    """Equal ones together, as they came: the newest first."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in refusals:
        if now - row["time"] <= RECENT and not row["destination"]:
            key = row["calling"], row["called"], row["why"]
            groups.setdefault(key, []).append(row["time"])
    return [
        _Refused(*key, len(times), int((now - max(times)) / 60)) for key, times in groups.items()
    ][:MOST]


async def _may_call_from(device: Mapping[str, Any], address: str) -> bool:
    return not device["check_address"] or plain_address(address) in await addresses(device["host"])


def _moved(device: Mapping[str, Any], address: str) -> str:
    title = _word(device["ae_title"])
    return (
        f" ({device['host']}); if that is where it is now:"
        f" relay device add {title} {address}; if it has several addresses, or a NAT is between:"
        f" relay device add {title} {device['host']} --any-address"
    )


def titles(devices: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Devices that the Bridge does not publish; why, and what to do, is the Router's own word."""
    for device in devices:
        if device["refusal"]:
            yield Finding(f"device {device['ae_title']} is published", False, device["refusal"])


def unused(
    devices: Iterable[Mapping[str, Any]],
    grants: Sequence[Mapping[str, Any]],
    asks: Iterable[Mapping[str, Any]],
) -> Iterator[Finding]:
    """What is published and granted to nobody, and who has asked. No fault: a thing to do."""
    granted = {grant["ae_title"] for grant in grants}
    for device in devices:
        published = device["published_as"]
        if device["services"] and published not in granted:
            yield Finding(
                f"device {device['ae_title']} is published, and granted to nobody",
                True,
                f"to let a hospital use it: relay grant add HOSPITAL {_word(published)}"
                " --services …",
            )
    for ask in asks:
        yield Finding(
            f"{ask['name'] or 'a hospital'} asks for {', '.join(ask['services'])} of"
            f" {ask['ae_title']}",
            True,
            f"relay grant accept {ask['id']}, or relay grant decline {ask['id']}",
        )


def _word(ae_title: str) -> str:
    """An AE title as one word of a command."""
    return f"'{ae_title}'" if " " in ae_title else ae_title
