"""The studies of one patient, found by a query of all devices.

Patient ID 123 in two hospitals is two people (DESIGN §7). A patient is (issuer, ID); an ID without
an issuer may be retrieved only where it can mean no more than one, and of those whose device tells
no issuer each device's is another one.
"""

import attrs

from relay.dicom.dimse import Status
from relay.dicom.elements import STUDY_INSTANCE_UID, Encoding
from relay.dicom.pdu import is_uid
from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import Level, Model, QueryRefused, parse, patient_id
from relay.router.federation.searching import search
from relay.router.federation.settings import Merging
from relay.router.federation.targets import (
    ISSUER_OF_PATIENT_ID,
    MAXIMUM_UIDS,
    PATIENT_ID,
    SPECIFIC_CHARACTER_SET,
    Target,
    identifier,
    read_text,
)

_ENCODING = Encoding()  # of EXPLICIT_VR_LITTLE_ENDIAN


async def studies_of_patient(
    federation: Federation, caller: Device | None, target: Target, troubles: dict[str, str]
) -> Target:
    """All studies of the patient whom `target` names, with the issuer of the ID, if that is told.

    Who could not be asked is noted in `troubles`. Raises QueryRefused (A900) where the ID may mean
    several people, or has more studies than one retrieve takes.
    """
    keys: dict[int, str | bytes] = {
        PATIENT_ID: target.patient,
        ISSUER_OF_PATIENT_ID: target.issuer,
        STUDY_INSTANCE_UID: "",
    }
    if target.character_set:
        keys[SPECIFIC_CHARACTER_SET] = target.character_set
    query = parse(
        Model.PATIENT_ROOT, identifier(Level.STUDY, keys, _ENCODING), EXPLICIT_VR_LITTLE_ENDIAN
    )
    studies: dict[str, None] = {}
    issuers: set[str] = set()
    untold: list[set[str]] = []  # for each person of no known issuer: the devices that have theirs
    async with search(federation, caller, query, merging=Merging.MERGED) as found:
        async for answer in found:
            patient = patient_id(answer.encoded)
            if not patient:
                troubles |= dict.fromkeys(answer.owners, "it does not say whose a study is")
            if patient != query.value(PATIENT_ID).strip(" "):
                continue  # there are devices to which upper and lower case are the same
            issuer = read_text(answer.encoded, ISSUER_OF_PATIENT_ID, _ENCODING)
            if issuer:
                issuers.add(issuer)
            else:
                untold = _joined(untold, set(answer.owners))
            study = read_text(answer.encoded, STUDY_INSTANCE_UID, _ENCODING)
            if is_uid(study):
                studies[study] = None
        for said in found.incomplete:
            troubles[said.source.title] = said.words
    if len(issuers) + len(untold) > 1:
        raise _refused("this Patient ID may mean several people: retrieve by study")
    if len(studies) > MAXIMUM_UIDS:
        raise _refused("more studies than one retrieve takes: retrieve by study")
    issuer_told = issuers.pop().encode("latin-1") if issuers else target.issuer
    return attrs.evolve(target, level=Level.STUDY, studies=tuple(studies), issuer=issuer_told)


def _joined(people: list[set[str]], devices: set[str]) -> list[set[str]]:
    """A study that several devices hold is of one person, whom each of them knows."""
    same = [person for person in people if person & devices]
    return [person for person in people if person not in same] + [devices.union(*same)]


def _refused(comment: str) -> QueryRefused:
    return QueryRefused(Status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, comment)
