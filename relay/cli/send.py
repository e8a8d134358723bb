"""`relay send`: files to a device, here or in another hospital, as a C-STORE user.

Where the device is a queued destination, what is sent is this Router's to deliver: `--wait` stays
until it is.
"""

import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import click
import trio
from pydicom.uid import UID
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from relay import scu
from relay.cli import output, part10
from relay.cli.associate import Associated, associate, status_in_words
from relay.cli.awaiting import Delivery, How, Way, way_to
from relay.cli.context import Command, Invocation, json_option
from relay.cli.control import NotRunning
from relay.cli.part10 import Part10File
from relay.dicom.status import Status, means_stored
from relay.errors import RelayError
from relay.log import escape


@attrs.define(slots=True)
class Outcome:
    """What became of the files.

    `count` is how many there were. `sent`: stored by the device, or accepted for delivery where
    that is `queued`. `delivered`, `waiting`, `held` and `paused` are for who waited for that.
    """

    count: int = 0
    sent: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0
    queued: bool = False
    delivered: int | None = None
    waiting: int = 0
    warnings: list[tuple[Path, str]] = attrs.Factory(list)
    failures: list[tuple[Path, str]] = attrs.Factory(list)
    held: list[tuple[Path, str]] = attrs.Factory(list)
    paused: str = ""
    paths: dict[str, list[Path]] = attrs.Factory(dict)  # of what was sent, by SOP Instance UID

    def to_json(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "bytes": self.sent_bytes,
            "seconds": round(self.seconds, 3),
            "queued": self.queued,
            "delivered": self.delivered,
            "waiting": self.waiting,
            "warnings": [{"path": str(path), "why": why} for path, why in self.warnings],
            "failures": [{"path": str(path), "why": why} for path, why in self.failures],
            "held": [{"path": str(path), "why": why} for path, why in self.held],
        }


@click.command(cls=Command)
@click.argument("ae_title")
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH...",
)
@click.option(
    "--wait",
    is_flag=True,
    help="Where this is queued: wait until all of it is delivered, or has failed.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Wait no longer than this. Without: as long as it takes.",
)
@json_option
@click.pass_context
def send(
    ctx: click.Context,
    ae_title: str,
    paths: tuple[Path, ...],
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Send DICOM files, and those in folders, to the device AE_TITLE as they are.

    A file in a folder that is not DICOM is passed over; one that is named and is not is a failure.
    Where AE_TITLE is a queued destination (see `relay destination list`), what is sent is accepted
    by this Router, which delivers it whether this command waits for that or not.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    outcome = Outcome()
    files = _scan(paths, outcome)
    way = way_to(ctx.obj, ae_title)
    outcome.queued = way is not None
    after = way.last() if way is not None and wait else 0
    with _progress(quiet=as_json) as progress:
        trio.run(_Sender(ctx.obj, ae_title, outcome, progress).send, files)
    outcome.count = outcome.sent + len(outcome.failures)
    how = How.SETTLED
    if way is not None and wait and outcome.sent:
        how = _wait(way, ae_title, outcome, after, timeout, quiet=as_json)
    if as_json:
        output.print_json(outcome.to_json())
    else:
        _report(outcome, ae_title)
        if outcome.waiting:
            _say_waiting(outcome, ae_title, how)
    if outcome.failures or outcome.held or outcome.waiting or not outcome.sent:
        ctx.exit(1)


def _wait(
    way: Way, ae_title: str, outcome: Outcome, after: int, timeout: float | None, *, quiet: bool
) -> How:
    """Wait for the delivery of what was accepted; what becomes of it is in `outcome`."""
    began = time.monotonic()
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} objects"),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )

    def tell(words: str) -> None:
        if not quiet:
            progress.console.print(escape(f"{ae_title}: {words}"), markup=False, highlight=False)

    with progress:
        bar = progress.add_task(f"delivered to {ae_title}", total=outcome.sent)
        delivery = way.wait(
            outcome.paths, after, timeout, lambda done: progress.update(bar, completed=done), tell
        )
    _settle(outcome, delivery)
    outcome.seconds += time.monotonic() - began
    return delivery.how


def _settle(outcome: Outcome, delivery: Delivery) -> None:
    ended = ((outcome.failures, delivery.undelivered), (outcome.held, delivery.held))
    for rows, instances in ended:
        for instance, why in instances:
            paths = outcome.paths[instance]
            rows.append((paths.pop() if len(paths) > 1 else paths[0], why))
    outcome.waiting, outcome.paused = delivery.waiting, delivery.paused
    over = len(delivery.undelivered) + len(delivery.held)
    outcome.delivered = outcome.sent - over - delivery.waiting


