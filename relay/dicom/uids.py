"""The UIDs that Relay must know: service classes by their SOP classes, and transfer syntaxes.

All of PS3.6 Annex A. A SOP class that is in none of these is private, or of a service that Relay
carries without a name for it.
"""

VERIFICATION = "1.2.840.10008.1.1"

# Query/Retrieve and the other information models that are asked and fetched from in the same way.
_Q_R = "1.2.840.10008.5.1.4.1.2"
PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET = (f"{_Q_R}.1.{n}" for n in (1, 2, 3))
STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET = (f"{_Q_R}.2.{n}" for n in (1, 2, 3))
PATIENT_STUDY_ONLY_FIND, PATIENT_STUDY_ONLY_MOVE, PATIENT_STUDY_ONLY_GET = (
    f"{_Q_R}.3.{n}" for n in (1, 2, 3)
)
COMPOSITE_INSTANCE_ROOT_MOVE, COMPOSITE_INSTANCE_ROOT_GET = f"{_Q_R}.4.2", f"{_Q_R}.4.3"
COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET = f"{_Q_R}.5.3"

_NON_PATIENT_MODELS = (
    "1.2.840.10008.5.1.4.38.",  # Hanging Protocol
    "1.2.840.10008.5.1.4.39.",  # Color Palette
    "1.2.840.10008.5.1.4.43.",  # Generic Implant Template
    "1.2.840.10008.5.1.4.44.",  # Implant Assembly Template
    "1.2.840.10008.5.1.4.45.",  # Implant Template Group
)  # each: 1 Storage, 2 FIND, 3 MOVE, 4 GET
_DEFINED_PROCEDURE_PROTOCOL = "1.2.840.10008.5.1.4.20."  # 1 FIND, 2 MOVE, 3 GET
_PROTOCOL_APPROVAL = "1.2.840.10008.5.1.4.1.1.200."  # 4 FIND, 5 MOVE, 6 GET
_INVENTORY = "1.2.840.10008.5.1.4.1.1.201."  # 2 FIND, 3 MOVE, 4 GET

QUERY_RETRIEVE_FIND = frozenset(
    {
        PATIENT_ROOT_FIND,
        STUDY_ROOT_FIND,
        PATIENT_STUDY_ONLY_FIND,
        *(f"{model}2" for model in _NON_PATIENT_MODELS),
        f"{_DEFINED_PROCEDURE_PROTOCOL}1",
        f"{_PROTOCOL_APPROVAL}4",
        f"{_INVENTORY}2",
    }
)
QUERY_RETRIEVE_MOVE = frozenset(
    {
        PATIENT_ROOT_MOVE,
        STUDY_ROOT_MOVE,
        PATIENT_STUDY_ONLY_MOVE,
        COMPOSITE_INSTANCE_ROOT_MOVE,
        *(f"{model}3" for model in _NON_PATIENT_MODELS),
        f"{_DEFINED_PROCEDURE_PROTOCOL}2",
        f"{_PROTOCOL_APPROVAL}5",
        f"{_INVENTORY}3",
    }
)
QUERY_RETRIEVE_GET = frozenset(
    {
        PATIENT_ROOT_GET,
        STUDY_ROOT_GET,
        PATIENT_STUDY_ONLY_GET,
        COMPOSITE_INSTANCE_ROOT_GET,
        COMPOSITE_INSTANCE_WITHOUT_BULK_DATA_GET,
        *(f"{model}4" for model in _NON_PATIENT_MODELS),
        f"{_DEFINED_PROCEDURE_PROTOCOL}3",
        f"{_PROTOCOL_APPROVAL}6",
        f"{_INVENTORY}4",
    }
)

MODALITY_WORKLIST_FIND = "1.2.840.10008.5.1.4.31"

MODALITY_PERFORMED_PROCEDURE_STEP = frozenset(
    f"1.2.840.10008.3.1.2.3.{n}"
    for n in (3, 4, 5)  # itself, Retrieve, Notification
)

STORAGE_COMMITMENT_PUSH_MODEL = "1.2.840.10008.1.20.1"

# Storage SOP classes are registered, and privately extended, under this root …
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
# … which also holds these, of other services …
_NOT_STORAGE = (
    QUERY_RETRIEVE_FIND
    | QUERY_RETRIEVE_MOVE
    | QUERY_RETRIEVE_GET
    | {f"{_INVENTORY}5", f"{_INVENTORY}6"}  # Inventory Creation, Repository Query
)
# … and there are these besides.
_OTHER_STORAGE = frozenset(
    {
        *(f"{model}1" for model in _NON_PATIENT_MODELS),
        "1.2.840.10008.5.1.4.34.1",  # RT Beams Delivery Instruction, trial
        "1.2.840.10008.5.1.4.34.7",  # RT Beams Delivery Instruction
        "1.2.840.10008.5.1.4.34.10",  # RT Brachy Application Setup Delivery Instruction
        "1.2.840.10008.5.1.1.27",  # Stored Print, retired
        "1.2.840.10008.5.1.1.29",  # Hardcopy Grayscale Image, retired
        "1.2.840.10008.5.1.1.30",  # Hardcopy Color Image, retired
    }
)


def is_storage(sop_class: str) -> bool:
    """Whether instances of this SOP class are sent by C-STORE, as far as its UID can tell."""
    return sop_class in _OTHER_STORAGE or (
        sop_class.startswith(_STORAGE_ROOT) and sop_class not in _NOT_STORAGE
    )


IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

# Data sets that a compressor can still do something for.
UNCOMPRESSED_TRANSFER_SYNTAXES = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        ENCAPSULATED_UNCOMPRESSED,
        EXPLICIT_VR_BIG_ENDIAN,
    }
)

# What devices are seen to use, the commonest first: for asking one what it takes.
TRANSFER_SYNTAXES: dict[str, str] = {
    IMPLICIT_VR_LITTLE_ENDIAN: "Implicit VR Little Endian",
    EXPLICIT_VR_LITTLE_ENDIAN: "Explicit VR Little Endian",
    EXPLICIT_VR_BIG_ENDIAN: "Explicit VR Big Endian",
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: "Deflated Explicit VR Little Endian",
    ENCAPSULATED_UNCOMPRESSED: "Encapsulated Uncompressed",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless, Process 14",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, Process 14 SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.92": "JPEG 2000 Part 2 Lossless",
    "1.2.840.10008.1.2.4.93": "JPEG 2000 Part 2",
    "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K RPCL Lossless",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE Lossless",
    "1.2.840.10008.1.2.4.100": "MPEG2 Main Level",
    "1.2.840.10008.1.2.4.101": "MPEG2 High Level",
    "1.2.840.10008.1.2.4.102": "MPEG-4 AVC/H.264 4.1",
    "1.2.840.10008.1.2.4.103": "MPEG-4 AVC/H.264 BD",
    "1.2.840.10008.1.2.4.104": "MPEG-4 AVC/H.264 4.2 2D",
    "1.2.840.10008.1.2.4.105": "MPEG-4 AVC/H.264 4.2 3D",
    "1.2.840.10008.1.2.4.106": "MPEG-4 AVC/H.264 Stereo",
    "1.2.840.10008.1.2.4.107": "HEVC/H.265 Main",
    "1.2.840.10008.1.2.4.108": "HEVC/H.265 Main 10",
}
