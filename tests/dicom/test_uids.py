"""The UIDs that Relay classifies, against the whole of PS3.6 Annex A as pydicom has it."""

from pydicom._uid_dict import UID_dictionary

from relay.dicom import uids

SOP_CLASSES = {uid: row[0] for uid, row in UID_dictionary.items() if row[1] == "SOP Class"}


def test_storage() -> None:
    """Every Storage SOP class, and nothing else but two numbers that were withdrawn unnamed."""
    expected = {
        uid
        for uid, name in SOP_CLASSES.items()
        if " Storage" in f" {name}" and "Commitment" not in name and "Directory" not in name
    }
    ours = {uid for uid in SOP_CLASSES if uids.is_storage(uid)}
    unnamed = {uid for uid, name in SOP_CLASSES.items() if not name}
    assert ours - unnamed == expected


def test_private_storage_under_the_standards_root_and_elsewhere() -> None:
    """FIELD 4: private SOP classes. Only what is under the root looks like Storage."""
    assert uids.is_storage("1.2.840.10008.5.1.4.1.1.9999")
    assert not uids.is_storage("1.3.46.670589.11.0.0.12.1")
    assert not uids.is_storage("1.2.840.10008.5.1.4.1.1")


def models(verb: str) -> set[str]:
    """SOP classes named "... FIND" and so on, but for the worklists, which are another service."""
    return {
        uid
        for uid, name in SOP_CLASSES.items()
        if name.endswith(f"- {verb}") and "Worklist" not in name
    }


def test_query_retrieve() -> None:
    assert models("FIND") == uids.QUERY_RETRIEVE_FIND
    assert models("MOVE") == uids.QUERY_RETRIEVE_MOVE
    assert models("GET") == uids.QUERY_RETRIEVE_GET


def test_others_by_name() -> None:
    assert SOP_CLASSES[uids.VERIFICATION] == "Verification SOP Class"
    assert SOP_CLASSES[uids.MODALITY_WORKLIST_FIND] == "Modality Worklist Information Model - FIND"
    assert SOP_CLASSES[uids.STORAGE_COMMITMENT_PUSH_MODEL].startswith("Storage Commitment Push")
    assert {SOP_CLASSES[uid] for uid in uids.MODALITY_PERFORMED_PROCEDURE_STEP} == {
        "Modality Performed Procedure Step SOP Class",
        "Modality Performed Procedure Step Retrieve SOP Class",
        "Modality Performed Procedure Step Notification SOP Class",
    }
    assert SOP_CLASSES[uids.STUDY_ROOT_FIND].startswith("Study Root")
    assert SOP_CLASSES[uids.PATIENT_ROOT_MOVE].startswith("Patient Root")
    assert SOP_CLASSES[uids.PATIENT_STUDY_ONLY_GET].startswith("Patient/Study Only")


def test_transfer_syntaxes_are_the_standards() -> None:
    known = {uid for uid, row in UID_dictionary.items() if row[1] == "Transfer Syntax"}
    assert set(uids.TRANSFER_SYNTAXES) <= known
    assert set(uids.TRANSFER_SYNTAXES) > uids.UNCOMPRESSED_TRANSFER_SYNTAXES
    assert uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN not in uids.UNCOMPRESSED_TRANSFER_SYNTAXES
