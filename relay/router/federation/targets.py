"""What a C-GET or C-MOVE asks for: the unique keys of its identifier (PS3.4 §C.4.2.1).

At its own level a retrieve may name several UIDs, above it exactly one. Other keys have no meaning
there, and are left out of what owners are asked. To owners a retrieve goes by the Study Root where
they take it: the UIDs are the same in all hospitals, a Patient ID is not. By the Patient Root they
are asked with the Patient ID that the caller has given.
"""

from collections.abc import Iterator

import attrs

from relay.dicom import elements
from relay.dicom.dimse import Status
from relay.dicom.elements import STUDY_INSTANCE_UID, Element, Encoding
from relay.dicom.pdu import is_uid
from relay.router.federation.identifiers import Level, Model, QueryRefused

SPECIFIC_CHARACTER_SET = 0x0008_0005
SOP_CLASS_UID = 0x0008_0016
SOP_INSTANCE_UID = 0x0008_0018
QUERY_RETRIEVE_LEVEL = 0x0008_0052
PATIENT_ID = 0x0010_0020
ISSUER_OF_PATIENT_ID = 0x0010_0021
SERIES_INSTANCE_UID = 0x0020_000E

# UIDs in one identifier: what an element with two bytes of length takes (PS3.5 §7.1.2), at 64
# characters each.
MAXIMUM_UIDS = 1000

# UIDs in one identifier of ours: archives make an SQL statement of it, and some have a limit.
MAXIMUM_ASKED = 100

# PS3.5 §6.2: LO
_LONGEST_PATIENT_ID = 64

_UID_OF = {
    Level.STUDY: ("studies", STUDY_INSTANCE_UID, "Study Instance UID"),
    Level.SERIES: ("series", SERIES_INSTANCE_UID, "Series Instance UID"),
    Level.IMAGE: ("instances", SOP_INSTANCE_UID, "SOP Instance UID"),
}


@attrs.frozen(slots=True, kw_only=True)
class Target:
    """What is to be retrieved. Above `level` there is one UID each, at it one or more.

    `patient` and `issuer` are as the caller encoded them, in its `character_set`; at the PATIENT
    level there is nothing else. A `repr` names no patient.
    """

    level: Level
    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    patient: bytes = attrs.field(default=b"", repr=False)
    issuer: bytes = attrs.field(default=b"", repr=False)
    character_set: bytes = b""

    @classmethod
    def parse(cls, model: Model, encoded: bytes, transfer_syntax: str) -> "Target":
        """The identifier of a C-GET-RQ or C-MOVE-RQ.

        Raises QueryRefused: A900 for what does not match the SOP class (PS3.4 Table C.4-2), C000
        for what cannot be read.
        """
        encoding = elements.encoding_of(transfer_syntax)
        if encoding is None:
            raise QueryRefused(Status.UNABLE_TO_PROCESS, "deflated identifiers are not read here")
        values = _Values(encoded, encoding)
        word = values.text(QUERY_RETRIEVE_LEVEL)
        level = Level.__members__.get(word)
        if level is None or (level is Level.PATIENT and model is not Model.PATIENT_ROOT):
            raise _mismatch("Query/Retrieve Level is missing, or not of this model")
        patient = values.value(PATIENT_ID)
        if level is Level.PATIENT:
            _check_patient(patient)
        uids = {
            name: values.uids(tag, words, single=above is not level)
            for above, (name, tag, words) in _UID_OF.items()
            if above in Model.PATIENT_ROOT.down_to(level)
        }
        return cls(
            level=level,
            patient=patient,
            issuer=values.value(ISSUER_OF_PATIENT_ID),
            character_set=values.value(SPECIFIC_CHARACTER_SET),
            **uids,
        )

    @property
    def uids(self) -> tuple[str, ...]:
        """Those of its own level; of a patient there are none."""
        return {
            Level.PATIENT: (),
            Level.STUDY: self.studies,
            Level.SERIES: self.series,
            Level.IMAGE: self.instances,
        }[self.level]

    @property
    def patient_keys(self) -> dict[int, str | bytes]:
        """What the Patient Root has beside UIDs; none where the caller names not one patient.

        With the issuer of the ID, if the caller names one: to hold devices against, not to be sent.
        """
        if not self.patient or not set(self.patient).isdisjoint(b"\\*?"):
            return {}
        keys: dict[int, str | bytes] = {PATIENT_ID: self.patient}
        if self.character_set:
            keys[SPECIFIC_CHARACTER_SET] = self.character_set
        if self.issuer:
            keys[ISSUER_OF_PATIENT_ID] = self.issuer
        return keys

    def of_study(self, study: str) -> "Target":
        """What of it is of one of its studies."""
        return attrs.evolve(self, studies=(study,))

    def parts(self) -> Iterator["Target"]:
        """The same in parts, of at most MAXIMUM_ASKED UIDs each."""
        uids = self.uids
        if len(uids) <= MAXIMUM_ASKED:
            yield self
            return
        for at in range(0, len(uids), MAXIMUM_ASKED):
            some = uids[at : at + MAXIMUM_ASKED]
            match self.level:
                case Level.STUDY:
                    yield attrs.evolve(self, studies=some)
                case Level.SERIES:
                    yield attrs.evolve(self, series=some)
                case _:
                    yield attrs.evolve(self, instances=some)

    def encode(self, encoding: Encoding, sop_class: str) -> bytes:
        """The identifier for an owner. By the Patient Root it has the caller's Patient ID."""
        keys: dict[int, str | bytes] = {}
        for name, tag, _ in _UID_OF.values():
            if uids := getattr(self, name):
                keys[tag] = "\\".join(uids)
        if Model.of(sop_class) is Model.PATIENT_ROOT:
            keys[PATIENT_ID] = self.patient
            if self.character_set:
                keys[SPECIFIC_CHARACTER_SET] = self.character_set
        return identifier(self.level, keys, encoding)


