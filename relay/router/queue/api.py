"""The queue's part of the Router's REST (relay.router.api): its operations and their schemas.

What a query may select by is the same everywhere, and what a body selects by too; titles are those
that people here know, or published ones.
"""

from functools import partial

from relay.metrics.serving import metrics_handler
from relay.people.roles import Role
from relay.router.queue.routes import QueueRoutes
from relay.router.queue.selecting import STATES
from relay.router.queue.state import Queue
from relay.router.queue.warnings import Kind
from relay.router.schemas import SECONDS
from relay.router.scrape import collect
from relay.web.operations import (
    COUNT,
    FLAG,
    TEXT,
    TEXT_OR_NULL,
    Operation,
    Schema,
    listed,
    options,
    record,
)

SECONDS_OR_NULL: Schema = {"type": ["number", "null"]}
COUNT_OR_NULL: Schema = {"type": ["integer", "null"]}
STATE: Schema = {"enum": list(STATES)}

# `called` is the published title, `local` the one that people here know; `peer` and `name` are of
# the hospital that publishes it now, null and empty for nobody.
_DESTINATION: dict[str, Schema] = {
    "called": TEXT,
    "local": TEXT,
    "peer": TEXT_OR_NULL,
    "name": TEXT,
}
_PAUSE = record(by={"enum": ["person", "device"]}, reason=TEXT, since=SECONDS)
_PAUSE_OR_NULL: Schema = {"oneOf": [_PAUSE, {"type": "null"}]}
_OVERVIEW = record(
    destinations=listed(
        record(
            **_DESTINATION,
            queued=FLAG,
            **{word: COUNT for word in STATES},
            bytes=options(**{word: COUNT for word in STATES}),  # of the data that there was
            oldest=SECONDS_OR_NULL,
            sessions=COUNT,
            paused=_PAUSE_OR_NULL,
            trouble=TEXT_OR_NULL,
            again=SECONDS_OR_NULL,
        )
    ),
    room=record(used=COUNT, maximum=COUNT, free=COUNT, reserve=COUNT, refusing=TEXT_OR_NULL),
)
_ITEM = record(
    **_DESTINATION,
    number=COUNT,
    id=TEXT,
    state=STATE,
    hold=TEXT_OR_NULL,
    attempts=COUNT,
    due=SECONDS_OR_NULL,
    status=TEXT_OR_NULL,
    reason=TEXT,
    sop_class=TEXT,
    sop_instance=TEXT,
    transfer_syntax=TEXT,
    study=TEXT,
    length=COUNT,
    accepted=SECONDS,
    ended=SECONDS_OR_NULL,
    calling=TEXT,
    device=TEXT,
    batch=COUNT,
    priority=TEXT,
    # Of one that waits:
    paused=_PAUSE_OR_NULL,
    trouble=TEXT_OR_NULL,
    again=SECONDS_OR_NULL,
)
_STUDY = record(
    **_DESTINATION,
    study=TEXT,
    accepted=COUNT,
    delivered=COUNT,
    failed=COUNT,
    waiting=COUNT,
    discarded=COUNT,
    since=SECONDS,
    until=SECONDS_OR_NULL,
)
# Dates are as DICOM writes them; what was not said is empty.
_PATIENT = record(
    uid=TEXT,
    patient_id=TEXT,
    patient_name=TEXT,
    accession=TEXT,
    date=TEXT,
    modality=TEXT,
    description=TEXT,
)
_SELECTION: dict[str, Schema] = {
    "called": TEXT,
    "calling": TEXT,
    "study": TEXT,
    "state": STATE,
    "numbers": listed(COUNT),
    "after": COUNT,
    "until": COUNT,
}
_CHANGED = record(items=COUNT)
_RETRIED = record(
    items=COUNT,
    before=record(**{word: COUNT for word in STATES}),
    paused=listed(record(**_DESTINATION, paused=_PAUSE)),
)
_WARNING = record(
    warning={"enum": [kind.value for kind in Kind]},
    key=TEXT,
    words=TEXT,
    since=SECONDS,
    destination=TEXT_OR_NULL,
    device=TEXT_OR_NULL,
    count=COUNT_OR_NULL,
)
_BY = "by `called`, `calling`, `study`, `state`, `numbers`, those `after` and `until` a number"


