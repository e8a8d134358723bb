"""Works that store objects at the far device: each by Relay, and by what people do without it."""

from functools import partial
from typing import Any

from scripts.benchmark import objects
from scripts.benchmark.distance import CONFIRMED, QUEUED
from scripts.benchmark.objects import Series
from scripts.benchmark.others import others
from scripts.benchmark.sending import storescu
from scripts.benchmark.setting import DIRECT, RELAY, Setting
from scripts.benchmark.trial import Way
from tests.interop.peers import Address

# More associations at once.
DIRECT_4, DIRECT_8 = "direct-4", "direct-8"
SENDERS = 8
MANY_SENDERS = 16
# Bytes and number of objects of many frames, as of mammography.
FRAMES_SIZE, FRAMES_COUNT = 30_000_000, 20


async def queued_ct(setting: Setting) -> dict[str, Any]:
    """CT objects, from the first association to the last object at the far device."""
    series = await setting.series("ct", objects.ct, setting.sizes.objects)
    return await setting.stored(
        series,
        {
            RELAY: queued(setting, series),
            DIRECT: direct(setting, series),
            DIRECT_4: direct(setting, series, senders=4),
        },
        setting.device,
        others(setting.line, setting.here, series),
    )


async def confirmed_ct(setting: Setting) -> dict[str, Any]:
    """CT objects, each answered by the far device itself."""
    series = await setting.series("ct", objects.ct, setting.sizes.objects)
    ways = {RELAY: confirmed(setting, series), DIRECT: direct(setting, series)}
    return await setting.stored(series, ways, setting.device)


async def queued_mr(setting: Setting) -> dict[str, Any]:
    """Many smaller objects."""
    series = await setting.series("mr", objects.mr, setting.sizes.small)
    ways = {RELAY: queued(setting, series), DIRECT: direct(setting, series)}
    return await setting.stored(series, ways, setting.device)


async def senders(setting: Setting) -> dict[str, Any]:
    """CT objects from eight senders at once."""
    series = await setting.series("ct", objects.ct, setting.sizes.objects)
    ways = {
        RELAY: queued(setting, series, senders=SENDERS),
        DIRECT_8: direct(setting, series, senders=SENDERS),
    }
    return await setting.stored(series, ways, setting.device)


async def frames(setting: Setting) -> dict[str, Any]:
    """One large multi-frame object."""
    series = await setting.series("frames", objects.multi_frame, setting.sizes.large)
    ways = {RELAY: queued(setting, series), DIRECT: direct(setting, series)}
    return await setting.stored(series, ways, setting.device)


async def confirmed_frames(setting: Setting) -> dict[str, Any]:
    """Objects of many frames, each answered by the far device itself."""
    make = partial(objects.multi_frame, count=FRAMES_COUNT)
    series = await setting.series("mammography", make, FRAMES_SIZE)
    ways = {RELAY: confirmed(setting, series), DIRECT: direct(setting, series)}
    return await setting.stored(series, ways, setting.device)


async def large_16(setting: Setting) -> dict[str, Any]:
    """Sixteen large objects from as many senders at once: what memory that takes. Relay alone."""
    make = partial(objects.multi_frame, count=MANY_SENDERS)
    series = await setting.series("large", make, setting.sizes.large)
    ways = {RELAY: queued(setting, series, senders=MANY_SENDERS)}
    return await setting.stored(series, ways, setting.device)


async def compressed(setting: Setting) -> dict[str, Any]:
    """Real compressed files, one association for each transfer syntax."""
    series = await setting.series("compressed", objects.compressed, 0)
    ways = {RELAY: queued(setting, series), DIRECT: direct(setting, series)}
    return await setting.stored(series, ways, setting.device)


async def _send(setting: Setting, target: Address, series: Series, *, senders: int = 1) -> None:
    for syntax, files in series.syntaxes.items():
        await storescu(setting.line.a, target, files, senders=senders, syntax=syntax)


def queued(setting: Setting, series: Series, *, senders: int = 1) -> Way:
    """By Relay, which answers the sender once it has the object on its disk."""

    async def send() -> None:
        target = Address(setting.made.near.port, QUEUED)
        await _send(setting, target, series, senders=senders)
        await setting.device.receives(len(series.files))
        await setting.made.delivered(setting.made.near, QUEUED)

    return send


def confirmed(setting: Setting, series: Series) -> Way:
    """By Relay, the sender answered by the far device."""
    target = Address(setting.made.near.port, CONFIRMED)
    return partial(_send, setting, target, series)


def direct(setting: Setting, series: Series, *, senders: int = 1) -> Way:
    """DIMSE over the line, as through a VPN that costs nothing."""
    target = Address(setting.device.port, "STORESCP", setting.line.b.address)
    return partial(_send, setting, target, series, senders=senders)
