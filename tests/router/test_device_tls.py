"""TLS towards devices: the profiles on both ends of a real connection, and files that do not do."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization

from relay import association
from relay.association import TCPAssociation
from relay.dicom.pdu import AAbort, AAssociateAC, AReleaseRP, AReleaseRQ
from relay.errors import AssociationAborted, RelayError
from relay.patience import Timeouts
from relay.router.device_tls import DeviceTLS, Profile, load
from relay.router.devices import Device
from tests.association_pairs import REQUEST, serving
from tests.certificates import Authority, Identity

TIMEOUTS = Timeouts(connect=5, tls_handshake=5, association_answer=5)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def of(authority: Authority, identity: Identity | None = None, **options: Any) -> DeviceTLS:
    """A Router's contexts: the authority is trusted."""
    return load(
        certificate=identity.certificate if identity else None,
        private_key=identity.private_key if identity else None,
        device_ca_file=authority.file,
        **options,
    )


def device(port: int, **fields: Any) -> Device:
    return Device("PACS", "127.0.0.1", port, tls=True, **fields)


async def whole(connection: TCPAssociation) -> str:
    """Request and release; which TLS it went over."""
    with trio.fail_after(10):
        await connection.send(REQUEST)
        answer = await connection.receive()
        assert isinstance(answer, AAssociateAC), connection.cause
        await connection.send(AReleaseRQ())
        assert await connection.receive() == AReleaseRP()
        await connection.aclose()
    return connection.tls


@asynccontextmanager
async def router(tls: DeviceTLS) -> AsyncIterator[int]:
    assert tls.serving is not None
    async with serving(ssl_context=tls.serving) as port:
        yield port


@pytest.mark.parametrize("profile", Profile)
async def test_every_profile_on_both_ends(authority: Authority, profile: Profile) -> None:
    tls = of(authority, authority.issue(), profile=profile.value)
    async with router(tls) as port:
        carried = await whole(await tls.connect(device(port), TIMEOUTS))
    assert carried == "TLSv1.3 TLS_AES_256_GCM_SHA384"


@pytest.mark.parametrize(
    ("profile", "suites", "carried"),
    [
        ("bcp195", "ECDHE-RSA-AES128-GCM-SHA256", True),
        ("bcp195", "ECDHE-RSA-AES256-GCM-SHA384", True),
        ("bcp195", "DHE-RSA-AES256-GCM-SHA384", False),
        ("bcp195", "ECDHE-RSA-AES128-SHA256", False),
        ("bcp195", "AES128-SHA", False),
        ("modified-bcp195", "ECDHE-RSA-CHACHA20-POLY1305", True),
        ("modified-bcp195", "ECDHE-RSA-AES256-GCM-SHA384", True),
        ("modified-bcp195", "DHE-RSA-AES256-GCM-SHA384", False),
        ("non-downgrading-bcp195", "DHE-RSA-AES128-GCM-SHA256", True),
        ("non-downgrading-bcp195", "DHE-RSA-AES256-GCM-SHA384", True),
        ("non-downgrading-bcp195", "ECDHE-RSA-AES128-GCM-SHA256", True),
        ("non-downgrading-bcp195", "ECDHE-RSA-CHACHA20-POLY1305", False),
    ],
)
async def test_cipher_suites_of_tls_1_2(
    authority: Authority, profile: str, suites: str, carried: bool
) -> None:
    tls = of(authority, authority.issue(key_type=trustme.KeyType.RSA), profile=profile)
    client = ssl.create_default_context(cafile=authority.file)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(suites)
    async with router(tls) as port:
        if carried:
            connection = await association.connect("127.0.0.1", port, ssl_context=client)
            assert await whole(connection) == f"TLSv1.2 {suites}"
        else:
            with pytest.raises(AssociationAborted, match="no cipher suite in common"):
                await association.connect("127.0.0.1", port, ssl_context=client)


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_nothing_older_than_tls_1_2(
    authority: Authority, profile: Profile, version: ssl.TLSVersion
) -> None:
    tls = of(authority, authority.issue(), profile=profile.value)
    old = ssl.create_default_context(cafile=authority.file)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = version
    async with router(tls) as port:
        with pytest.raises(AssociationAborted, match="no version in common"):
            await association.connect("127.0.0.1", port, ssl_context=old)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    identity = authority.issue()
    served.load_cert_chain(identity.certificate, identity.private_key)
    served.set_ciphers("ALL:@SECLEVEL=0")
    served.minimum_version = served.maximum_version = version
    async with serving(ssl_context=served) as port:
        with pytest.raises(AssociationAborted, match="no version in common"):
            await tls.connect(device(port), TIMEOUTS)


# --- names and trust --------------------------------------------------------------------------


async def test_name_in_the_certificate(authority: Authority) -> None:
    tls = of(authority, authority.issue("pacs.hospital.example"))
    async with router(tls) as port:
        with pytest.raises(AssociationAborted, match="give the name that is in it as tls_name"):
            await tls.connect(device(port), TIMEOUTS)
        named = device(port, tls_name="pacs.hospital.example")
        assert await whole(await tls.connect(named, TIMEOUTS))


async def test_a_devices_own_certificate_may_be_trusted_itself(authority: Authority) -> None:
    identity = authority.issue()
    served = of(authority, identity)
    pinned = load(device_ca_file=identity.certificate)
    async with router(served) as port:
        assert await whole(await pinned.connect(device(port), TIMEOUTS))
        with pytest.raises(AssociationAborted, match="add it, or its authority's, to device_ca"):
            await DeviceTLS().connect(device(port), TIMEOUTS)


