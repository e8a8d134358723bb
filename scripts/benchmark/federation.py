"""The federation beside the archives that it asks: when its answers come, and what memory it takes.

Hospital A asks NORTH (DCMTK's dcmqrscp, its own), SOUTH (Orthanc, hospital B's) and EAST
(pynetdicom, hospital C's) for the same studies: one archive after the other, then all three at
once, each by its own AE title, then all by the federation's. NORTH is called without Relay then,
the others through it. Each time is from before the TCP connection.

EAST is the slowest, in two ways, each in hospitals of its own: it waits before each answer, or it
searches its database first and answers then.
"""

import os
import platform
import statistics
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import trio
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from relay import association, scu
from relay.dicom import dimse
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Tag, is_pending
from relay.dicom.negotiation import accepted_contexts, propose, request
from relay.dicom.pdu import PDV
from relay.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND
from scripts.benchmark.installed import PROGRAM
from scripts.benchmark.processor import forget_peak, peak_memory
from tests.interop import archives, peers
from tests.interop.archives import ARCHIVES, NORTH, Holdings
from tests.interop.federated import FEDERATION, VIEWER, World, federated
from tests.interop.peers import Address
from tests.network import network

STUDIES = 300

# Of all ways, in each run; a round takes a second or two.
ROUNDS = 10

# Every study that there is, as a workstation's list shows it.
KEYS = {"StudyDate": "20000101-"}
RETURNED = (
    "StudyInstanceUID",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "ModalitiesInStudy",
)

# Seconds that EAST waits before each answer, as an archive does that looks on its disks: so the
# slowest site is slow for its own reason, and not for the processors that it shares with others.
SLOW = 0.005

# Seconds before its first answer, as of an archive that searches its database: about what it waits
# in all in the other way. The other sites have answered by then, and share no processor with it.
SEARCH = 0.5

STREAMED, MERGED = "streamed", "merged"
# Merged too, EAST being slow before its first answer.
SEARCHING = "searching"
TOGETHER = "together"
SITES = tuple(archive.title for archive in ARCHIVES)

# "within the fastest site's time plus 20 ms", and the slowest's.
ALLOWANCE = 0.020

# The queries whose answers are many and long: 800 of 10,000 characters, ten of them at once. All
# those of ten would be 80 MB.
AT_ONCE, BULK_COUNT, BULK_SIZE = 10, 800, 10_000

# Seconds before the one answer of a second archive: merged, the others are held until it is there.
LATE = 5.0

# A run that takes longer than this measures a fault.
DEADLINE = 600.0


@attrs.frozen(slots=True)
class Timed:
    """Seconds from before the connection to the first answer, and to the final response."""

    first: float
    last: float


# By a site's title, TOGETHER and FEDERATION.
Round = Mapping[str, Timed]


@attrs.frozen(slots=True)
class Behind:
    """Medians over rounds, in seconds: a site's, the federation's, and of what lies between."""

    site: float
    federation: float
    difference: float


def behind_fastest(rounds: Sequence[Round]) -> Behind:
    """The federation's first answer, after that of the site that was first in the same round."""
    return _behind(rounds, min, lambda timed: timed.first)


def behind_slowest(rounds: Sequence[Round]) -> Behind:
    """The federation's final response, after that of the site that was last in the same round."""
    return _behind(rounds, max, lambda timed: timed.last)


def behind_together(rounds: Sequence[Round]) -> Behind:
    """The federation's final response, after the last of all three asked at once without it.

    No goal is set for that: it tells what of the rest is the federation's own.
    """
    sites = [one[TOGETHER].last for one in rounds]
    whole = [one[FEDERATION].last for one in rounds]
    return _between(sites, whole)


def _behind(
    rounds: Sequence[Round],
    of_sites: Callable[[Sequence[float]], float],
    when: Callable[[Timed], float],
) -> Behind:
    sites = [of_sites([when(one[title]) for title in SITES]) for one in rounds]
    whole = [when(one[FEDERATION]) for one in rounds]
    return _between(sites, whole)


def _between(sites: Sequence[float], whole: Sequence[float]) -> Behind:
    return Behind(
        statistics.median(sites),
        statistics.median(whole),
        statistics.median(b - a for a, b in zip(sites, whole, strict=True)),
    )


def medians(rounds: Sequence[Round], name: str) -> Timed:
    """Of one site, TOGETHER or FEDERATION over all rounds."""
    return Timed(
        statistics.median(one[name].first for one in rounds),
        statistics.median(one[name].last for one in rounds),
    )


# --- measuring ------------------------------------------------------------------------------------


