"""What `relay doctor` says of calls that were refused lately, and of what others may use.

A device's own message is three numbers; its Router knows why (GET /v1/refusals). What has been
mended since is not said any more.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from relay.providers import Finding
from relay.router.devices import addresses, plain_address

# Who looks for the cause of a call that failed has made it a moment ago; older ones are in the log.
RECENT = 900.0  # seconds

# Different ones; a device that calls again and again is one.
MOST = 10

_CALLS_FROM = re.compile(r"calls from ([0-9A-Fa-f:.]+)[,; ]")


@attrs.frozen(slots=True)
class _Refused:
    """One cause, and how often and how long ago it struck last."""

    calling: str
    called: str
    why: str
    times: int
    minutes: int


async def recent(
    refusals: Iterable[Mapping[str, Any]],
    devices: Sequence[Mapping[str, Any]],
    own: str,
    now: float,
) -> AsyncIterator[Finding]:
    """Each cause of the last minutes that still stands, the newest first.

    `devices` is GET /v1/devices, `own` the Router's AE title, `now` Unix seconds.
    """
    known = {device["ae_title"]: device for device in devices}
    for refused in _causes(refusals, now):
        device = known.get(refused.calling)
        advice = refused.why
        if device is None and refused.calling != own:
            advice += (
                f"; if it is a device of yours: relay device add {_word(refused.calling)} HOST"
                " [PORT], or have it call under the AE title that you have added"
            )
        elif device is not None and refused.why.endswith("is no device of this Router"):
            continue  # it was added since
        elif device is not None and (found := _CALLS_FROM.search(refused.why)):
            if await _may_call_from(device, found[1]):
                continue
            advice += _moved(device, found[1])
        ago = f"{refused.minutes} min ago" if refused.minutes else "just now"
        often = f" {refused.times} times" if refused.times > 1 else ""
        what = f"{refused.calling} called {refused.called}, and was refused{often}, {ago}"
        yield Finding(what, False, advice)


def _causes(refusals: Iterable[Mapping[str, Any]], now: float) -> list[_Refused]:
    """Equal ones together, as they came: the newest first."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in refusals:
        if now - row["time"] <= RECENT:
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
    """Devices that are not published, since the network knows their AE titles as another's."""
    for device in devices:
        if device.get("refusal"):
            title, host = _word(device["ae_title"]), device["host"]
            yield Finding(
                f"device {device['ae_title']} is published",
                False,
                f"{device['refusal'].rstrip('.')}; give it another name in the network:"
                f" relay device add {title} {host} --as OTHER_AE_TITLE",
            )


def unused(
    devices: Iterable[Mapping[str, Any]],
    grants: Sequence[Mapping[str, Any]],
    asks: Iterable[Mapping[str, Any]],
) -> Iterator[Finding]:
    """What is published and granted to nobody, and who has asked. No fault: a thing to do."""
    granted = {grant["ae_title"] for grant in grants}
    for device in devices:
        published = device.get("published") or device["ae_title"]
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
