"""`relay echo` and `relay find`: ask a device as a DICOM service class user."""

import statistics
from collections.abc import Sequence

import attrs
import click
import trio
from pydicom.dataset import Dataset

from relay import scu
from relay.cli import identifier
from relay.cli.associate import associate, status_in_words
from relay.cli.context import Command, Failure, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import print_json, print_table, say
from relay.dicom.status import Status
from relay.dicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORKLIST_FIND,
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    VERIFICATION,
)

MODELS = {
    "study": STUDY_ROOT_FIND,
    "patient": PATIENT_ROOT_FIND,
    "worklist": MODALITY_WORKLIST_FIND,
}

# As many rows as a person reads; a query without a narrowing key could bring a whole archive.
DEFAULT_LIMIT = 100

# Merged answers come when the slowest device has ended, or its time has: ten minutes, by
# LONGEST_SEARCH of relay.router.federation.site, and what it waits in line before.
FEDERATION_DEADLINE = 900.0

# What its Error Comment begins with where devices are missing (relay.router.federation.find).
INCOMPLETE = "incomplete: "


@click.command(cls=Command)
@click.argument("ae_title")
@click.option("--count", type=click.IntRange(1, 1000), default=1, help="How many times.")
@json_option
@click.pass_obj
def echo(invocation: Invocation, ae_title: str, count: int, as_json: bool) -> None:
    """C-ECHO the device AE_TITLE in another hospital, as this Router.

    For a device of this hospital there is `relay device test`.
    """
    times = trio.run(_echo, invocation, ae_title, count)
    if as_json:
        print_json({"ae_title": ae_title, "milliseconds": times})
    else:
        say(
            f"{ae_title} answered {len(times)} time{'s' if count > 1 else ''},"
            f" in {statistics.median(times):.1f} ms"
        )


async def _echo(invocation: Invocation, ae_title: str, count: int) -> list[float]:
    """Milliseconds, one for each answer. Raises Failure for another status than success."""
    pair = (VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)
    times = []
    async with associate(invocation, ae_title, [pair]) as associated:
        context = associated.contexts.get(pair)
        if context is None:
            raise Failure(f"{ae_title} does not offer C-ECHO to this Router", 1)
        for number in range(1, count + 1):
            started = trio.current_time()
            status = await scu.echo(associated.association, context, message_id=number)
            if status != Status.SUCCESS:
                raise Failure(f"{ae_title} answered {status_in_words(status)}", 1)
            times.append(round((trio.current_time() - started) * 1000, 3))
    return times


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[AE_TITLE] [KEY[=VALUE]]...")
@click.option(
    "--level",
    type=click.Choice(["patient", "study", "series", "image"], case_sensitive=False),
    default="study",
    show_default=True,
)
@click.option("--model", type=click.Choice(list(MODELS)), default="study", show_default=True)
@click.option("--limit", type=click.IntRange(1), default=DEFAULT_LIMIT, show_default=True)
@json_option
@click.pass_obj
def find(
    invocation: Invocation,
    words: tuple[str, ...],
    level: str,
    model: str,
    limit: int,
    as_json: bool,
) -> None:
    """C-FIND on the device AE_TITLE, or without one on the federation: all devices that this
    hospital may ask. A KEY is a DICOM keyword, such as PatientID=123*; a KEY alone is asked for.
    Inside a sequence: ScheduledProcedureStepSequence.Modality=CT."""
    named = bool(words) and not identifier.is_key(words[0])
    keys = words[1:] if named else words
    try:
        query = identifier.build(keys, None if model == "worklist" else level.upper())
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if not words:
        raise click.UsageError("name a device, or a KEY for all of them, such as PatientID=123")
    if not named and model == "worklist":
        raise click.UsageError("a worklist is one device's: name it, `relay find AE_TITLE ...`")
    ae_title = words[0] if named else _federation(invocation)
    found = trio.run(_find, invocation, ae_title, MODELS[model], query, limit, not named)
    _show(found, query, as_json)
    if found.stopped:
        click.echo(f"relay: stopped after {limit} answers; see --limit", err=True)
    if found.status not in (Status.SUCCESS, Status.CANCEL):
        raise Failure(found.why if named else _of_federation(found), 1)


def _federation(invocation: Invocation) -> str:
    """The AE title by which the running Router's federation is called."""
    config = invocation.router()
    title = Control(config, invocation.file).get("/v1/status")["federation"]
    if not title:
        raise Failure(
            "this Router has no federation (`ae_title` of [router.federation] in relay.toml):"
            " name a device, `relay find AE_TITLE ...`",
            1,
        )
    return str(title)


@attrs.frozen(slots=True)
class _Found:
    """What a C-FIND has brought. `stopped`: there are more; `comment` is the Error Comment."""

    ae_title: str
    matches: Sequence[Dataset]
    stopped: bool
    status: int
    comment: str

    @property
    def why(self) -> str:
        """A final status that is no success, in one line."""
        said = f": {self.comment}" if self.comment else ""
        return f"{self.ae_title} answered {status_in_words(self.status)}{said}"


def _of_federation(found: _Found) -> str:
    """Why its answer is not all that there is: its comment names devices, or says what is wrong."""
    if not found.comment:
        return found.why
    if found.comment.startswith(INCOMPLETE):
        return f"{found.comment}; `relay directory` says why"
    return f"the federation refuses the query: {found.comment}"


def _show(found: _Found, query: Dataset, as_json: bool) -> None:
    if as_json:
        print_json([answer.to_json_dict() for answer in found.matches])
    elif found.matches or found.status == Status.SUCCESS:
        columns = identifier.keywords(query)
        print_table(
            columns,
            ([identifier.value(match, column) for column in columns] for match in found.matches),
            empty="no match",
        )


async def _find(
    invocation: Invocation, ae_title: str, model: str, query: Dataset, limit: int, all_of_them: bool
) -> _Found:
    """Ask, and gather no more than `limit` answers."""
    pairs = [(model, syntax) for syntax in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)]
    matches: list[Dataset] = []
    async with associate(invocation, ae_title, pairs) as associated:
        usable = [pair for pair in pairs if pair in associated.contexts]
        if not usable:
            raise Failure(f"{ae_title} does not offer this query to this Router", 1)
        implicit = usable[0][1] == IMPLICIT_VR_LITTLE_ENDIAN
        async for answer in scu.find(
            associated.association,
            associated.contexts[usable[0]],
            identifier.encode(query, implicit=implicit),
            maximum=limit + 1,  # whether there are more is shown by one more
            deadline=FEDERATION_DEADLINE if all_of_them else scu.FIND_DEADLINE,
        ):
            if answer.identifier is not None:
                matches.append(identifier.decode(answer.identifier, implicit=implicit))
    return _Found(ae_title, matches[:limit], len(matches) > limit, answer.status, answer.comment)
