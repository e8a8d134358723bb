"""DICOM over TLS with others' software at both ends: DCMTK, pynetdicom and Orthanc.

All devices and Routers of a test have certificates of one authority, except where a test says so.
DCMTK and pynetdicom send data sets as they are; what arrives is compared byte for byte with what
the same sender gives an acceptor without TLS and without Relay.
"""

import hashlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import trio

from tests import images
from tests.certificates import Authority, Identity
from tests.hospitals import publish, two_hospitals
from tests.interop import peers
from tests.network import Network, NetworkError, Site, write_configuration

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PYNETDICOM = Path(__file__).with_name("pynetdicom_tls.py")

# Uncompressed with 16-bit and 8-bit pixels, JPEG Lossless, JPEG 2000, RLE, and multi-frame.
SYNTAXES = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.5": "-xr",
}
REDUCED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70")
OF_EACH = 4

# All storage SOP classes begin so (PS3.6 Table A-1); a DICOMDIR, which is not sent, does not.
STORAGE = "1.2.840.10008.5.1.4.1.1."


def pictures(full_size: bool) -> dict[str, list[Path]]:
    """Real images by transfer syntax: the largest of each."""
    groups = images.by_transfer_syntax()
    return {
        syntax: [i.path for i in groups[syntax] if i.sop_class.startswith(STORAGE)][-OF_EACH:]
        for syntax in (SYNTAXES if full_size else REDUCED)
    }


# --- devices ----------------------------------------------------------------------------------


def dcmtk(authority: Authority, identity: Identity) -> tuple[str, ...]:
    return (*identity.dcmtk, "+cf", str(authority.file))


def pynetdicom_options(authority: Authority, identity: Identity) -> tuple[str, ...]:
    return (
        *("--certificate", str(identity.certificate), "--key", str(identity.private_key)),
        *("--authority", str(authority.file)),
    )


def orthanc_settings(authority: Authority, identity: Identity) -> dict[str, object]:
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(identity.certificate),
        "DicomTlsPrivateKey": str(identity.private_key),
        "DicomTlsTrustedCertificates": str(authority.file),
        "DicomTlsRemoteCertificateRequired": True,
    }


async def pynetdicom_send(
    target: peers.Target, files: Sequence[Path], *options: str, calling: str
) -> peers.Result:
    return await peers.run(
        *(sys.executable, str(PYNETDICOM), "send", "--host", target.host),
        *("--port", str(target.port), "--calling", calling, "--called", target.ae_title),
        *(*options, *map(str, files)),
        deadline=200,
    )


def tls_port(site: Site) -> int:
    """Where a Router listens for TLS: the system has chosen the port."""
    for line in site.output().splitlines():
        entry = json.loads(line)
        if entry["event"] == "Router listens":
            port: int = entry["tls_listening"][0][1]
            return port
    raise AssertionError(site.output())


def keys(authority: Authority, identity: Identity, **more: object) -> dict[str, object]:
    """What a Router's configuration says of TLS towards devices."""
    return {
        "tls_listen": "127.0.0.1:0",
        "certificate": str(identity.certificate),
        "private_key": str(identity.private_key),
        "device_ca_file": str(authority.file),
        **more,
    }


def digests(data_sets: Sequence[bytes]) -> set[str]:
    return {hashlib.sha256(data).hexdigest() for data in data_sets}


def cleared(directory: Path, read: Callable[[Path], bytes]) -> set[str]:
    """The digests of what an acceptor has stored, which is removed."""
    found = set()
    for path in directory.iterdir():
        if path.suffix != ".log":
            found |= digests([read(path)])
            path.unlink()
    return found


# --- everyone to everyone ---------------------------------------------------------------------