def identifier(level: Level, keys: dict[int, str | bytes], encoding: Encoding) -> bytes:
    """An identifier of `level` with these keys, UIDs as text; an empty one asks for a value."""
    values: dict[int, str | bytes] = keys | {QUERY_RETRIEVE_LEVEL: level.name}
    return b"".join(
        elements.encode(tag, _VRS[tag], _padded(tag, value), encoding)
        for tag, value in sorted(values.items())
    )


_VRS = {
    SPECIFIC_CHARACTER_SET: b"CS",
    SOP_CLASS_UID: b"UI",
    SOP_INSTANCE_UID: b"UI",
    QUERY_RETRIEVE_LEVEL: b"CS",
    PATIENT_ID: b"LO",
    ISSUER_OF_PATIENT_ID: b"LO",
    STUDY_INSTANCE_UID: b"UI",
    SERIES_INSTANCE_UID: b"UI",
}


def _padded(tag: int, value: str | bytes) -> bytes:
    octets = value if isinstance(value, bytes) else value.encode("ascii")
    return octets + (b"\0" if _VRS[tag] == b"UI" else b" ") * (len(octets) % 2)


def read_text(data_set: bytes, tag: int, encoding: Encoding) -> str:
    """The value of an element of an answer, each byte one character; empty if there is none."""
    found = elements.find(data_set, tag, encoding, whole=True)
    return found.text(data_set) if isinstance(found, Element) else ""


@attrs.frozen(slots=True)
class _Values:
    """The values of an identifier."""

    encoded: bytes
    encoding: Encoding

    def value(self, tag: int) -> bytes:
        return self.text(tag).encode("latin-1")

    def text(self, tag: int) -> str:
        return read_text(self.encoded, tag, self.encoding)

    def uids(self, tag: int, words: str, *, single: bool) -> tuple[str, ...]:
        uids = tuple(dict.fromkeys(uid.strip(" \0") for uid in self.text(tag).split("\\")))
        if not all(map(is_uid, uids)):
            raise _mismatch(f"{words} is missing, or is no UID")
        if single and len(uids) > 1:
            raise _mismatch(f"{words}: one only, above the level of the retrieve")
        if len(uids) > MAXIMUM_UIDS:
            raise _mismatch(f"{words}: {len(uids)} of them; at most {MAXIMUM_UIDS}")
        return uids


def _check_patient(patient: bytes) -> None:
    if not 0 < len(patient) <= _LONGEST_PATIENT_ID or not set(patient).isdisjoint(b"*?\\"):
        raise _mismatch("Patient ID: one, without wildcards")


def _mismatch(comment: str) -> QueryRefused:
    return QueryRefused(Status.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, comment)