async def measure_federation(options: Namespace, directory: Path) -> dict[str, Any]:
    """Ask so many runs of rounds, streamed and merged in turn; then ten broad queries at once."""
    results: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "runs": options.runs,
        "rounds": ROUNDS,
        "studies": STUDIES,
    }
    holdings = archives.make(STUDIES)
    rounds: dict[str, list[Round]] = {STREAMED: [], MERGED: [], SEARCHING: []}
    async with federated(directory / "hospitals", holdings, settings={}, slow=SLOW) as world:
        for _ in range(options.runs):
            for way in (STREAMED, MERGED):
                rounds[way] += await measured_rounds(world, way)
    async with federated(directory / SEARCHING, holdings, settings={}, search=SEARCH) as world:
        for _ in range(options.runs):
            rounds[SEARCHING] += await measured_rounds(world, MERGED)
    results["answers"] = {name: len(expected(holdings, name)) for name in (*SITES, FEDERATION)}
    for way, measured in rounds.items():
        results[way] = {
            "medians": {name: attrs.asdict(medians(measured, name)) for name in measured[0]},
            "behind_fastest": attrs.asdict(behind_fastest(measured)),
            "behind_slowest": attrs.asdict(behind_slowest(measured)),
            "behind_together": attrs.asdict(behind_together(measured)),
        }
    for way in (STREAMED, MERGED):
        results[way]["memory"] = await memory(directory / way, way, options.runs)
    return results


async def measured_rounds(world: World, way: str) -> list[Round]:
    """One run, with a Router that answers in this way."""
    await world.restart_a({"federation.answers": way})
    await world.settled()
    await one_round(world)  # whose connections are the Router's first
    return [await one_round(world) for _ in range(ROUNDS)]


async def one_round(world: World) -> dict[str, Timed]:
    """Each site alone, then all of them at once, then the federation."""
    north = world.archives[NORTH.title]
    sites = {title: world.net.address("A", title) for title in SITES}
    # A Router connects a device to other hospitals; what stands beside it is called as it is.
    sites[NORTH.title] = Address(north.port, north.ae_title)
    counts = {name: len(expected(world.holdings, name)) for name in (*SITES, FEDERATION)}
    found = {title: await ask(site, counts[title]) for title, site in sites.items()}
    together: list[Timed] = []

    async def one_of(title: str) -> None:
        together.append(await ask(sites[title], counts[title]))

    async with trio.open_nursery() as nursery:
        for title in SITES:
            nursery.start_soon(one_of, title)
    found[TOGETHER] = Timed(
        min(timed.first for timed in together), max(timed.last for timed in together)
    )
    found[FEDERATION] = await ask(world.federation, counts[FEDERATION])
    return found


def expected(holdings: Holdings, name: str) -> Mapping[tuple[str, str], Mapping[str, str]]:
    """What has to be found there."""
    asked = [archive for archive in ARCHIVES if name in (archive.title, FEDERATION)]
    return holdings.find("STUDY", KEYS, [], asked)


async def ask(target: Address, answers: int, returned: Sequence[str] = RETURNED) -> Timed:
    """One C-FIND over an association of its own; raises RuntimeError for any other answer."""
    rq = request(target.ae_title, VIEWER, propose([(STUDY_ROOT_FIND, [IMPLICIT_VR_LITTLE_ENDIAN])]))
    asked = identifier(returned)
    first, count, final = 0.0, 0, None
    with trio.fail_after(DEADLINE):
        began = time.perf_counter()
        opened = await association.connect(target.host, target.port)
        try:
            (context,) = accepted_contexts(rq, await scu.negotiate(opened, rq)).values()
            command = dimse.request(CommandField.C_FIND_RQ, 1, context.abstract_syntax)
            await opened.send(PDV(context.id, True, True, command.encode()))
            await opened.send(PDV(context.id, False, True, asked))
            async for response in _responses(opened):
                if not is_pending(response.status):
                    final = response
                    continue
                if not count:
                    first = time.perf_counter() - began
                count += 1
            last = time.perf_counter() - began
            await scu.release(opened)
        finally:
            await opened.aclose()
    if final is None:
        raise RuntimeError(f"{target.ae_title}: no final response: {opened.cause}")
    if final.status or count != answers:
        raise RuntimeError(
            f"{target.ae_title}: {count} answers, not {answers}; status {final.status:04X}H"
            f" {final.text(Tag.ERROR_COMMENT) or ''}"
        )
    return Timed(first, last)


async def _responses(opened: association.TCPAssociation) -> AsyncIterator[CommandSet]:
    """The command of each response, the final one last, once its data set is here too.

    All that has come at once, as a workstation takes it: relay.scu.find gives one after the other,
    which costs 40 us each, and of the federation there are three times as many as of one site.
    """
    reader = CommandReader()
    while True:
        for atom in await opened.receive_some():
            if not isinstance(atom, PDV):
                return
            command = reader.feed(atom) or reader.command
            if command is not None and not reader.message_open:
                yield command
                if not is_pending(command.status):
                    return