async def test_everyone_reaches_everyone_over_tls(tmp_path: Path, full_size: bool) -> None:
    """Both Routers want certificates of who calls; the devices want one of their Router."""
    groups = pictures(full_size)
    authority = Authority(tmp_path / "authority")
    own = authority.issue()
    device = authority.issue()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        scp = await enter(
            peers.storescp(tmp_path / "scp", *dcmtk(authority, device), ae_title="SCP")
        )
        pynet = await enter(
            peers.pynetdicom_tls_scp(
                tmp_path / "pynet",
                *pynetdicom_options(authority, device),
                *("--maximum-length", "131072"),
                ae_title="PYNET",
            )
        )
        orthanc = await enter(
            peers.orthanc(
                tmp_path / "orthanc",
                ae_title="ORTHANC_B",
                settings=orthanc_settings(authority, device),
            )
        )
        stranger = Authority(tmp_path / "stranger")
        refuses = await enter(
            peers.storescp(
                tmp_path / "refuses", *device.dcmtk, "+cf", str(stranger.file), ae_title="REFUSES"
            )
        )
        reference = await enter(peers.storescp(tmp_path / "reference", ae_title="REFERENCE"))
        net = await enter(
            two_hospitals(
                tmp_path / "net",
                *("STORESCU", "PYSCU", "ORTHANC_A"),
                router=keys(authority, own, device_certificates="required"),
            )
        )
        for ae_title, port in (("SCP", scp.port), ("PYNET", pynet.port)):
            await published(net, ae_title, port)
        await published(net, "ORTHANC_B", orthanc.port)
        near = tls_port(net.routers["A"])

        for ae_title, taken in (("SCP", scp), ("PYNET", pynet)):
            target = peers.Address(near, ae_title)
            read = peers.data_set_of if ae_title == "SCP" else Path.read_bytes
            for syntax, files in groups.items():
                sent = await by_dcmtk(target, files, authority, device, SYNTAXES[syntax])
                assert sent.status == 0, sent.output[-3000:]
                await peers.storescu(
                    reference, *files, options=["-nh", "-R", SYNTAXES[syntax]], deadline=200
                )
                expected = cleared(reference.directory, peers.data_set_of)
                assert len(expected) > 1
                assert cleared(taken.directory, read) == expected, (ae_title, syntax)
                sent = await pynetdicom_send(
                    target, files, *pynetdicom_options(authority, device), calling="PYSCU"
                )
                assert sent.status == 0, sent.output[-3000:]
                expected = digests([peers.data_set_of(path) for path in files])
                assert cleared(taken.directory, read) == expected, (ae_title, syntax)

        orthanc_a = await enter(
            peers.orthanc(
                tmp_path / "orthanc_a",
                ae_title="ORTHANC_A",
                settings={
                    **orthanc_settings(authority, device),
                    "DicomModalities": {
                        title: {
                            "AET": title,
                            "Host": "127.0.0.1",
                            "Port": near,
                            "UseDicomTls": True,
                        }
                        for title in ("SCP", "PYNET", "ORTHANC_B")
                    }
                    | {"REFERENCE": ["REFERENCE", "127.0.0.1", reference.port]},
                },
            )
        )
        chosen = [files[-1] for files in groups.values()]
        sent_by_orthanc = [await orthanc_a.upload(path) for path in chosen]
        for ae_title in ("SCP", "PYNET", "ORTHANC_B", "REFERENCE"):
            await orthanc_a.call(ae_title, "echo", {})
            await orthanc_a.call(ae_title, "store", {"Resources": sent_by_orthanc})
        expected = cleared(reference.directory, peers.data_set_of)
        assert len(expected) == len(chosen)
        assert cleared(scp.directory, peers.data_set_of) == expected
        assert cleared(pynet.directory, Path.read_bytes) == expected

        target = peers.Address(near, "ORTHANC_B")
        for syntax, files in groups.items():
            sent = await by_dcmtk(target, files, authority, device, SYNTAXES[syntax])
            assert sent.status == 0, sent.output[-3000:]
        sent = await pynetdicom_send(
            target, chosen, *pynetdicom_options(authority, device), calling="PYSCU"
        )
        assert sent.status == 0, sent.output[-3000:]
        there = await orthanc.instances()
        for path in chosen:
            before = pydicom.dcmread(path)
            after = pydicom.dcmread(BytesIO(there[before.SOPInstanceUID]))
            assert after.get("PixelData") == before.get("PixelData"), path
        await published(net, "REFUSES", refuses.port)
        refused = await peers.echoscu(
            peers.Address(near, "REFUSES"), *dcmtk(authority, device), calling="STORESCU"
        )
        assert refused.status != 0
        await said_in_log(
            net.routers["B"],
            "TLS: the peer refuses the certificate that it was shown (unknown ca)",
        )
        carried = {
            entry["tls"] for entry in ended(net.routers["A"]) if entry["peer"] != "unix socket"
        }
        assert carried, "the log has no association over TLS"
        assert all(words.startswith(("TLSv1.2 ECDHE", "TLSv1.3 TLS_")) for words in carried), (
            carried
        )
        causes = [entry["why"] for entry in ended(net.routers["A"])]
        assert set(causes[:-1]) == {"released"}, causes