async def test_a_device_without_tls_is_called_without(authority: Authority) -> None:
    async with serving() as port:
        plain = Device("PACS", "127.0.0.1", port)
        assert await whole(await of(authority).connect(plain, TIMEOUTS)) == ""


@pytest.mark.parametrize("asked", ["none", "asked", "required"])
@pytest.mark.parametrize("shown", ["nothing", "a trusted one", "a stranger's"])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_certificates_of_devices_that_call(
    authority: Authority, tmp_path: Path, asked: str, shown: str, newest: ssl.TLSVersion
) -> None:
    client = ssl.create_default_context(cafile=authority.file)
    client.maximum_version = newest
    if shown != "nothing":
        issuer = authority if shown == "a trusted one" else Authority(tmp_path / "stranger")
        identity = issuer.issue()
        client.load_cert_chain(identity.certificate, identity.private_key)
    let_in = asked == "none" or shown == "a trusted one" or (asked, shown) == ("asked", "nothing")
    tls = of(authority, authority.issue(), device_certificates=asked)
    async with router(tls) as port:
        if let_in:
            await whole(await association.connect("127.0.0.1", port, ssl_context=client))
            return
        said = await refused(lambda: association.connect("127.0.0.1", port, ssl_context=client))
    if shown == "nothing":
        assert "wants a certificate" in said
    else:
        assert "the peer refuses the certificate that it was shown (unknown ca)" in said


async def refused(connect: Callable[[], Any]) -> str:
    """Why there is no association: in the handshake, or under TLS 1.3 right after it."""
    with trio.fail_after(10):
        try:
            connection = await connect()
        except AssociationAborted as error:
            return str(error)
        await connection.send(REQUEST)
        assert isinstance(await connection.receive(), AAbort)
        await connection.aclose()
    return str(connection.cause)


async def test_the_routers_own_certificate_is_shown_to_who_asks(authority: Authority) -> None:
    tls = of(authority, authority.issue(), device_certificates="required")
    async with router(tls) as port:
        assert await whole(await tls.connect(device(port), TIMEOUTS))
        without = of(authority)
        said = await refused(lambda: without.connect(device(port), TIMEOUTS))
    assert "TLS: the peer wants a certificate: set certificate and private_key" in said


def test_without_an_authority_no_certificate_is_asked_for(authority: Authority) -> None:
    identity = authority.issue()
    tls = load(certificate=identity.certificate, private_key=identity.private_key)
    assert tls.serving is not None
    assert tls.serving.verify_mode is ssl.CERT_NONE
    assert tls.calling.verify_mode is ssl.CERT_REQUIRED


async def test_a_certificate_that_vouches_for_itself(tmp_path: Path) -> None:
    """As the guide has it made, and as devices have theirs: no authority's."""
    files = tmp_path / "router.pem", tmp_path / "key.pem"
    for constraints in ("CA:TRUE", "CA:FALSE"):
        await trio.run_process(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "825"),
                *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=relay.example"),
                *("-addext", "subjectAltName=DNS:relay.example,IP:127.0.0.1"),
                *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
                *("-addext", f"basicConstraints=critical,{constraints}"),
                *("-keyout", str(files[1]), "-out", str(files[0])),
            ],
            capture_stderr=True,
        )
        tls = load(
            certificate=files[0],
            private_key=files[1],
            device_ca_file=files[0],
            device_certificates="required",
        )
        async with router(tls) as port:
            assert await whole(await tls.connect(device(port), TIMEOUTS))


async def test_a_certificate_of_a_manufacturer_has_a_common_name_only(tmp_path: Path) -> None:
    """No subjectAltName, one label with an underscore: `tls_name` is what stands in it."""
    files = tmp_path / "device.pem", tmp_path / "key.pem"
    await trio.run_process(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"),
            *("-subj", "/O=Manufacturer/CN=MR_SCANNER1", "-config", "/dev/null"),
            *("-keyout", str(files[1]), "-out", str(files[0])),
        ],
        capture_stderr=True,
    )
    served = load(certificate=files[0], private_key=files[1])
    trusting = load(device_ca_file=files[0])
    async with router(served) as port:
        with pytest.raises(AssociationAborted, match="give the name that is in it as tls_name"):
            await trusting.connect(device(port), TIMEOUTS)
        named = device(port, tls_name="MR_SCANNER1")
        assert await whole(await trusting.connect(named, TIMEOUTS))


# --- files ------------------------------------------------------------------------------------


def test_without_a_certificate_nothing_is_served() -> None:
    assert load().serving is None


def test_files_that_do_not_do(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.issue(), authority.issue()
    nothing, words, encrypted = (tmp_path / name for name in ("none", "words", "encrypted"))
    words.write_text("not PEM\n")
    key = serialization.load_pem_private_key(good.private_key.read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for files, said in [
        ((good.certificate, other.private_key), f"{other.private_key} is not the key of"),
        ((good.certificate, nothing), f"private_key {nothing}: No such file"),
        ((good.certificate, words), f"private_key {words}: no private key in PEM"),
        ((good.certificate, encrypted), f"private_key {encrypted}: is encrypted"),
        ((nothing, good.private_key), f"certificate {nothing}: No such file"),
        ((words, good.private_key), f"certificate {words}: no certificate in PEM"),
    ]:
        with pytest.raises(RelayError) as caught:
            load(certificate=files[0], private_key=files[1])
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    for path in (words, nothing):
        with pytest.raises(RelayError, match=f"device_ca_file {path}: No|device_ca_file .*: no ce"):
            load(device_ca_file=path)
