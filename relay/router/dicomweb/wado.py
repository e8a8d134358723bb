"""WADO-RS: retrieves (PS3.18 §10.4), each a C-GET by the federation or from one device.

    studies/{study}[/series/{series}[/instances/{instance}]]   whole objects, or with /metadata
    .../instances/{instance}/frames/{list}                     frames as they are stored
    .../instances/{instance}/bulkdata/{path}                   that of which metadata say the URI

Nothing is transcoded or rendered here. An answer that has begun and cannot be finished breaks off.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import TypeVar

import attrs
import structlog
from starlette.requests import Request
from starlette.responses import Response

from relay.dicom.dimse import Status
from relay.dicom.uids import UNCOMPRESSED_TRANSFER_SYNTAXES
from relay.errors import Refused
from relay.router.dicomweb import classes, media
from relay.router.dicomweb.answering import Answer, BrokenOff, Streaming
from relay.router.dicomweb.asked import Asked, Service, asked
from relay.router.dicomweb.classes import Held
from relay.router.dicomweb.media import FRAME_TYPES, MediaRange
from relay.router.dicomweb.metadata import MetadataSink
from relay.router.dicomweb.objects import ObjectSink
from relay.router.dicomweb.pixels import BulkSink, EnoughError, FrameSink, bulk_path, frame_list
from relay.router.dicomweb.scanning import PIXELS
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import Level
from relay.router.federation.retrieving import Target, Totals, retrieve_get

log = structlog.get_logger()

_Contexts = Sequence[tuple[str, Sequence[str]]]


@attrs.frozen(slots=True)
class RetrieveRoutes:
    """The routes of the retrieve transaction."""

    service: Service

    async def objects(self, request: Request) -> Response:
        one, target, ranges = self._read(request)
        accepted = media.objects(ranges)
        if accepted is None:
            raise Refused(406, f'objects are answered as {media.MULTIPART}; type="{media.DICOM}"')
        if not accepted.syntaxes:
            raise Refused(406, "none of the transfer syntaxes accepted is one of DICOMweb")
        alone = accepted.single
        if alone and target.level is not Level.IMAGE:
            raise Refused(406, f"several objects are answered as {media.MULTIPART}")

        async def run(answer: Answer) -> None:
            def make(contexts: _Contexts) -> ObjectSink:
                return ObjectSink(answer, accepted, contexts, alone, wanted=target.instances)

            sink, came = await _retrieve(one, target, answer, accepted.syntaxes, make)
            _check_begun(answer, came, any_syntax=accepted.any)
            _check_whole(came, sink.sent)
            await sink.end()

        return Streaming(run)

    async def metadata(self, request: Request) -> Response:
        one, target, ranges = self._read(request)
        kind = media.takes_json(ranges)
        if not kind:
            raise Refused(406, f"metadata are answered as {media.JSON}")

        def url(study: str, series: str, instance: str) -> str:
            return f"{one.studies}/{study}/series/{series}/instances/{instance}"

        async def run(answer: Answer) -> None:
            def make(contexts: _Contexts) -> MetadataSink:
                known = self.service.known
                return MetadataSink(answer, kind, contexts, url, known, target.instances)

            sink, came = await _retrieve(one, target, answer, media.READ_SYNTAXES, make)
            _check_begun(answer, came, any_syntax=True)
            _check_whole(came, sink.sent)
            await sink.end()

        return Streaming(run)

    async def frames(self, request: Request) -> Response:
        frames = frame_list(request.path_params["frames"])
        one, target, ranges = self._read(request)
        return Streaming(partial(_send_frames, one, target, ranges, frames))

    async def bulk(self, request: Request) -> Response:
        path = bulk_path(request.path_params["path"])
        one, target, ranges = self._read(request)
        if path[0] in PIXELS:
            # Of compressed pixel data each frame is a part; so all of it is all frames.
            return Streaming(partial(_send_frames, one, target, ranges, ()))
        accepted = media.takes_octets(ranges)
        if accepted is None:
            raise Refused(406, f"bulk data are answered as {media.OCTETS}")
        _, alone = accepted

        async def run(answer: Answer) -> None:
            def make(contexts: _Contexts) -> BulkSink:
                return BulkSink(answer, path, alone, contexts, wanted=target.instances)

            _, came = await _retrieve(one, target, answer, media.READ_SYNTAXES, make)
            _check_begun(answer, came, any_syntax=True)

        return Streaming(run)

    def _read(self, request: Request) -> tuple[Asked, Target, tuple[MediaRange, ...]]:
        one = asked(self.service, request)
        if request.scope["http_version"] == "1.0":
            # Its answers end with the connection, also those that are broken off.
            raise Refused(505, "HTTP/1.1 is needed: nginx has proxy_http_version for it")
        return one, target_of(one.path), media.accepted_by(request)


def target_of(path: Mapping[str, str]) -> Target:
    """What a URL's path names."""
    study, series, instance = (path.get(name) for name in ("study", "series", "instance"))
    level = Level.IMAGE if instance else Level.SERIES if series else Level.STUDY
    return Target(
        level=level,
        studies=(study,) if study else (),
        series=(series,) if series else (),
        instances=(instance,) if instance else (),
    )