async def published(net: Network, ae_title: str, port: int) -> None:
    await publish(net, ae_title, port, "echo,store")
    await net.routers["B"].relay("device", "add", ae_title, "127.0.0.1", str(port), "--tls")


async def by_dcmtk(
    target: peers.Address, files: list[Path], authority: Authority, identity: Identity, syntax: str
) -> peers.Result:
    tls = dcmtk(authority, identity)
    return await peers.storescu(target, *files, options=["-nh", "-R", syntax, *tls], deadline=200)


def ended(site: Site) -> list[dict[str, Any]]:
    """The log's lines of ended associations with devices over TLS."""
    entries = [json.loads(line) for line in site.output().splitlines()]
    return [e for e in entries if e["event"] == "association ended" and "tls" in e]


# --- one Router, no network -------------------------------------------------------------------


@asynccontextmanager
async def router(directory: Path, **values: object) -> AsyncIterator[Site]:
    """A Router that is not enrolled: it answers C-ECHO, and can test devices."""
    site = Site("Router", "router", directory, peers.free_port())
    write_configuration(
        site,
        "router",
        {
            "ae_title": "RELAY",
            "listen": f"127.0.0.1:{site.port}",
            "data_dir": "data",
            "grace_period": 2,
            **values,
        },
    )
    try:
        await site.start()
        yield site
    finally:
        await site.stop()


PROFILES = ("+py", "+px", "+pz")


async def test_dcmtks_profiles(tmp_path: Path, full_size: bool) -> None:
    """BCP 195 non-downgrading, BCP 195, extended BCP 195; the retired AES profile is refused."""
    authority = Authority(tmp_path / "authority")
    device = authority.issue()
    every = ("bcp195", "modified-bcp195", "non-downgrading-bcp195")
    for profile in every if full_size else every[:1]:
        values = keys(authority, authority.issue(), tls_profile=profile)
        async with router(tmp_path / profile, **values) as site:
            await site.relay("device", "add", "ECHOSCU", "127.0.0.1", "104")
            target = peers.Address(tls_port(site), "RELAY")
            for option in PROFILES:
                (await peers.echoscu(target, *dcmtk(authority, device), option)).check()
            anonymous = ("+tla", "+cf", str(authority.file))
            (await peers.echoscu(target, *anonymous)).check()
            refused = await peers.echoscu(target, *dcmtk(authority, device), "+pa", "-to", "5")
            assert refused.status != 0
            await said_in_log(site, "TLS: no cipher suite in common: see tls_profile")
            for option in (*PROFILES, "+pa"):
                directory = tmp_path / profile / option
                async with peers.storescp(directory, *dcmtk(authority, device), option) as scp:
                    await add(site, "STORESCP", scp.port, "--tls")
                    said = await probed(site, "STORESCP")
                    if option == "+pa":
                        assert "TLS: the peer ends the handshake: no cipher suite in common" in said
                    else:
                        assert "takes" in said, said


