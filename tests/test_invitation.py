"""relay.invitation, against the vectors and by the things that people do wrong."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import IdentityError
from relay.identity import (
    Identity,
    KeyStatement,
    is_name,
)
from relay.invitation import (
    Contact,
    EnrolmentAnswer,
    EnrolmentRequest,
    Invitation,
    ReceivedEnrolmentRequest,
)
from tests.vectors.reading import Vector, vectors

NETWORK = b"n" * 16
ROUTER = Identity.from_seed(b"r" * 32)
BRIDGE = Identity.from_seed(b"b" * 32)
KEY = KeyStatement(NETWORK, b"k" * 1216, 1, 2)


@pytest.mark.parametrize("vector", vectors("string"), ids=str)
def test_string_vector(vector: Vector) -> None:
    string = vector.text("string")
    kind = Contact if string.startswith("relay-contact:") else Invitation
    if not vector.succeeds:
        with pytest.raises(IdentityError):
            kind.parse(string)
        return
    assert kind.parse(string).pack() == vector.octets("payload")
    bare = string.translate(dict.fromkeys(map(ord, "\t \u00a0")))
    assert kind.parse(string).to_string() == bare


@pytest.mark.parametrize("vector", vectors("enrolment"), ids=str)
def test_enrolment_vector(vector: Vector) -> None:
    network, code, bridge = map(vector.octets, ("network", "code", "bridge"))
    invitation = Invitation("https://b", network, vector.octets("invitation-id"), bridge, code, 0)
    router = vector.octets("router")

    def enrol() -> None:
        data = vector.octets("request")
        received = ReceivedEnrolmentRequest.parse(data)
        if received.request.invitation_id != invitation.invitation_id:
            raise IdentityError("the Bridge finds no such invitation")
        received.verify(network, code, bridge)
        EnrolmentAnswer.open(vector.octets("answer"), invitation, data, router)

    if vector.succeeds:
        enrol()
    else:
        with pytest.raises(IdentityError):
            enrol()


NAMES = st.text(min_size=1, max_size=64).filter(is_name)


@given(NAMES)
def test_contact_round_trip(name: str) -> None:
    contact = Contact(ROUTER.public, name)
    assert Contact.parse(contact.to_string()) == contact
    assert contact.fingerprint == ROUTER.fingerprint


def test_string_survives_a_mail_program() -> None:
    string = Contact(ROUTER.public, "Hospital A").to_string()
    broken = f"  {string[:40]}\r\n {string[40:]}\n"
    assert Contact.parse(broken).public == ROUTER.public


@given(st.data())
def test_string_with_one_letter_changed_is_refused(data: st.DataObject) -> None:
    string = Contact(ROUTER.public, "Hospital A").to_string()
    at = data.draw(st.integers(0, len(string) - 1))
    letter = data.draw(st.sampled_from("AZaz09-_:+/= !é"))
    changed = string[:at] + letter + string[at + 1 :]
    if changed != string:
        with pytest.raises(IdentityError):
            Contact.parse(changed)


@pytest.mark.parametrize(
    "name", ["", " x", "x ", "a\nb", "a\u202eb", "a\u00a0b", "a\ufeffb", "\ue000", "x" * 65]
)
def test_contact_with_a_name_that_could_deceive_is_not_made(name: str) -> None:
    with pytest.raises(IdentityError):
        Contact(ROUTER.public, name).to_string()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x",
        "HTTPS://x",
        "https://",
        "https:///a",
        "https://a b",
        "https://é",
        "https://a?b",
        "https://a#b",
        "https://a@b",
        "https://" + "x" * 505,
    ],
)
def test_invitation_needs_a_url(url: str) -> None:
    with pytest.raises(IdentityError):
        Invitation(url, NETWORK, b"i" * 16, BRIDGE.public, b"c" * 16, 1).to_string()


def test_invitation_does_not_show_its_code() -> None:
    invitation = Invitation("https://b", NETWORK, b"i" * 16, BRIDGE.public, b"SECRET" * 2, 1)
    assert "SECRET" not in repr(invitation)


def test_string_too_long_is_refused_unread() -> None:
    with pytest.raises(IdentityError, match="too long"):
        Contact.parse("relay-contact:" + "A" * 3000)


class Enrolment:
    """One enrolment that would succeed."""

    def __init__(self) -> None:
        self.invitation = Invitation("https://b", NETWORK, b"i" * 16, BRIDGE.public, b"c" * 16, 1)
        self.request = EnrolmentRequest(
            NETWORK, b"i" * 16, ROUTER.public, "Hospital A", KEY.sign(ROUTER)
        )
        self.sealed = self.request.seal(ROUTER, self.invitation.code, BRIDGE.public)
        self.received = ReceivedEnrolmentRequest.parse(self.sealed)


def test_enrolment() -> None:
    e = Enrolment()
    assert e.received.request == e.request
    assert e.received.verify(NETWORK, e.invitation.code, BRIDGE.public) == KEY
    answer = e.received.answer(BRIDGE, e.invitation.code, "Hospital A")
    opened = EnrolmentAnswer.open(answer, e.invitation, e.sealed, ROUTER.public)
    assert opened.name == "Hospital A"
    # Sent again, it is the same request and gets the same answer.
    assert e.request.seal(ROUTER, e.invitation.code, BRIDGE.public) == e.sealed
    again = ReceivedEnrolmentRequest.parse(e.sealed)
    assert again.answer(BRIDGE, e.invitation.code, "Hospital A") == answer
    assert e.invitation.code not in e.sealed


@pytest.mark.parametrize(
    ("network", "code", "bridge"),
    [
        (b"x" * 16, b"c" * 16, BRIDGE.public),
        (NETWORK, b"x" * 16, BRIDGE.public),
        (NETWORK, b"c" * 16, ROUTER.public),
    ],
    ids=["network", "code", "bridge"],
)
def test_enrolment_request_for_another(network: bytes, code: bytes, bridge: bytes) -> None:
    with pytest.raises(IdentityError):
        Enrolment().received.verify(network, code, bridge)


def test_enrolment_request_signed_by_another_identity() -> None:
    e = Enrolment()
    forged = e.request.seal(BRIDGE, e.invitation.code, BRIDGE.public)
    with pytest.raises(IdentityError, match="signature"):
        ReceivedEnrolmentRequest.parse(forged).verify(NETWORK, e.invitation.code, BRIDGE.public)


def test_enrolment_with_another_routers_key() -> None:
    e = Enrolment()
    borrowed = attrs.evolve(e.request, key_statement=KEY.sign(BRIDGE))
    sealed = borrowed.seal(ROUTER, e.invitation.code, BRIDGE.public)
    with pytest.raises(IdentityError, match="another Router"):
        ReceivedEnrolmentRequest.parse(sealed).verify(NETWORK, e.invitation.code, BRIDGE.public)


def test_enrolment_answer_to_another_request() -> None:
    e = Enrolment()
    answer = e.received.answer(BRIDGE, e.invitation.code, "Hospital A")
    for invitation, request, router in [
        (e.invitation, e.sealed + b"x", ROUTER.public),
        (e.invitation, e.sealed, BRIDGE.public),
        (attrs.evolve(e.invitation, code=b"x" * 16), e.sealed, ROUTER.public),
        (attrs.evolve(e.invitation, bridge=ROUTER.public), e.sealed, ROUTER.public),
        (attrs.evolve(e.invitation, invitation_id=b"x" * 16), e.sealed, ROUTER.public),
    ]:
        with pytest.raises(IdentityError):
            EnrolmentAnswer.open(answer, invitation, request, router)


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Contact, "not a contact string"), (Invitation, "not an invitation string")],
)
def test_what_is_another_string_is_said(kind: type[Contact] | type[Invitation], words: str) -> None:
    with pytest.raises(IdentityError, match=words):
        kind.parse("hello")
