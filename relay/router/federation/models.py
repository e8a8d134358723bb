"""A query as it is put to a device that takes the other information model only (PS3.4 §C.6).

A caller asks by Patient Root or by Study Root, and many archives offer one of both.

    Patient Root, PATIENT level -> Study Root, STUDY level: its answers have the attributes of the
                                   patient, and of several the first is the patient's
    Patient Root, other levels  -> Study Root, the same
    Study Root                  -> Patient Root, the same, where the query has one Patient ID: its
                                   queries go down from one patient (PS3.4 §C.4.1.2.1)

What the other model has not is not asked for; its answers say that they lack it. What would match
more than the caller has asked for is not asked at all. Pure.
"""

from collections.abc import Collection

import attrs
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from relay.errors import RelayError
from relay.router.federation.identifiers import (
    ISSUER_OF_PATIENT_ID,
    KEYS_OF_LEVEL,
    PATIENT_ID,
    Level,
    Model,
    Query,
)
from relay.router.federation.keys import is_narrow

# Number of Patient Related Studies, Series, Instances: what a study's answer does not say.
_PATIENT_COUNTS = frozenset({0x0020_1200, 0x0020_1202, 0x0020_1204})

# Beside Patient ID, the keys of the PATIENT level (PS3.4 Table C.6-1). Below it a query by Patient
# Root may not have them: there are archives that refuse it then.
_OF_PATIENT = _PATIENT_COUNTS | {
    0x0008_1120,  # Referenced Patient Sequence
    0x0010_0010,  # Patient's Name
    ISSUER_OF_PATIENT_ID,  # by it devices are chosen, and answers held against it
    0x0010_0022,  # Type of Patient ID
    0x0010_0024,  # Issuer of Patient ID Qualifiers Sequence
    0x0010_0030,  # Patient's Birth Date
    0x0010_0032,  # Patient's Birth Time
    0x0010_0040,  # Patient's Sex
    0x0010_1000,  # Other Patient IDs
    0x0010_1001,  # Other Patient Names
    0x0010_1002,  # Other Patient IDs Sequence
    0x0010_2160,  # Ethnic Group
    0x0010_4000,  # Patient Comments
}


# Why a device is not asked that takes the Patient Root only.
NEEDS_PATIENT = "it takes Patient Root only, which needs one Patient ID"


class NotOfTheModel(RelayError):
    """A query that cannot be put in the words of the model that the device takes."""


def models_of(query: Query) -> tuple[Model, ...]:
    """The models by which devices are asked, the caller's own first."""
    return query.model, *(model for model in Model if model is not query.model)


def by_model(query: Query, sop_class: str) -> Query:
    """What a device is asked that takes `sop_class`, the FIND of one of `models_of`.

    Its `wanted` are less than the caller's where that model has not all of them. Raises
    NotOfTheModel.
    """
    if sop_class == query.model.find:
        return query
    if sop_class == Model.STUDY_ROOT.find:
        return _by_study_root(query)
    return _by_patient_root(query)


def _by_study_root(query: Query) -> Query:
    if query.level is not Level.PATIENT:
        return attrs.evolve(query, model=Model.STUDY_ROOT)
    # At the PATIENT level these match nothing; there they would leave patients out.
    below = _PATIENT_COUNTS.union(*KEYS_OF_LEVEL.values())
    keys = _without(query.keys, below)
    if PATIENT_ID not in keys:
        keys.add(DataElement(PATIENT_ID, "LO", ""))  # it tells patients apart
    return Query(Model.STUDY_ROOT, Level.STUDY, keys)


def _by_patient_root(query: Query) -> Query:
    patient = query.value(PATIENT_ID)
    if not patient or not set(patient).isdisjoint("\\*?"):
        raise NotOfTheModel(NEEDS_PATIENT)
    for element in query.keys:
        tag = int(element.tag)
        if tag in _OF_PATIENT and tag != ISSUER_OF_PATIENT_ID and is_narrow(element):
            raise NotOfTheModel(
                "it takes Patient Root only, where a study is asked for by no other key of the"
                " patient than the Patient ID"
            )
    return Query(Model.PATIENT_ROOT, query.level, _without(query.keys, _OF_PATIENT))


def _without(keys: Dataset, tags: Collection[int]) -> Dataset:
    kept = Dataset()
    for element in keys:
        if int(element.tag) not in tags:
            kept.add(element)
    return kept