async def add(site: Site, ae_title: str, port: int, *options: str) -> None:
    """A device, as if for the first time."""
    await site.relay("device", "remove", ae_title, check=False)
    await site.relay("device", "add", ae_title, "127.0.0.1", str(port), *options)


async def probed(site: Site, ae_title: str) -> str:
    return await site.relay("device", "test", ae_title, check=False)


async def test_what_device_test_and_doctor_say(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    stranger = Authority(tmp_path / "stranger").issue()
    device, elsewhere = authority.issue(), authority.issue("pacs.example")
    values = {"device_ca_file": str(authority.file)}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        site = await enter(router(tmp_path / "router", **values))
        said: dict[str, str] = {}

        async def case(name: str, options: Sequence[str], *device_options: str) -> None:
            scp = await enter(peers.storescp(tmp_path / name, *options, ae_title=name))
            await site.relay(
                *("device", "add", name, "127.0.0.1", str(scp.port), "--publish", "store"),
                *device_options,
            )
            said[name] = await probed(site, name)

        trusting = ("+cf", str(authority.file))
        asks_none = "-ic"
        await case("GOOD", (*device.dcmtk, asks_none), "--tls")
        await case("PLAIN", (), "--tls")
        await case("TLS_ONLY", (*device.dcmtk, asks_none))
        await case("STRANGER", (*stranger.dcmtk, asks_none), "--tls")
        await case("ELSEWHERE", (*elsewhere.dcmtk, asks_none), "--tls")
        await case("NAMED", (*elsewhere.dcmtk, asks_none), "--tls", "--tls-name", "pacs.example")
        await case("WANTS_ONE", (*device.dcmtk, *trusting), "--tls")
        doctor = await site.relay("doctor", check=False)
    for name in ("GOOD", "NAMED"):
        assert "takes" in said[name], said[name]
    for name, words in {
        "PLAIN": "connection closed by the peer in the TLS handshake: is this its TLS port",
        "STRANGER": "TLS: certificate refused: unable to get local issuer certificate: add it, or",
        "ELSEWHERE": "give the name that is in it as tls_name of the device",
        "WANTS_ONE": "TLS: the peer wants a certificate: set certificate and private_key",
    }.items():
        assert words in said[name], said[name]
        assert words in doctor, doctor
    for words in (said["TLS_ONLY"], doctor):
        assert "it speaks TLS there: say so of the device (`relay device add TLS_ONLY" in words


async def test_a_plain_device_that_answers_is_named(tmp_path: Path) -> None:
    """pynetdicom answers a ClientHello with an A-ABORT; Orthanc over TLS just closes."""
    authority = Authority(tmp_path / "authority")
    identity = authority.issue()
    async with (
        router(tmp_path / "router", **keys(authority, identity)) as site,
        peers.pynetdicom_scp(tmp_path / "plain", ae_title="PLAIN") as plain,
        peers.orthanc(
            tmp_path / "orthanc",
            ae_title="ORTHANC",
            settings=orthanc_settings(authority, identity),
        ) as orthanc,
    ):
        await add(site, "PLAIN", plain.port, "--tls")
        said = await probed(site, "PLAIN")
        assert "TLS: the peer answers without TLS: is this its TLS port, and TLS switched" in said
        await add(site, "ORTHANC", orthanc.port, "--tls")
        assert "takes" in await probed(site, "ORTHANC")
        await add(site, "ORTHANC", orthanc.port)
        assert "it speaks TLS there" in await probed(site, "ORTHANC")


async def test_the_caller_hears_what_is_wrong_and_the_log_says_it(tmp_path: Path) -> None:
    """Each mismatch of a device that calls: its exit status, its output, the Router's one line."""
    authority = Authority(tmp_path / "authority")
    stranger = Authority(tmp_path / "stranger")
    device = authority.issue()
    values = keys(authority, authority.issue(), device_certificates="required")
    async with router(tmp_path / "router", **values) as site:
        await add(site, "ECHOSCU", 104)
        await site.relay("device", "add", "ELSEWHERE", "127.0.0.2", "104")
        plain = peers.Address(site.port, "RELAY")
        secured = peers.Address(tls_port(site), "RELAY")
        good = dcmtk(authority, device)
        (await peers.echoscu(plain)).check()
        (await peers.echoscu(secured, *good)).check()
        for target, options, calling, heard, logged in [
            (secured, (), "ECHOSCU", "Protocol Version", "plain DICOM on the TLS port"),
            (plain, good, "ECHOSCU", "wrong version number", "TLS on a plain port"),
            (
                secured,
                ("+tla", "+cf", str(authority.file)),
                "ECHOSCU",
                "",
                "TLS: the peer shows no certificate, and device_certificates requires one",
            ),
            (
                secured,
                (*stranger.issue().dcmtk, "+cf", str(authority.file)),
                "ECHOSCU",
                "",
                "TLS: certificate refused: unable to get local issuer certificate: add it",
            ),
            (
                secured,
                (*device.dcmtk, "+cf", str(stranger.file)),
                "ECHOSCU",
                "certificate verify failed",
                "TLS: the peer refuses the certificate that it was shown (unknown ca)",
            ),
            (
                secured,
                good,
                "ELSEWHERE",
                "Calling AE Title Not Recognized",
                "'ELSEWHERE' calls from 127.0.0.1, which is not its host",
            ),
        ]:
            result = await peers.echoscu(target, *options, calling=calling)
            assert result.status != 0, logged
            assert heard in result.output, result.output
            await said_in_log(site, logged)
        (await peers.echoscu(secured, *good)).check()


async def said_in_log(site: Site, words: str) -> None:
    with trio.fail_after(10):
        while words not in site.output():
            await trio.sleep(0.05)


async def test_frozen_handshakes_keep_no_device_out(tmp_path: Path) -> None:
    """Forty connections that never finish, some of them silent, and a device that does."""
    authority = Authority(tmp_path / "authority")
    device = authority.issue()
    async with router(tmp_path / "router", **keys(authority, authority.issue())) as site:
        await add(site, "ECHOSCU", 104)
        port = tls_port(site)
        frozen = []
        for number in range(40):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"\x16\x03\x01\x02"[: number % 5])
            frozen.append(stream)
        target = peers.Address(port, "RELAY")
        (await peers.echoscu(target, *dcmtk(authority, device), "-to", "5")).check()
        (await peers.echoscu(peers.Address(site.port, "RELAY"))).check()
        # Who has been silent for a while makes room for the next from its address.
        with trio.fail_after(20):
            while "connections from 127.0.0.1 without an association" not in site.output():
                (await peers.echoscu(target, *dcmtk(authority, device), "-to", "5")).check()
        for stream in frozen:
            await stream.aclose()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"private_key": "other"}, "is not the key of the first certificate in"),
        ({"certificate": "words"}, "no certificate in PEM"),
        ({"device_ca_file": "words"}, "no certificates in PEM"),
        ({"private_key": "nothing"}, "router.private_key: "),
    ],
)
async def test_mistakes_in_files_are_one_line_at_the_start(
    tmp_path: Path, wrong: dict[str, str], said: str
) -> None:
    authority = Authority(tmp_path / "authority")
    values = keys(authority, authority.issue())
    files = {"other": authority.issue().private_key, "words": tmp_path / "words"}
    files["words"].write_text("not PEM")
    for key, name in wrong.items():
        values[key] = str(files.get(name, tmp_path / name))
    with pytest.raises(NetworkError) as caught:
        async with router(tmp_path / "router", **values):
            pass
    lines = str(caught.value).splitlines()
    assert said in lines[-1], lines
    assert len(lines) == 2, lines
