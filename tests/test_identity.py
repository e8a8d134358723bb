"""relay.identity, against the vectors and by the things that people do wrong."""

import stat
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import IdentityError
from relay.identity import (
    IDENTITY_FILE,
    Identity,
    KeyStatement,
    Publication,
    fingerprint,
    is_ae_title,
    is_identity,
    is_services,
    load_identity,
    open_statement,
    seal_statement,
    signal_body,
    verify,
)
from relay.invitation import (
    Contact,
    EnrolmentRequest,
    Invitation,
)
from tests.vectors.making import NOT_ML_KEM, NOT_X25519, SMALL_ORDER, holds_for_library
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
    owner, _ = kind.open(statement, network)
    assert owner == vector.octets("owner")
    assert open_statement(statement, vector.text("domain")) == (owner, vector.octets("body"))


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
        (b"\x02" + bytes(31), "opening", b"body", signature),
    ]:
        with pytest.raises(IdentityError):
            verify(public, domain, body, tried)


# y of the points whose order divides 8, and what else encodes them or is beyond the field.
SMALL_Y = [
    0,
    1,
    2**255 - 20,
    int.from_bytes(SMALL_ORDER[3], "little"),
    int.from_bytes(SMALL_ORDER[4], "little"),
]


@pytest.mark.parametrize("sign", [0, 2**255])
@pytest.mark.parametrize("y", [*SMALL_Y, 2**255 - 19, 2**255 - 18, 2**255 - 1])
def test_small_order_or_not_canonical_is_no_identity(y: int, sign: int) -> None:
    public = (y | sign).to_bytes(32, "little")
    assert not is_identity(public)
    for serial in range(16):
        with pytest.raises(IdentityError, match="no identity"):
            verify(public, "publication", bytes([serial]), bytes(64))
    for string in (
        lambda: Contact(public, "Hospital A").to_string(),
        lambda: Invitation("https://b", NETWORK, b"i" * 16, public, b"c" * 16, 1).to_string(),
        lambda: EnrolmentRequest(NETWORK, b"i" * 16, public, "A", b"").pack(),
    ):
        with pytest.raises(IdentityError, match="out of bounds"):
            string()


def test_small_order_is_a_danger_without_the_check() -> None:
    """Of an all-zero key's all-zero signature every fourth body is one that it holds for."""
    held = [holds_for_library(bytes(32), "x", bytes([n]), bytes(64)) for n in range(200)]
    assert 20 < sum(held) < 80


def test_identities_are_taken() -> None:
    for _ in range(20):
        assert is_identity(Identity.generate().public)
    assert not is_identity(ROUTER.public[:-1])
    assert not is_identity(list(ROUTER.public))


@pytest.mark.parametrize("public", [b"k" * 1215, NOT_ML_KEM, NOT_X25519])
def test_hpke_key_that_is_none_is_not_stated(public: bytes) -> None:
    with pytest.raises(IdentityError, match="public"):
        attrs.evolve(KEY, public=public).sign(ROUTER)


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


def test_the_identity_is_made_once_and_private(tmp_path: Path) -> None:
    first = load_identity(tmp_path)
    assert load_identity(tmp_path).public == first.public
    assert stat.S_IMODE((tmp_path / IDENTITY_FILE).stat().st_mode) == 0o600


def test_an_identity_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_identity(tmp_path)
    (tmp_path / IDENTITY_FILE).chmod(0o644)
    with pytest.raises(IdentityError, match="chmod 600"):
        load_identity(tmp_path)


@pytest.mark.parametrize("content", ["", "zz" * 32, "00" * 31])
def test_a_damaged_identity_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / IDENTITY_FILE
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match="backup"):
        load_identity(tmp_path)