async def _send_frames(
    one: Asked,
    target: Target,
    ranges: Sequence[MediaRange],
    frames: tuple[int, ...],
    answer: Answer,
) -> None:
    syntaxes = [
        uid for uid in media.READ_SYNTAXES if uid in FRAME_TYPES and media.frame_type(ranges, uid)
    ]
    if not syntaxes:
        raise Refused(406, "frames are answered as they are stored: accept that media type")

    def make(contexts: _Contexts) -> FrameSink:
        return FrameSink(answer, ranges, contexts, frames, wanted=target.instances)

    try:
        sink, came = await _retrieve(one, target, answer, syntaxes, make)
    except EnoughError:
        return
    if not sink.whole:
        if sink.sent and not sink.found:
            raise Refused(404, "the object has no pixel data")
        _check_begun(answer, came, any_syntax=len(syntaxes) == len(FRAME_TYPES))
        raise BrokenOff("not all frames have come")


# --- both ends of a retrieve --------------------------------------------------------------------

Sinks = ObjectSink | MetadataSink | FrameSink | BulkSink
S = TypeVar("S", ObjectSink, MetadataSink, FrameSink, BulkSink)


@attrs.frozen(slots=True)
class _Came:
    """How a retrieve went, and what there should have been of it."""

    totals: Totals
    held: Held

    @property
    def why(self) -> str:
        return f": {self.totals.words}" if self.totals.words else ""


async def _retrieve(
    one: Asked,
    target: Target,
    answer: Answer,
    syntaxes: Sequence[str],
    make: Callable[[_Contexts], S],
) -> tuple[S, _Came]:
    """Have what `target` names come to the sink that `make` makes, which is returned.

    Raises Refused: 404, or 503 where not all could be asked.
    """
    known = one.service.known
    seen = bool(target.instances and known.of(target.series[0]))
    held = await classes.held_of(one.federation, one.caller, target, known)
    sink = make(classes.contexts(held.sop_classes, syntaxes))
    if held.troubles:
        text = f"Something may be missing: {held.troubles}"
        answer.headers["warning"] = one.warning(text)
    federation = one.among(held.holders, target.studies[0])
    totals = await _get(one, federation, target, sink)
    if seen and not totals.completed and not answer.started:
        # Of a series that was seen before, an object may be of another SOP class, or gone.
        known.forget(target.series[0])
        return await _retrieve(one, target, answer, syntaxes, make)
    if totals.failed:
        # There are archives (dcmqrscp) that send all of a SOP class by one of its contexts, and
        # find then that they cannot make the transfer syntax of that of what they have.
        for some in _halves(syntaxes):
            sink.contexts = classes.contexts(held.sop_classes, some)
            for left in _missing(target, held, sink):
                totals = await _get(one, federation, left, sink)
    return sink, _Came(totals, held)


async def _get(one: Asked, federation: Federation, target: Target, sink: Sinks) -> Totals:
    totals = await retrieve_get(federation, one.caller, target, sink)
    if totals.status != Status.SUCCESS:
        one.federation.found.forget(one.caller, target.studies[0])  # it may be elsewhere now
    log.info(
        "DICOMweb retrieve",
        level=target.level.value,
        status=f"{totals.status:04X}",
        completed=totals.completed,
        failed=totals.failed,
        why=totals.words,
    )
    return totals


def _halves(syntaxes: Sequence[str]) -> list[list[str]]:
    """The uncompressed ones, and the others; nothing where one of them is all there are."""
    plain = [syntax for syntax in syntaxes if syntax in UNCOMPRESSED_TRANSFER_SYNTAXES]
    others = [syntax for syntax in syntaxes if syntax not in plain]
    return [plain, others] if plain and others else []


def _missing(target: Target, held: Held, sink: Sinks) -> list[Target]:
    """What of `held` has not come, by its series."""
    by_series: dict[str, list[str]] = defaultdict(list)
    for uid, series in held.instances.items():
        if uid not in sink.sent:
            by_series[series].append(uid)
    return [
        Target(level=Level.IMAGE, studies=target.studies, series=(series,), instances=tuple(uids))
        for series, uids in by_series.items()
    ]


def _check_begun(answer: Answer, came: _Came, *, any_syntax: bool) -> None:
    """Raise Refused if nothing has come: 406 where it may be for want of a transfer syntax."""
    if answer.started:
        return
    totals, why = came.totals, came.why
    if totals.failed and not any_syntax:
        words = f"no device gives it in a transfer syntax that is accepted{why}"
        raise Refused(406, f"{words}; try transfer-syntax=*")
    if totals.failed or totals.status != Status.SUCCESS:
        raise Refused(503, f"no device gives it, though one has it{why}")
    raise Refused(404, "no device has it, of those that this caller may ask")


def _check_whole(came: _Came, sent: Set[str]) -> None:
    """Raise BrokenOff where something is missing."""
    if came.held.instances:
        # A retrieve that has a warning for who could not be asked may be whole all the same.
        missing = len(came.held.instances.keys() - sent)
    else:
        missing = came.totals.failed or int(came.totals.status != Status.SUCCESS)
    if missing:
        raise BrokenOff(f"{missing} objects have not come{came.why}")