def _say_waiting(outcome: Outcome, ae_title: str, how: How) -> None:
    why = "" if how is How.INTERRUPTED else " when the time was over"
    if outcome.paused:
        output.say(f"{outcome.waiting} waited still{why}: {ae_title} is {outcome.paused}")
        return
    output.say(
        f"{outcome.waiting} waited still{why}: the queue goes on by itself;"
        f" `relay queue list --to {ae_title}` shows how"
    )


def _scan(paths: Iterable[Path], outcome: Outcome) -> list[Part10File]:
    files = []
    for path in paths:
        for inner in part10.walk([path]):
            try:
                files.append(part10.read(inner))
            except RelayError as error:
                if inner == path:
                    outcome.failures.append((inner, _without_path(error, inner)))
    return files


def _without_path(error: RelayError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _progress(*, quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[objects]} of {task.fields[count]} objects"),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )


class _Sender:
    """Sends files over as many associations, one after the other, as their kinds need."""

    def __init__(
        self, invocation: Invocation, ae_title: str, outcome: Outcome, progress: Progress
    ) -> None:
        self._invocation = invocation
        self._ae_title = ae_title
        self._outcome = outcome
        self._progress = progress

    async def send(self, files: Sequence[Part10File]) -> None:
        """Send all; what becomes of each is in the outcome. Raises NotRunning."""
        started = trio.current_time()
        self._bar = self._progress.add_task(
            f"to {self._ae_title}",
            total=sum(file.size for file in files),
            objects=0,
            count=len(files),
        )
        for batch in part10.batches(files):
            left = deque(batch)
            while left:
                await self._send_over_one_association(left)
        self._outcome.seconds = trio.current_time() - started

    async def _send_over_one_association(self, left: deque[Part10File]) -> None:
        """Take from `left` what this association settles.

        When it breaks, the file under way has failed; the others get another association, unless
        this one carried nothing at all: then nor would the next.
        """
        before = self._outcome.sent
        pairs = list(dict.fromkeys(file.pair for file in left))
        try:
            async with associate(self._invocation, self._ae_title, pairs) as associated:
                message_id = 0
                while left:
                    message_id = message_id % 0xFFFF + 1
                    await self._store(associated, left[0], message_id)
                    left.popleft()
        except NotRunning:
            raise
        except (RelayError, OSError) as error:
            # What had been answered stays answered, also where only the release failed.
            if left:
                self._fail(left.popleft(), str(error))
            while left and self._outcome.sent == before:
                self._fail(left.popleft(), str(error))

    async def _store(self, associated: Associated, file: Part10File, message_id: int) -> None:
        context = associated.contexts.get(file.pair)
        if context is None:
            self._fail(file, f"{self._ae_title} does not take {_kind(file)}")
            return
        status = await scu.store(
            associated.association,
            context,
            file.sop_class,
            file.sop_instance,
            self._counted(file),
            message_id=message_id,
        )
        if means_stored(status):
            self._outcome.sent += 1
            self._outcome.sent_bytes += file.size
            self._outcome.paths.setdefault(file.sop_instance, []).append(file.path)
            if status != Status.SUCCESS:
                self._outcome.warnings.append((file.path, status_in_words(status)))
            self._progress.update(self._bar, objects=self._outcome.sent)
        else:
            self._fail(file, status_in_words(status))

    async def _counted(self, file: Part10File) -> AsyncIterator[bytes]:
        async for block in file.data_set():
            yield block
            self._progress.advance(self._bar, len(block))

    def _fail(self, file: Part10File, why: str) -> None:
        self._outcome.failures.append((file.path, why))


def _kind(file: Part10File) -> str:
    """SOP class and transfer syntax, by name where they have one."""
    return f"{UID(file.sop_class).name} in {UID(file.transfer_syntax).name}"


def _report(outcome: Outcome, ae_title: str) -> None:
    rate = outcome.sent_bytes / outcome.seconds if outcome.seconds else 0.0
    size = f"{output.size(outcome.sent_bytes)} in {outcome.seconds:.1f} s ({output.size(rate)}/s)"
    which = f"of {outcome.count} objects to {ae_title}"
    if outcome.delivered is not None:
        whole = outcome.delivered == outcome.sent
        output.say(f"delivered {outcome.delivered} {which}{f', {size}' if whole else ''}")
    elif outcome.queued and outcome.sent:
        output.say(f"accepted for delivery {outcome.sent} {which}, {size}")
        output.say(f"`relay queue list --to {ae_title}` shows what becomes of them")
    else:
        nothing = "" if outcome.count else ": there is no DICOM file"
        output.say(f"sent {outcome.sent} {which}, {size}{nothing}")
    for title, rows in (
        ("warning", outcome.warnings),
        ("failed", outcome.failures),
        ("held", outcome.held),
    ):
        if rows:
            output.print_table((title, "why"), rows, empty="")