def identifier(returned: Sequence[str]) -> bytes:
    """Every study, with these attributes."""
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    for name in returned:
        setattr(asked, name, "")
    for name, value in KEYS.items():
        setattr(asked, name, value)
    encoded = encode(asked, is_implicit_vr=True, is_little_endian=True)
    if encoded is None:
        raise RuntimeError("pynetdicom does not encode the identifier")
    return encoded


async def memory(directory: Path, way: str, runs: int) -> dict[str, Any]:
    """A Router's memory in bytes before ten broad queries, and the peaks of each such run."""
    settings = {"federation.answers": way, "federation.queries": AT_ONCE}
    peaks = []
    async with (
        peers.pynetdicom_archive(
            directory / "bulky", "--bulky", f"{BULK_COUNT}x{BULK_SIZE}", ae_title="BULKY"
        ) as bulky,
        peers.pynetdicom_archive(
            directory / "late", *("--bulky", "1x10", "--slow", str(LATE)), ae_title="LATE"
        ) as late,
        network(directory / "net", "A", router=settings, program=PROGRAM) as net,
    ):
        router, target = net.routers["A"], net.address("A", FEDERATION)
        for peer in (bulky, late):
            await net.publish("A", peer.ae_title, peer.port, "query", "--federation")
        await net.device("A", VIEWER)
        returned = ("StudyInstanceUID", "StudyComments")
        await ask(target, BULK_COUNT + 1, returned)
        forget_peak(router.pid)
        before = peak_memory(router.pid)
        for _ in range(runs):
            forget_peak(router.pid)
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(ask_broadly, target, returned)
            peaks.append(peak_memory(router.pid))
    return {"before": before, "peaks": peaks}


async def ask_broadly(target: Address, returned: Sequence[str]) -> None:
    """As `ask`; but what the Router says that it could not hold is an answer too."""
    try:
        await ask(target, BULK_COUNT + 1, returned)
    except RuntimeError as error:
        if "incomplete: BULKY capped" not in str(error):
            raise


# --- the results as Markdown ----------------------------------------------------------------------


def federation_table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    counts = results["answers"]
    lines = [
        f"Measured {results['when']} on {results['machine']}, Python {results['python']}; medians"
        f" of {results['runs']} runs of {results['rounds']} rounds for each way of answering."
        " Everything on one machine: the caller, three archives, three Routers and a Bridge behind"
        f" a TLS proxy share its cores; its load was {results['load']:.1f} before the first of them"
        f" started. {results['studies']} studies; the query finds"
        f" {counts[FEDERATION]} of them: "
        + ", ".join(f"{counts[title]} at {title}" for title in SITES)
        + ".",
        "",
        "| what | the site's, ms | the federation's, ms | later by, ms | goal | |",
        "|---|---|---|---|---|---|",
    ]
    waits, searches = f"waits {_ms(SLOW)} ms before each answer", f"searches for {SEARCH:g} s first"
    for way, words, key in (
        (STREAMED, "streamed: first answer; fastest site", "behind_fastest"),
        (MERGED, f"merged: final response; slowest site, which {waits}", "behind_slowest"),
        (SEARCHING, f"merged: final response; slowest site, which {searches}", "behind_slowest"),
    ):
        behind = Behind(**results[way][key])
        reached = "yes" if behind.difference <= ALLOWANCE else "**no**"
        lines.append(
            f"| {words} | {_ms(behind.site)} | {_ms(behind.federation)} |"
            f" {_ms(behind.difference)} | at most {_ms(ALLOWANCE)} | {reached} |"
        )
    for way, words in ((MERGED, waits), (SEARCHING, searches)):
        behind = Behind(**results[way]["behind_together"])
        lines.append(
            "| merged: final response; the last of all three asked at once, the slowest of which"
            f" {words} | {_ms(behind.site)} | {_ms(behind.federation)} | {_ms(behind.difference)} |"
            " | |"
        )
    lines += [
        "",
        "| asked | streamed: first, ms | last, ms | merged: first, ms | last, ms"
        " | merged, EAST searches first: first, ms | last, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, words in (
        *((title, f"{title} alone") for title in SITES),
        (TOGETHER, "all three at once, each by its own AE title"),
        (FEDERATION, "the federation"),
    ):
        cells = [
            _ms(results[way]["medians"][name][when])
            for way in (STREAMED, MERGED, SEARCHING)
            for when in ("first", "last")
        ]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| the Router's memory, MiB | before | {AT_ONCE} broad queries at once, in turn | more |",
        "|---|---|---|---|",
    ]
    for way in (STREAMED, MERGED):
        before, peaks = results[way]["memory"]["before"], results[way]["memory"]["peaks"]
        lines.append(
            f"| {way} | {before / 2**20:.0f} | {', '.join(f'{peak / 2**20:.0f}' for peak in peaks)}"
            f" | {(max(peaks) - before) / 2**20:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}"
