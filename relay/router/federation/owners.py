"""Who holds the studies of a retrieve, and which instances of them: asked by UID, of each device.

By the Study Root (PS3.4 §C.6.2): a UID is the same in all hospitals, a Patient ID is not. One that
takes the Patient Root only is asked with the Patient ID that the caller has given, if it has. That
nothing matches is believed of that one only where its patients are of the same issuer as the ID: it
may hold the study under another one.
"""

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from math import inf
from types import MappingProxyType

import attrs
import trio

from relay import scu
from relay.dicom.dimse import Status
from relay.dicom.elements import STUDY_INSTANCE_UID, Encoding, encoding_of
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import is_uid
from relay.errors import Outcome, SourceFailed
from relay.router.devices import Device
from relay.router.federation.attributes import TRANSFER_SYNTAXES
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import Level, Model
from relay.router.federation.models import NEEDS_PATIENT
from relay.router.federation.opening import Opened, open_source
from relay.router.federation.outcomes import is_incomplete
from relay.router.federation.sources import Source
from relay.router.federation.targets import (
    ISSUER_OF_PATIENT_ID,
    MAXIMUM_ASKED,
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    Target,
    identifier,
    read_text,
)

# Seconds that the others have to say whether they hold a part too, of a study of which an owner is
# known: a hospital whose line is down is not to hold up each retrieve of what is elsewhere.
OTHERS_WAIT = 5.0

# Seconds for all that one device is asked here, whatever it says meanwhile: somebody waits for the
# first object, and a device must not hold its place in line with an answer a minute.
LONGEST_SURVEY = 600.0

# What an instance is of: study, series, SOP class (empty where the device does not say).
Holdings = dict[str, tuple[str, str, str]]

# In the order in which they are wanted.
_FIND = (Model.STUDY_ROOT.find, Model.PATIENT_ROOT.find)

# What identifiers by the Patient Root have of the patient, and its issuer (`Target.patient_keys`).
Patient = Mapping[int, str | bytes]
_NOBODY: Patient = MappingProxyType({})

_MAY_BE_THERE = "not known whether it holds it: it may have another Patient ID"

# Series of one study: real ones have some tens, and a few thousand after much post-processing.
_MAXIMUM_SERIES = 10000


class MayBeThere(SourceFailed):
    """It was asked for a Patient ID that need not be the one under which it holds the study."""

    def __init__(self) -> None:
        super().__init__(_MAY_BE_THERE, Outcome.UNABLE)


def remembered(
    federation: Federation, caller: Device | None, studies: Iterable[str]
) -> frozenset[str]:
    """Those of `studies` of which all owners are known: nobody is asked whether it has them."""
    titles = {source.title for source in federation.sources.of(caller)}
    found = federation.found
    return frozenset(s for s in studies if found.owners(caller, s).are_all_of(titles))


async def owners_of(
    federation: Federation,
    caller: Device | None,
    studies: Sequence[str],
    troubles: dict[str, str],
    patient: Patient = _NOBODY,
) -> dict[str, tuple[Source, ...]]:
    """Who holds each of `studies`, those of `patient`, in the order in which they are to be asked.

    From what was found before, or else asked anew. Who could not be asked is noted in `troubles`.
    """
    sources = federation.sources.of(caller)
    titles = {study: set(federation.found.owners(caller, study).titles) for study in studies}
    all_titles = {source.title for source in sources}
    known = remembered(federation, caller, studies)
    unknown = [study for study in titles if study not in known]
    if unknown:
        others = [s for s in sources if any(s.title not in titles[study] for study in unknown)]
        wait = OTHERS_WAIT if all(titles[study] for study in unknown) else inf
        held, failed = await _ask_all(federation, caller, others, unknown, patient, wait)
        for title, found in held.items():
            for study in found:
                titles[study].add(title)
        troubles.update(failed)
        # Without those that were not granted just now: they may be within the hour.
        asked = all_titles.intersection(source.title for source in federation.sources.of(caller))
        for study in unknown:
            if titles[study]:
                federation.found.note(caller, study, titles[study], whole=not failed, asked=asked)
    return {
        study: tuple(source for source in sources if source.title in titles[study])
        for study in studies
    }


