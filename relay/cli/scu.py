"""`relay echo` and `relay find`: ask a device as a DICOM service class user."""

import statistics

import click
import trio
from pydicom.dataset import Dataset

from relay import scu
from relay.cli import identifier
from relay.cli.associate import associate, status_in_words
from relay.cli.context import Command, Failure, Invocation, json_option
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
@click.argument("ae_title")
@click.argument("keys", nargs=-1, metavar="[KEY[=VALUE]]...")
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
    ae_title: str,
    keys: tuple[str, ...],
    level: str,
    model: str,
    limit: int,
    as_json: bool,
) -> None:
    """C-FIND on the device AE_TITLE. A KEY is a DICOM keyword, such as PatientID=123*; a KEY alone
    is asked for. Inside a sequence: ScheduledProcedureStepSequence.Modality=CT."""
    try:
        query = identifier.build(keys, None if model == "worklist" else level.upper())
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    answers, status = trio.run(_find, invocation, ae_title, MODELS[model], query, limit)
    if as_json:
        print_json([answer.to_json_dict() for answer in answers])
    elif answers or status == Status.SUCCESS:
        columns = identifier.keywords(query)
        print_table(
            columns,
            ([identifier.value(answer, column) for column in columns] for answer in answers),
            empty="no match",
        )
    if status == Status.CANCEL:
        click.echo(f"relay: stopped after {limit} answers; see --limit", err=True)
    elif status != Status.SUCCESS:
        raise Failure(f"{ae_title} answered {status_in_words(status)}", 1)


async def _find(
    invocation: Invocation, ae_title: str, model: str, query: Dataset, limit: int
) -> tuple[list[Dataset], int]:
    """The matches, and the final status."""
    pairs = [(model, syntax) for syntax in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)]
    matches: list[Dataset] = []
    status: int = Status.SUCCESS
    async with associate(invocation, ae_title, pairs) as associated:
        usable = [pair for pair in pairs if pair in associated.contexts]
        if not usable:
            raise Failure(f"{ae_title} does not offer this query to this Router", 1)
        implicit = usable[0][1] == IMPLICIT_VR_LITTLE_ENDIAN
        async for answer in scu.find(
            associated.association,
            associated.contexts[usable[0]],
            identifier.encode(query, implicit=implicit),
            maximum=limit,
        ):
            if answer.identifier is not None:
                matches.append(identifier.decode(answer.identifier, implicit=implicit))
            status = answer.status
    return matches, status
