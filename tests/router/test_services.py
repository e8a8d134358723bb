"""Services: which SOP class is which, and what each lets its user and its provider ask."""

import pytest

from relay.dicom import uids
from relay.dicom.dimse import CommandField
from relay.errors import Refused
from relay.router import services
from relay.router.services import Service
from tests.router.fakes import CT, PRIVATE_CLASS


@pytest.mark.parametrize(
    ("sop_class", "service"),
    [
        (uids.VERIFICATION, "echo"),
        (CT, "store"),
        ("1.2.840.10008.5.1.4.34.7", "store"),
        (uids.STUDY_ROOT_FIND, "query"),
        (uids.PATIENT_ROOT_MOVE, "retrieve"),
        (uids.PATIENT_STUDY_ONLY_GET, "retrieve"),
        (uids.MODALITY_WORKLIST_FIND, "worklist"),
        ("1.2.840.10008.3.1.2.3.3", "mpps"),
        (uids.STORAGE_COMMITMENT_PUSH_MODEL, "commit"),
        (PRIVATE_CLASS, f"private:{PRIVATE_CLASS}"),
        ("1.2.840.10008.5.1.1.9", "private:1.2.840.10008.5.1.1.9"),  # Basic Grayscale Print
    ],
)
def test_every_sop_class_has_one_service(sop_class: str, service: str) -> None:
    assert services.service_of(sop_class) == service


@pytest.mark.parametrize(
    ("service", "user", "provider"),
    [
        (Service.ECHO, {CommandField.C_ECHO_RQ}, set()),
        (Service.STORE, {CommandField.C_STORE_RQ}, set()),
        (Service.QUERY, {CommandField.C_FIND_RQ, CommandField.C_CANCEL_RQ}, set()),
        (Service.MPPS, {0x0140, 0x0120, 0x0110}, {CommandField.N_EVENT_REPORT_RQ}),
        (Service.COMMIT, {CommandField.N_ACTION_RQ}, {CommandField.N_EVENT_REPORT_RQ}),
    ],
)
def test_a_service_is_its_commands_and_no_others(
    service: Service, user: set[int], provider: set[int]
) -> None:
    requests = [field for field in CommandField if not field & 0x8000]
    assert {field for field in requests if services.user_may_ask(service, field)} == user
    assert {field for field in requests if services.provider_may_ask(service, field)} == provider


def test_a_private_service_is_all_commands_both_ways() -> None:
    assert services.user_may_ask("private:1.2.3", CommandField.N_DELETE_RQ)
    assert services.provider_may_ask("private:1.2.3", CommandField.C_FIND_RQ)


def test_words_are_checked() -> None:
    assert services.parse(["store", "private:1.2.3"]) == {"store", "private:1.2.3"}
    for word in ("everything", "private:", "private:1..2", "private:1.02", "private:" + "1" * 65):
        with pytest.raises(Refused, match="no such service"):
            services.parse([word])


def test_a_private_word_is_no_way_round_a_service() -> None:
    with pytest.raises(Refused, match="part of 'store'"):
        services.parse([f"private:{CT}"])


def test_order_is_that_of_the_table() -> None:
    assert services.ordered({"private:1.2", "commit", "echo", "store"}) == (
        "echo",
        "store",
        "commit",
        "private:1.2",
    )


def test_a_group_of_classes_brings_its_members_and_no_other() -> None:
    """PS3.4 §H.3.2.2.1: the four classes of Basic Grayscale Print Management."""
    grayscale = "1.2.840.10008.5.1.1.9"
    members = {f"1.2.840.10008.5.1.1.{n}" for n in (1, 2, 4, 16)}
    assert services.named_over(grayscale) == members
    assert services.named_over("1.2.840.10008.5.1.4.34.6.3") == {"1.2.840.10008.5.1.4.34.6.1"}
    assert services.named_over("1.2.840.10008.1.1") == frozenset()