async def others_of(
    federation: Federation,
    caller: Device | None,
    studies: Sequence[str],
    but: Container[str],
    troubles: dict[str, str],
    patient: Patient = _NOBODY,
    wait: float = inf,
) -> dict[str, tuple[Source, ...]]:
    """Who else than those of the titles `but` holds each of `studies`, whatever is remembered.

    Otherwise as `owners_of`; they have `wait` seconds.
    """
    sources = [source for source in federation.sources.of(caller) if source.title not in but]
    held, failed = await _ask_all(federation, caller, sources, studies, patient, wait)
    troubles.update(failed)
    for title, found in held.items():
        for study in found:
            federation.found.note(caller, study, (title,))
    return {
        study: tuple(source for source in sources if study in held.get(source.title, ()))
        for study in studies
    }


async def _ask_all(
    federation: Federation,
    caller: Device | None,
    sources: Iterable[Source],
    studies: Sequence[str],
    patient: Patient,
    wait: float,
) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Which of `studies` each holds, and why some did not say within `wait` seconds; by title."""
    held: dict[str, set[str]] = {}
    failed: dict[str, str] = {}

    async def ask(source: Source) -> None:
        failed[source.title] = f"no word of it within {wait:g} s"
        try:
            found, whole = await _studies_at(federation, caller, source, studies, patient)
        except SourceFailed as error:
            if is_incomplete(error.outcome):
                failed[source.title] = str(error)
                return
            federation.sources.not_granted(caller, source)
        else:
            held[source.title] = found
            if not whole:
                failed[source.title] = _MAY_BE_THERE
                return
        del failed[source.title]

    with trio.move_on_after(wait):
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(ask, source)
    return held, failed


async def _studies_at(
    federation: Federation,
    caller: Device | None,
    source: Source,
    studies: Sequence[str],
    patient: Patient,
) -> tuple[set[str], bool]:
    """Those that it holds, and whether it is known that it holds no other."""
    held: set[str] = set()
    async with _query(federation, caller, source, patient) as query:
        for at in range(0, len(studies), MAXIMUM_ASKED):
            some = studies[at : at + MAXIMUM_ASKED]
            keys: dict[int, str | bytes] = {STUDY_INSTANCE_UID: "\\".join(some)}
            for (study,) in await query.find(Level.STUDY, keys, MAXIMUM_ASKED):
                held.add(study)
        held.intersection_update(studies)
        whole = len(held) == len(set(studies)) or await query.knows_patient()
    return held, whole


async def holdings_of(
    federation: Federation,
    caller: Device | None,
    source: Source,
    targets: Sequence[Target],
    maximum: int,
) -> Holdings:
    """Which instances of `targets`, each of one study of one patient, `source` holds.

    Raises SourceFailed: CAPPED if they are more than `maximum`; MayBeThere.
    """
    holdings: Holdings = {}
    async with _query(federation, caller, source, targets[0].patient_keys) as query:
        for target in targets:
            (study,) = target.studies
            before = len(holdings)
            for series in target.series or await query.series(study):
                for some in _some(target.instances):
                    left = maximum - len(holdings)
                    for uid, sop_class in await query.instances(study, series, some, left):
                        holdings[uid] = study, series, sop_class
            if len(holdings) == before and not await query.knows_patient(study):
                raise MayBeThere
    return holdings


def _some(instances: Sequence[str]) -> list[str]:
    """UIDs as keys that one query each can have; no UIDs: all that there are."""
    return [
        "\\".join(instances[at : at + MAXIMUM_ASKED])
        for at in range(0, max(len(instances), 1), MAXIMUM_ASKED)
    ]


@attrs.frozen(slots=True)
class _Query:
    """C-FINDs over one association, one after the other."""

    opened: Opened
    context: AcceptedContext
    encoding: Encoding
    patient: Patient
    wait: float
    until: float
    same_issuer: Callable[[], Awaitable[bool]]

    async def knows_patient(self, study: str = "") -> bool:
        """Whether what does not match is not there; `study`: of that one, as far as it is asked.

        By the Patient Root, where its Patient IDs are those of the issuer of the one that is asked
        for, or where it has `study` under that.
        """
        if not self.patient or await self.same_issuer():
            return True
        if not study:
            return False
        found = await self.find(Level.STUDY, {STUDY_INSTANCE_UID: study}, MAXIMUM_ASKED)
        return (study,) in found

    async def find(
        self, level: Level, keys: dict[int, str | bytes], maximum: int
    ) -> list[tuple[str, ...]]:
        """What is answered of `keys`, UIDs all of them, in their order.

        Answers of another study, series or object than those that are asked for are left out.
        Raises SourceFailed: CAPPED if there are more than `maximum`.
        """
        with trio.move_on_at(self.until):
            return await self._find(level, keys, maximum)
        raise SourceFailed(f"no final answer within {LONGEST_SURVEY:g} s", Outcome.SLOW)

    async def _find(
        self, level: Level, keys: dict[int, str | bytes], maximum: int
    ) -> list[tuple[str, ...]]:
        wanted = [str(value).split("\\") if value else [] for value in keys.values()]
        found: list[tuple[str, ...]] = []
        count = 0
        asked = identifier(level, {**self.patient, **keys}, self.encoding)
        answers = scu.find(self.opened.association, self.context, asked, deadline=self.wait)
        async with aclosing(answers):
            async for answer in answers:
                if not answer.pending:
                    break
                count += 1
                if count > maximum:
                    # Who has so much to say may not heed a C-CANCEL either: it is aborted.
                    raise SourceFailed(
                        "it has more than one retrieve is planned by", Outcome.CAPPED
                    )
                texts = tuple(self._uid(answer.identifier or b"", tag) for tag in keys)
                pairs = zip(texts, wanted, strict=True)
                if all(not text or not uids or text in uids for text, uids in pairs):
                    found.append(texts)
        if answer.status != Status.SUCCESS:
            raise SourceFailed(f"its C-FIND ends with status {answer.status:04X}H", Outcome.REFUSED)
        return found

    async def series(self, study: str) -> list[str]:
        """The series that there are of a study."""
        keys: dict[int, str | bytes] = {STUDY_INSTANCE_UID: study, SERIES_INSTANCE_UID: ""}
        found = await self.find(Level.SERIES, keys, _MAXIMUM_SERIES)
        return list(dict.fromkeys(series for _, series in found if series))

    async def instances(
        self, study: str, series: str, some: str, maximum: int
    ) -> list[tuple[str, str]]:
        """The instances that there are of a series, each with its SOP class."""
        keys: dict[int, str | bytes] = {
            STUDY_INSTANCE_UID: study,
            SERIES_INSTANCE_UID: series,
            SOP_INSTANCE_UID: some,
            SOP_CLASS_UID: "",
        }
        found = await self.find(Level.IMAGE, keys, maximum)
        return [(uid, sop_class) for _, _, uid, sop_class in found if uid]

    def _uid(self, answer: bytes, tag: int) -> str:
        """A value, if it is a UID: what is no more than that may be as long as the answer."""
        uid = read_text(answer, tag, self.encoding).strip(" \0")
        return uid if is_uid(uid) else ""


@asynccontextmanager
async def _query(
    federation: Federation, caller: Device | None, source: Source, patient: Patient
) -> AsyncIterator[_Query]:
    """Raises SourceFailed: UNABLE where it has to be asked for one patient, and there is none."""
    proposed = [(find, TRANSFER_SYNTAXES) for find in _FIND]
    async with open_source(federation, caller, source, proposed) as opened:
        context = opened.context(*_FIND)
        by_patient = context.abstract_syntax == Model.PATIENT_ROOT.find
        if by_patient and not patient:
            raise SourceFailed(NEEDS_PATIENT, Outcome.UNABLE)
        encoding = encoding_of(context.transfer_syntax) or Encoding()
        until = trio.current_time() + LONGEST_SURVEY
        whose = dict(patient) if by_patient else {}
        issuer = _text(whose.pop(ISSUER_OF_PATIENT_ID, ""))

        async def same_issuer() -> bool:
            if not issuer or not set(issuer).isdisjoint("\\*?"):
                return False
            return issuer == (await federation.sources.describe(source, caller)).issuer

        wait = federation.settings.site_wait
        yield _Query(opened, context, encoding, whose, wait, until, same_issuer)


def _text(value: str | bytes) -> str:
    return (value if isinstance(value, str) else value.decode("latin-1")).strip(" ")
