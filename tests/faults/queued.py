"""Two hospitals, queues between them, and what must hold whatever happened to them.

    async with queued_hospitals(tmp_path, {"PACS1": (), "PACS2": ("--slow", "0.02")}) as world:
        await world.send(specimens(...), ...)
        await world.settle()
        verdict = await world.judge(chaos.blows)

Hospital A sends (the near Router, which keeps the objects), B has the devices (the far Router).
"""

import itertools
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

from relay.spool.items import State
from tests.faults.chaos import Blow, Chaos, Kill, strikes
from tests.faults.devices import Arrival, TallyingDevice, tallying_device
from tests.faults.links import Link, link
from tests.faults.senders import Ledger, Pace, Way, dcmtk_way, own_way, send_all
from tests.faults.specimens import Specimen, specimens
from tests.network import Network, NetworkError, Site, network
from tests.providers.faulty import FaultyProxy
from tests.providers.seaweed import Seaweed

# Beside the senders of Relay's own SCU one is DCMTK's; each sends to each device.
DCMTK_SENDER = "STORESCU"

# Every fourth object is storescu's.
SHARE_OF_STORESCU = 4

SKEWED = Path(__file__).with_name("skewed.py")

# Between two looks at the queue.
POLL = 0.5

# Until the files of the last objects are erased.
ERASING = 10.0

# Seeds of what is sent first; those of runs are small numbers.
LEARNING_SEED = 1_000_000

# The one kill that costs a device an object twice, if it falls so soon after the object came: a
# device notes the time before it answers, and a kill takes a moment.
FAR_KILLED = "far killed"
BEFORE_ARRIVAL = 0.5
ANSWERING = 3.0

# One page of items.
PAGE = 1000

# Seconds for an answer of the REST, while the machine is busy.
ASKING = 30.0


@attrs.frozen
class Verdict:
    """What was found, in words; `wrong` is empty if all that was promised held."""

    found: list[str]
    wrong: list[str]


