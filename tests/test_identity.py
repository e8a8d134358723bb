"""relay.identity, against the vectors and by the things that people do wrong."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import IdentityError
from relay.identity import (
    Contact,
    EnrolmentAnswer,
    EnrolmentRequest,
    Identity,
    Invitation,
    KeyStatement,
    Publication,
    ReceivedEnrolmentRequest,
    fingerprint,
    is_ae_title,
    is_services,
    open_statement,
    seal_statement,
    signal_body,
    verify,
)
from tests.vectors.reading import Vector, vectors

NETWORK = b"n" * 16
ROUTER = Identity.from_seed(b"r" * 32)
BRIDGE = Identity.from_seed(b"b" * 32)
KEY = KeyStatement(NETWORK, b"k" * 1216, 1, 2)


@pytest.mark.parametrize("vector", vectors("identity"), ids=str)
def test_identity_vector(vector: Vector) -> None:
    identity = Identity.from_seed(vector.octets("seed"))
    domain, body = vector.text("domain"), vector.octets("body")
    assert identity.public == vector.octets("public")
    assert identity.fingerprint == vector.text("fingerprint")
    assert identity.sign(domain, body) == vector.octets("signature")
    verify(identity.public, domain, body, vector.octets("signature"))


@pytest.mark.parametrize("vector", vectors("statement"), ids=str)
def test_statement_vector(vector: Vector) -> None:
    kind = {"publication": Publication, "hpke-key": KeyStatement}[vector.text("domain")]
    statement, network = vector.octets("statement"), vector.octets("network")
    if not vector.succeeds:
        with pytest.raises(IdentityError):
            kind.open(statement, network)
        return
    owner, content = kind.open(statement, network)
    assert owner == vector.octets("owner")
    assert content.pack() == vector.octets("body")


@pytest.mark.parametrize("vector", vectors("string"), ids=str)
def test_string_vector(vector: Vector) -> None:
    string = vector.text("string")
    kind = Contact if string.startswith("relay-contact:") else Invitation
    if not vector.succeeds:
        with pytest.raises(IdentityError):
            kind.parse(string)
        return
    assert kind.parse(string).pack() == vector.octets("payload")
    assert kind.parse(string).to_string() == string


@pytest.mark.parametrize("vector", vectors("enrolment"), ids=str)
def test_enrolment_vector(vector: Vector) -> None:
    network, code, bridge = map(vector.octets, ("network", "code", "bridge"))
    invitation = Invitation("https://b", network, vector.octets("invitation-id"), bridge, code, 0)

    def enrol() -> None:
        request = vector.octets("request")
        ReceivedEnrolmentRequest.parse(request).verify(network, code, bridge)
        EnrolmentAnswer.open(vector.octets("answer"), invitation, request, vector.octets("router"))

    if vector.succeeds:
        enrol()
    else:
        with pytest.raises(IdentityError):
            enrol()


def test_seed_is_the_whole_identity() -> None:
    identity = Identity.generate()
    assert Identity.from_seed(identity.seed).public == identity.public
    assert identity.seed.hex() not in repr(identity)
    with pytest.raises(IdentityError):
        Identity.from_seed(b"short")


def test_fingerprint_has_eight_groups_of_four() -> None:
    groups = fingerprint(b"x" * 32).split("-")
    assert [len(group) for group in groups] == [4] * 8


def test_signature_holds_for_one_domain_one_body_one_identity() -> None:
    signature = ROUTER.sign("opening", b"body")
    verify(ROUTER.public, "opening", b"body", signature)
    for public, domain, body, tried in [
        (BRIDGE.public, "opening", b"body", signature),
        (ROUTER.public, "answer", b"body", signature),
        (ROUTER.public, "opening", b"bodY", signature),
        (ROUTER.public, "opening", b"body", signature[:-1]),
        (ROUTER.public[:-1], "opening", b"body", signature),
        (b"\xff" * 32, "opening", b"body", signature),
    ]:
        with pytest.raises(IdentityError):
            verify(public, domain, body, tried)


def test_signal_body_is_bound_to_its_lengths() -> None:
    parts = [NETWORK, ROUTER.public, BRIDGE.public, b"1" * 32, b"2" * 32]
    assert signal_body(*parts) == b"".join(parts)
    with pytest.raises(IdentityError):
        signal_body(NETWORK + b"x", ROUTER.public[:-1], *parts[2:])


def test_statement_that_would_not_be_read_is_not_made() -> None:
    with pytest.raises(IdentityError):
        seal_statement(ROUTER, "publication", b"x" * 4096)
    with pytest.raises(IdentityError):
        Publication(NETWORK, "", (), 0).sign(ROUTER)
    many = tuple(f"private:1.2.3.{'4' * 56}{i:02}" for i in range(64))
    with pytest.raises(IdentityError):
        Publication(NETWORK, "PACS", many, 0).sign(ROUTER)


@given(st.binary(max_size=200))
def test_open_statement_survives_anything(data: bytes) -> None:
    with pytest.raises(IdentityError):
        open_statement(data, "publication")


@pytest.mark.parametrize("title", ["A", "PACS 1", "A" * 16, "%s", "';--", "../x"])
def test_ae_title(title: str) -> None:
    assert is_ae_title(title)


@pytest.mark.parametrize(
    "title", ["", " ", " A", "A ", "A" * 17, "A\\B", "A\n", "A\0", "Ä", b"A", None, 7]
)
def test_not_an_ae_title(title: object) -> None:
    assert not is_ae_title(title)


def test_services() -> None:
    assert is_services(("echo", "store", "some-newer-one", "private:1.2.840"))
    for wrong in [("",), ("Echo",), ("private:",), ("private:1.2/3",), ("a" * 17,), (7,)]:
        assert not is_services(wrong)
    assert not is_services(("echo",) * 65)


NAMES = st.text(min_size=1, max_size=64).filter(lambda n: n.isprintable() and n.strip() == n)


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


@pytest.mark.parametrize("name", ["", " x", "a\nb", "a\u202eb", "x" * 65])
def test_contact_with_a_name_that_could_deceive_is_not_made(name: str) -> None:
    with pytest.raises(IdentityError):
        Contact(ROUTER.public, name).to_string()


@pytest.mark.parametrize("url", ["", "ftp://x", "https://", "https://a b", "https://é", "x" * 600])
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
    answer = e.received.answer(BRIDGE, e.invitation.code)
    opened = EnrolmentAnswer.open(answer, e.invitation, e.sealed, ROUTER.public)
    assert opened.name == "Hospital A"
    # Sent again, it is the same request and gets the same answer.
    assert e.request.seal(ROUTER, e.invitation.code, BRIDGE.public) == e.sealed
    assert ReceivedEnrolmentRequest.parse(e.sealed).answer(BRIDGE, e.invitation.code) == answer
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
    answer = e.received.answer(BRIDGE, e.invitation.code)
    for invitation, request, router in [
        (e.invitation, e.sealed + b"x", ROUTER.public),
        (e.invitation, e.sealed, BRIDGE.public),
        (attrs.evolve(e.invitation, code=b"x" * 16), e.sealed, ROUTER.public),
        (attrs.evolve(e.invitation, bridge=ROUTER.public), e.sealed, ROUTER.public),
        (attrs.evolve(e.invitation, invitation_id=b"x" * 16), e.sealed, ROUTER.public),
    ]:
        with pytest.raises(IdentityError):
            EnrolmentAnswer.open(answer, invitation, request, router)