def queue_operations(queue: Queue) -> list[Operation]:
    """All operations on `queue`."""
    do = QueueRoutes(queue)
    return [
        Operation("GET", "/v1/queue", do.overview, "The queue, by destination.", _OVERVIEW),
        Operation(
            "GET",
            "/v1/queue/items",
            do.items,
            f"Objects, {_BY}; at most `limit`. The oldest first, then on with `after` the answer's"
            " `next`; with `latest` the other way round, then on with `until`.",
            record(items=listed(_ITEM), next=COUNT_OR_NULL),
            refusals=(400, 404),
        ),
        Operation(
            "GET",
            "/v1/queue/items/{number:whole}",
            do.item,
            "One object.",
            _ITEM,
            refusals=(404,),
        ),
        Operation(
            "GET",
            "/v1/queue/studies",
            do.studies,
            f"Counts by study, the latest first, {_BY}; at most `limit`.",
            listed(_STUDY),
            refusals=(400, 404),
        ),
        Operation(
            "GET",
            "/v1/queue/count",
            do.count,
            f"Counts by state, {_BY}; `last` is the highest number that there is.",
            record(**{word: COUNT for word in STATES}, last=COUNT),
            refusals=(400, 404),
        ),
        Operation(
            "GET",
            "/v1/queue/mode",
            do.mode,
            "Whether what `calling` (without: the Router itself) sends to `called` is queued.",
            record(**_DESTINATION, calling=TEXT, queued=FLAG),
            refusals=(400,),
        ),
        Operation(
            "POST",
            "/v1/queue/retry",
            do.retry,
            "Try what has failed, is held or waits for its time now. `before` is how what was meant"
            " stood; `paused` are the destinations for which it still waits for a person.",
            _RETRIED,
            body=options(**_SELECTION, all=FLAG),
            role=Role.OPERATOR,
            refusals=(400, 404),
        ),
        Operation(
            "POST",
            "/v1/queue/discard",
            do.discard,
            "Give objects up and erase them; one that is being sent may arrive all the same.",
            _CHANGED,
            body=options(**_SELECTION, all=FLAG),
            role=Role.OPERATOR,
            refusals=(400, 404),
        ),
        Operation(
            "POST",
            "/v1/queue/pause",
            do.pause,
            "Send a destination nothing more; what comes for it is still accepted.",
            record(**_DESTINATION, paused=_PAUSE),
            body=options(called=TEXT, reason=TEXT),
            role=Role.OPERATOR,
            refusals=(400, 404),
        ),
        Operation(
            "POST",
            "/v1/queue/resume",
            do.resume,
            "Let a destination go on, whoever stopped it.",
            record(**_DESTINATION, was_paused=FLAG),
            body=record(called=TEXT),
            role=Role.OPERATOR,
            refusals=(400, 404),
        ),
        Operation(
            "POST",
            "/v1/queue/patients",
            do.patients,
            "Studies with what is known of their patients: of exactly this Patient ID and Accession"
            " Number, or those named.",
            listed(_PATIENT),
            body=options(studies=listed(TEXT), patient_id=TEXT, accession=TEXT),
            role=Role.OPERATOR,
            refusals=(400,),
        ),
        Operation(
            "GET", "/v1/warnings", do.warnings, "What a person should know now.", listed(_WARNING)
        ),
        Operation(
            "GET",
            "/metrics",
            metrics_handler(partial(collect, queue)),
            "This Router in figures, for Prometheus.",
            TEXT,
            media="text/plain",
        ),
    ]
