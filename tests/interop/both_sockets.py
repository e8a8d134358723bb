"""Two hospitals whose devices are watched at both sockets: the caller's and the called one's.

The network is set up once for many tests (`tests.interop.kept`); each of B's devices is published
at a tap, and a test calls it by another tap:

    async with hospitals.watch("SERVICES") as seen:
        ... a device calls seen.address
        assert_carried(seen)
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs

from tests.hospitals import two_hospitals
from tests.interop import peers
from tests.interop.peers import LOOPBACK, Address
from tests.network import Network, Site
from tests.tap import Message, Tap, Tapped, messages, tap


@attrs.frozen(slots=True)
class Seen:
    """What one test's calls to one device were, at both sockets, in order."""

    near_tap: Tap
    far_tap: Tap
    before: int  # associations that the device had had

    @property
    def address(self) -> Address:
        """Where to call the device, from hospital A."""
        return self.near_tap.address

    @property
    def near(self) -> list[Tapped]:
        """The associations at the calling devices' sockets."""
        return self.near_tap.associations

    @property
    def far(self) -> list[Tapped]:
        """The associations at the called device's socket."""
        return self.far_tap.associations[self.before :]

    def asked(self) -> list[Message]:
        """The messages that reached the called device."""
        return [message for tapped in self.far for message in messages(bytes(tapped.requested))]

    def answered(self) -> list[Message]:
        """The messages that reached the callers."""
        return [message for tapped in self.near for message in messages(bytes(tapped.answered))]


@attrs.frozen(slots=True)
class Hospitals:
    """Hospitals A and B, running, and a tap before each device of B."""

    net: Network
    taps: Mapping[str, Tap]

    @asynccontextmanager
    async def watch(self, ae_title: str) -> AsyncIterator[Seen]:
        """Call B's device in this block, and see what passes."""
        far = self.taps[ae_title]
        before = len(far.associations)
        async with tap(self.net.address("A", ae_title)) as near:
            yield Seen(near, far, before)


def assert_carried(seen: Seen) -> list[Message]:
    """Every message that was sent arrived, byte for byte and in order; those of the callers."""
    assert seen.near
    assert len(seen.near) == len(seen.far)
    for near, far in zip(seen.near, seen.far, strict=True):
        for sent, received in ((near.requested, far.requested), (far.answered, near.answered)):
            assert list(messages(bytes(received))) == list(messages(bytes(sent)))
    return seen.asked()


@attrs.frozen(slots=True)
class Granted:
    """A grant to hospital A. `calling` empty: to all of its devices."""

    ae_title: str
    services: Sequence[str]
    calling: Sequence[str] = ()
    user_identity: bool = False


@asynccontextmanager
async def hospitals(
    directory: Path,
    devices: Mapping[str, tuple[peers.Target, Sequence[str]]],
    callers: Sequence[str],
    grants: Sequence[Granted],
    *,
    with_identity: Sequence[str] = (),
) -> AsyncIterator[Hospitals]:
    """B publishes `devices` (each with its services) and grants A's `callers` what `grants` say.

    `with_identity` are those of A's devices whose user identity may leave it.
    """
    async with AsyncExitStack() as stack:
        taps = {
            ae_title: await stack.enter_async_context(tap(Address(target.port, ae_title)))
            for ae_title, (target, _) in devices.items()
        }
        net = await stack.enter_async_context(two_hospitals(directory / "net"))
        await net.seen("B", "Hospital A")
        await _apply(
            net.routers["B"],
            [
                _device(title, taps[title].address.port, services=list(services))
                for title, (_, services) in devices.items()
            ],
            [{"peer": "Hospital A", **attrs.asdict(grant)} for grant in grants],
        )
        await _apply(
            net.routers["A"],
            [_device(title, 104, user_identity=title in with_identity) for title in callers],
            [],
        )
        for ae_title in devices:
            await net.seen("A", ae_title)
        yield Hospitals(net, taps)


def _device(ae_title: str, port: int, **more: object) -> dict[str, object]:
    return {"ae_title": ae_title, "host": LOOPBACK, "port": port, **more}


async def _apply(
    site: Site, devices: list[dict[str, object]], grants: list[dict[str, object]]
) -> None:
    file = site.directory / "devices.json"
    file.write_text(json.dumps({"devices": devices, "grants": grants}))
    await site.relay("apply", str(file))