@attrs.define
class World:
    """The hospitals, the devices, and what the senders were answered."""

    folder: Path
    net: Network
    devices: dict[str, TallyingDevice]
    senders: Sequence[str]
    ledger: Ledger = attrs.field(factory=Ledger)
    pace: Pace = attrs.field(factory=Pace)
    sent_to: dict[str, str] = attrs.field(factory=dict)
    """By SOP Instance UID the device that each object is for."""

    @property
    def near(self) -> Site:
        return self.net.routers["A"]

    @property
    def far(self) -> Site:
        return self.net.routers["B"]

    # --- a whole run ------------------------------------------------------------------------------

    async def run(
        self,
        count: int,
        seed: int,
        chaos: Chaos,
        plan: Sequence[Kill],
        figure: Callable[[str], None],
        *,
        limit: float,
        settling: float,
    ) -> None:
        """Send `count` objects while `plan` is carried out, and judge what came of it.

        What was injected and found is told to `figure`. All of it may take `limit` seconds, and of
        these the queue `settling` after the last object was sent.
        """
        with trio.fail_after(limit):
            await self._run(count, seed, chaos, plan, figure, settling)

    async def _run(
        self,
        count: int,
        seed: int,
        chaos: Chaos,
        plan: Sequence[Kill],
        figure: Callable[[str], None],
        settling: float,
    ) -> None:
        await self.learn()
        learned = len(self.ledger.answered)
        share = count / (strikes(plan) + 1)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.send, count, seed)
            self.pace.let(share)
            await chaos.run(plan, lambda: self.pace.let(share), self.came)
            self.pace.let(count)
        sent = trio.current_time() - start
        settled = await self.settle(settling)
        verdict = await self.judge([*chaos.blows, *chaos.always])
        figure(f"seed {seed}: {count} objects sent in {sent:.0f} s, settled in {settled:.0f} s")
        for words in (f"injected: {chaos.words()}", *verdict.found):
            figure(words)
        assert not verdict.wrong, "\n".join(verdict.wrong)
        assert len(self.ledger.answered) == learned + count

    # --- sending ----------------------------------------------------------------------------------

    async def learn(self) -> None:
        """Send one object each way, which is accepted once the far Router has said what the device
        takes: it asks the device for each caller anew, and that takes seconds."""
        self.pace.let(len(self.devices) * (len(self.senders) + 1))
        ways = itertools.product((*self.senders, DCMTK_SENDER), self.devices)
        async with trio.open_nursery() as nursery:
            for number, (sender, device) in enumerate(ways):
                part = specimens(LEARNING_SEED + number, 1)
                way = own_way(self.net.address("A", device), sender)
                nursery.start_soon(self._send, device, part, way, number)

    async def send(self, count: int, seed: int) -> None:
        """Send `count` objects from all senders to all devices at once, as the pace allows."""
        by_storescu = count // SHARE_OF_STORESCU
        own = specimens(seed, count - by_storescu)
        plain = specimens(seed + 1, by_storescu, uncompressed=True)
        async with trio.open_nursery() as nursery:
            lanes = list(itertools.product(self.senders, self.devices))
            for number, (sender, device) in enumerate(lanes):
                part = own[number :: len(lanes)]
                way = own_way(self.net.address("A", device), sender)
                nursery.start_soon(self._send, device, part, way, seed + number)
            for number, device in enumerate(self.devices):
                part = plain[number :: len(self.devices)]
                nursery.start_soon(self._send_by_storescu, device, part, seed + number)

    async def _send(self, device: str, part: Sequence[Specimen], way: Way, seed: int) -> None:
        self.sent_to.update((specimen.uid, device) for specimen in part)
        await send_all(way, part, self.ledger, self.pace, seed)

    async def _send_by_storescu(self, device: str, part: Sequence[Specimen], seed: int) -> None:
        async with link(self.net.address("A", device), record=True) as recorded:
            folder = self.folder / f"storescu-{device}"
            await self._send(device, part, dcmtk_way(recorded, device, DCMTK_SENDER, folder), seed)

    # --- the queue --------------------------------------------------------------------------------

    async def states(self) -> Counter[str]:
        """How many objects are in each state."""
        counted = await self._ask("/v1/queue/count")
        return Counter({state.word: counted[state.word] for state in State})

    async def items(self) -> list[dict[str, Any]]:
        """All objects, delivered ones included, in the order of acceptance."""
        found: list[dict[str, Any]] = []
        after = "0"
        while after:
            answer = await self._ask("/v1/queue/items", limit=str(PAGE), after=after)
            found += answer["items"]
            after = str(answer["next"]) if answer["next"] else ""
        return found

    def came(self) -> int:
        """How many objects have come to the devices, again and again included."""
        return sum(device.came() for device in self.devices.values())

    async def settle(self, deadline: float) -> float:
        """Wait until nothing waits any more; how long that took. Raises NetworkError."""
        start = trio.current_time()
        with trio.move_on_after(deadline):
            while (await self.states())["waiting"]:
                await trio.sleep(POLL)
            return trio.current_time() - start
        overview = json.dumps(await self._ask("/v1/queue"), indent=1)
        raise NetworkError(
            f"the queue is not empty after {deadline:g} s\n{overview}\n"
            f"near:\n{self.near.output()[-6000:]}\nfar:\n{self.far.output()[-6000:]}"
        )

    async def _ask(self, path: str, **query: str) -> Any:
        """What the near Router's REST answers."""
        socket = str(self.near.directory / "data" / "control.sock")
        transport = httpx.AsyncHTTPTransport(uds=socket)
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
            answer = await client.get(path, params=query, timeout=ASKING)
            return answer.raise_for_status().json()

    # --- the judgement ----------------------------------------------------------------------------

    async def judge(self, blows: Sequence[Blow]) -> Verdict:
        """Hold what is at the devices against what was promised."""
        items = await self.items()
        arrivals: dict[str, list[Arrival]] = {}
        for name, device in self.devices.items():
            for uid, came in device.arrivals().items():
                assert self.sent_to[uid] == name, f"{uid} came to {name}"
                arrivals[uid] = came
        kept = {uid: [a for a in came if a.kept] for uid, came in arrivals.items()}
        wrong = [
            *self._missing(kept),
            *self._changed(kept),
            *_invented(items, kept),
            *self._too_many(items),
            *await self._left_over(),
        ]
        found = [f"senders: {self.ledger.words()}"]
        states = Counter(item["state"] for item in items)
        found.append(f"queue: {len(items)} items, {dict(states)}")
        wrong += [
            f"item {item['number']} is {item['state']}: {item['reason']}"
            for item in items
            if item["state"] != "delivered"
        ]
        explained, unexplained = _duplicates(items, kept, blows)
        found.append(
            f"devices: {sum(map(len, arrivals.values()))} objects came, {len(kept)} different;"
            f" duplicates {explained.total()} {dict(explained)}"
        )
        return Verdict(found, wrong + unexplained)

    def _missing(self, kept: Mapping[str, Sequence[Arrival]]) -> list[str]:
        return [
            f"{uid} was answered 0000 and is not at {self.sent_to[uid]}"
            for uid in self.ledger.answered
            if not kept.get(uid)
        ]

    def _changed(self, kept: Mapping[str, Sequence[Arrival]]) -> list[str]:
        return [
            f"{uid} is not at the device as it was sent"
            for uid, came in kept.items()
            if any(arrival.sha256 != self.ledger.sent[uid] for arrival in came)
        ]

    def _too_many(self, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """An object is in the queue as often as it was answered, or sent and not answered."""
        counted = Counter(item["sop_instance"] for item in items)
        return [
            f"{uid} is in the queue {count} times"
            for uid, count in counted.items()
            if count > (uid in self.ledger.answered) + self.ledger.unanswered[uid]
        ]

    async def _left_over(self) -> list[str]:
        """Nothing is left on the disk of what is delivered; files go after their rows.

        Empty ones wait for the next objects.
        """
        folder = self.near.directory / "data" / "spool"

        def left() -> list[str]:
            files = [file for file in folder.glob("*/*") if file.stat().st_size]
            return [f"left in the spool: {file.name}" for file in files]

        with trio.move_on_after(ERASING):
            while left():
                await trio.sleep(POLL)
        return left()


def _invented(
    items: Sequence[Mapping[str, Any]], kept: Mapping[str, Sequence[Arrival]]
) -> list[str]:
    return [
        f"item {item['number']} is reported delivered and is not at its device"
        for item in items
        if item["state"] == "delivered" and not kept.get(item["sop_instance"])
    ]


def _duplicates(
    items: Sequence[Mapping[str, Any]],
    kept: Mapping[str, Sequence[Arrival]],
    blows: Sequence[Blow],
) -> tuple[Counter[str], list[str]]:
    """Objects that a device has stored more often than once, by cause; and those without one.

    A sender that was not answered sends again, and each of its items may arrive. Beyond that, a
    device that aborts after it has stored gets an object again; and so does one whose Router is
    killed before it has written the device's answer down, which it does at once. Nobody else's
    death, and no line's, costs a device an object twice: its Router has the receipt.
    """
    accepted = Counter(item["sop_instance"] for item in items)
    explained: Counter[str] = Counter()
    unexplained: list[str] = []
    for uid, came in kept.items():
        again = len(came) - 1
        by_sender = min(again, accepted[uid] - 1)
        if by_sender > 0:
            explained["sent again by the sender"] += by_sender
        for first, second in itertools.pairwise(came[: 1 + again - by_sender]):
            killed = any(
                first.time - BEFORE_ARRIVAL <= blow.fell <= first.time + ANSWERING
                for blow in blows
                if blow.words.startswith(FAR_KILLED)
            )
            if first.status is None:
                explained["the device aborted after it had stored"] += 1
            elif killed:
                explained["its Router killed before it had written the answer down"] += 1
            else:
                meanwhile = [
                    f"{blow.words} at {blow.fell:.3f}"
                    for blow in blows
                    if blow.fell <= second.time and blow.over >= first.time
                ]
                unexplained.append(
                    f"{uid} is at its device {len(came)} times, of {accepted[uid]} items: at"
                    f" {first.time:.3f} and {second.time:.3f}; meanwhile {meanwhile}"
                )
    return explained, unexplained


@asynccontextmanager
async def queued_hospitals(
    folder: Path,
    devices: Mapping[str, Sequence[str]],
    *,
    senders: Sequence[str] = ("CT1",),
    store: Seaweed | None = None,
    front: FaultyProxy | None = None,
    lines: Mapping[str, Link] | None = None,
    clocks: Mapping[str, float] | None = None,
    router: Mapping[str, object] | None = None,
) -> AsyncIterator[World]:
    """Hospitals A and B; B's `devices` with options of device.py, to which A queues.

    With `store` chunks go by that object store instead of the Bridge's own, through `front` if
    there is one. `lines` are the HTTP proxies, `clocks` the errors of the clocks in seconds, of
    hospitals. `router` are further keys for both Routers' configurations.
    """
    folder.mkdir(parents=True, exist_ok=True)
    endpoint = front.endpoint if front is not None else store.endpoint if store is not None else ""
    async with AsyncExitStack() as stack:
        running = {
            name: await stack.enter_async_context(
                tallying_device(folder / "devices", name, *arguments)
            )
            for name, arguments in devices.items()
        }
        net = await stack.enter_async_context(
            network(
                *(folder / "net", "A", "B"),
                router={
                    **({"allowed_origins": [endpoint]} if endpoint else {}),
                    **(router or {}),
                },
            )
        )
        if store is not None:
            await _use_store(net, store, endpoint, front.ca_file if front else store.ca_file)
        for hospital, line in (lines or {}).items():
            with net.routers[hospital].configuration.open("a") as configuration:
                configuration.write(f'proxy = "{line.url}"\n')
        for hospital, error in (clocks or {}).items():
            net.routers[hospital].inside = (sys.executable, str(SKEWED), str(error))
        for site in net.routers.values():
            await site.stop()
            await site.start()
        for sender in (*senders, DCMTK_SENDER):
            await net.device("A", sender)
        for name, device in running.items():
            await net.publish("B", name, device.port, "echo,store", *device.told)
            await net.grant(owner="B", grantee="A", ae_title=name, services="echo,store")
            await net.routers["A"].relay("destination", "add", name, "--queued")
        yield World(folder, net, running, senders)


async def _use_store(net: Network, store: Seaweed, endpoint: str, ca_file: Path) -> None:
    """Let the Bridge use the store, and the Routers trust its certificate."""
    with net.ca_file.open("ab") as trusted:
        trusted.write(ca_file.read_bytes())
    settings = store.settings(endpoint=endpoint, ca_file=str(ca_file))
    for secret in ("access_key", "secret_key"):
        file = net.bridge.directory / secret
        file.write_text(settings[secret])
        settings[secret] = f"file:{file}"
    given = [f"{name}={value}" for name, value in settings.items()]
    await net.bridge.relay("provider", "add", "cloud", "s3", *given)
    await net.bridge.relay("provider", "use", "cloud")
