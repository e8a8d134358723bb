"""`relay.association`, `relay.listener` and `relay.scu` against DCMTK, Orthanc and pynetdicom.

Data sets are compared byte for byte wherever the peer keeps what it received.
"""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import attrs
import httpx
import pytest
import trio
import trustme
from pydicom.data import get_testdata_file

from relay import scu
from relay.association import TCPAssociation, connect
from relay.dicom import negotiation, uids
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status, response_to
from relay.dicom.negotiation import AcceptedContext, accepted_contexts
from relay.dicom.pdu import PDV, AAssociateRQ, AReleaseRP, AReleaseRQ
from relay.errors import AssociationAborted, AssociationRejected
from tests import images
from tests.association_pairs import accept_all, serving
from tests.images import Image
from tests.interop import peers

CT = Path(str(get_testdata_file("CT_small.dcm", download=False)))


def one_of_each_transfer_syntax() -> Iterator[Image]:
    """The smallest storable file of each transfer syntax."""
    for _, group in sorted(images.by_transfer_syntax().items()):
        yield from islice((image for image in group if uids.is_storage(image.sop_class)), 1)


def on_the_wire(image: Image) -> bytes:
    """Its data set as it is sent: a deflated one is padded to an even length (PS3.5 §A.5)."""
    data_set = image.data_set()
    return data_set + b"\0" * (len(data_set) % 2)


INSTANCES = list(one_of_each_transfer_syntax())


@asynccontextmanager
async def associated(
    peer: peers.Target,
    *pairs: tuple[str, str],
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[TCPAssociation, list[AcceptedContext | None]]]:
    """An association with `peer`, one context for each pair; None where it was not accepted."""
    with trio.fail_after(60):
        association = await connect(peer.host, peer.port, ssl_context=ssl_context)
        try:
            contexts = negotiation.propose([(abstract, [syntax]) for abstract, syntax in pairs])
            rq = negotiation.request(peer.ae_title, "RELAY", contexts)
            accepted = accepted_contexts(rq, await scu.negotiate(association, rq))
            yield association, [accepted.get(context.id) for context in contexts]
            await scu.release(association)
        finally:
            await association.aclose()


ECHO = (uids.VERIFICATION, uids.IMPLICIT_VR_LITTLE_ENDIAN)
STUDY_FIND = (uids.STUDY_ROOT_FIND, uids.IMPLICIT_VR_LITTLE_ENDIAN)


def study_query() -> bytes:
    """(0008,0052) STUDY, (0010,0020) and (0020,000D) universal, in Implicit VR Little Endian."""
    return (
        b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
        b"\x10\x00\x20\x00\x00\x00\x00\x00"
        b"\x20\x00\x0d\x00\x00\x00\x00\x00"
    )


# --- Relay calls ------------------------------------------------------------------------------


async def store(association: TCPAssociation, context: AcceptedContext | None, it: Image) -> int:
    assert context is not None, f"{it.transfer_syntax} was not accepted"

    data_set = on_the_wire(it)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data_set), 10_001):
            yield data_set[at : at + 10_001]

    return await scu.store(association, context, it.sop_class, it.sop_instance, pieces())


@pytest.mark.parametrize("it", INSTANCES, ids=lambda it: it.transfer_syntax)
async def test_storescp_gets_every_transfer_syntax_byte_for_byte(tmp_path: Path, it: Image) -> None:
    async with (
        peers.storescp(tmp_path) as peer,
        associated(peer, ECHO, (it.sop_class, it.transfer_syntax)) as (association, contexts),
    ):
        assert contexts[0] is not None
        assert await scu.echo(association, contexts[0]) == 0
        if contexts[1] is None:
            pytest.skip("this DCMTK does not take it")
        assert await store(association, contexts[1], it) == 0
        [path] = peer.stored()
        assert peers.data_set_of(path) == on_the_wire(it)


async def test_pynetdicom_gets_every_transfer_syntax_byte_for_byte(tmp_path: Path) -> None:
    async with (
        peers.pynetdicom_scp(tmp_path) as peer,
        associated(peer, *((it.sop_class, it.transfer_syntax) for it in INSTANCES)) as (
            association,
            contexts,
        ),
    ):
        for it, context in zip(INSTANCES, contexts, strict=True):
            assert await store(association, context, it) == 0
            assert (tmp_path / f"{it.sop_instance}.dataset").read_bytes() == on_the_wire(it)
            assert (tmp_path / f"{it.sop_instance}.syntax").read_text() == it.transfer_syntax


async def test_orthanc_stores_and_finds(tmp_path: Path) -> None:
    it = images.read(CT)
    async with (
        peers.orthanc(tmp_path) as peer,
        associated(peer, ECHO, (it.sop_class, it.transfer_syntax), STUDY_FIND) as (
            association,
            [verification, storage, query],
        ),
    ):
        assert verification is not None
        assert query is not None
        assert await scu.echo(association, verification) == 0
        assert await store(association, storage, it) == 0
        answers = [answer async for answer in scu.find(association, query, study_query())]
        assert [answer.status for answer in answers] == [0xFF00, 0]
        assert b"1CT1" in (answers[0].identifier or b"")
        assert list(await peer.instances()) == [it.sop_instance]


async def test_dcmqrscp_stores_and_finds(tmp_path: Path) -> None:
    it = images.read(CT)
    async with (
        peers.dcmqrscp(tmp_path) as peer,
        associated(peer, (it.sop_class, it.transfer_syntax), STUDY_FIND) as (
            association,
            [storage, query],
        ),
    ):
        assert query is not None
        answers = [answer async for answer in scu.find(association, query, study_query())]
        assert [answer.status for answer in answers] == [0]
        assert await store(association, storage, it) == 0
        answers = [answer async for answer in scu.find(association, query, study_query())]
        assert [answer.status for answer in answers] == [0xFF00, 0]
        [image] = [path for path in peer.stored() if path.name != "index.dat"]
        assert peers.data_set_of(image) == on_the_wire(it)


@pytest.mark.parametrize("count", [0, 1, 1000])
async def test_find_with_any_number_of_answers(tmp_path: Path, count: int) -> None:
    async with (
        peers.pynetdicom_scp(tmp_path, "--answers", str(count)) as peer,
        associated(peer, STUDY_FIND) as (association, [query]),
    ):
        assert query is not None
        answers = [answer async for answer in scu.find(association, query, study_query())]
        assert [answer.status for answer in answers] == [0xFF00] * count + [0]
        if count:
            assert b"ANSWER%06d" % count in (answers[-2].identifier or b"")


async def test_find_is_cancelled(tmp_path: Path) -> None:
    async with (
        peers.pynetdicom_scp(tmp_path, "--answers", "1000", "--slow", "0.005") as peer,
        associated(peer, STUDY_FIND) as (association, [query]),
    ):
        assert query is not None
        answers = [a async for a in scu.find(association, query, study_query(), maximum=3)]
        assert [answer.status for answer in answers] == [0xFF00] * 3 + [Status.CANCEL]


async def test_rejected_context_and_association(tmp_path: Path) -> None:
    async with (
        peers.pynetdicom_scp(tmp_path / "one", "--only", uids.VERIFICATION) as peer,
        associated(peer, ECHO, STUDY_FIND) as (_, contexts),
    ):
        assert [context is None for context in contexts] == [False, True]
    async with peers.pynetdicom_scp(tmp_path / "two", "--reject", "2,3,1") as peer:
        with pytest.raises(AssociationRejected, match="temporary congestion") as caught:
            async with associated(peer, ECHO):
                pytest.fail("it was accepted")
        assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 3, 1)
    async with peers.storescp(tmp_path / "three", "--refuse") as peer:
        with pytest.raises(AssociationRejected):
            async with associated(peer, ECHO):
                pytest.fail("it was accepted")


@pytest.mark.parametrize("option", ["--abort-after", "--abort-during"])
async def test_abort_in_a_store_arrives_as_it_was(tmp_path: Path, option: str) -> None:
    it = images.read(CT)
    async with peers.storescp(tmp_path, option) as peer:
        with pytest.raises(AssociationAborted, match="aborted by the peer") as caught:
            async with associated(peer, (it.sop_class, it.transfer_syntax)) as (
                association,
                [context],
            ):
                await store(association, context, it)
        assert caught.value.source == 0


# --- Relay is called --------------------------------------------------------------------------


class Archive:
    """A small provider: keeps what it is sent, and answers each C-FIND with what it is told."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.stored: dict[str, tuple[str, bytes]] = {}
        self.calling: list[str] = []
        self.endings: list[str] = []

    async def __call__(self, association: TCPAssociation) -> None:
        rq = await association.receive()
        assert isinstance(rq, AAssociateRQ)
        self.calling.append(rq.calling)
        ac = accept_all(rq)
        syntaxes = {context.id: context.transfer_syntax for context in ac.contexts}
        await association.send(ac)
        reader = CommandReader(syntaxes)
        data_set = bytearray()
        while True:
            match await association.receive():
                case PDV() as pdv:
                    reader.feed(pdv)
                    if not pdv.is_command:
                        data_set += pdv.fragment
                    if reader.command is not None and not reader.message_open:
                        syntax = syntaxes[pdv.context_id]
                        await self._serve(association, reader, syntax, bytes(data_set))
                        data_set.clear()
                case AReleaseRQ():
                    await association.send(AReleaseRP())
                    break
                case _:
                    break
        self.endings.append(association.cause)

    async def _serve(
        self, association: TCPAssociation, reader: CommandReader, syntax: str, data_set: bytes
    ) -> None:
        command = reader.command
        assert command is not None
        if command.command_field == CommandField.C_STORE_RQ:
            self.stored[command.sop_instance_uid or ""] = (syntax, data_set)
        if command.command_field == CommandField.C_FIND_RQ:
            for answer in self.answers:
                pending = response_to(command, Status.PENDING, has_data_set=True)
                await self._send(association, reader.context_id, pending, answer)
        if command.command_field != CommandField.C_CANCEL_RQ:
            await self._send(association, reader.context_id, response_to(command, Status.SUCCESS))

    async def _send(
        self,
        association: TCPAssociation,
        context_id: int,
        command: CommandSet,
        data_set: bytes | None = None,
    ) -> None:
        await association.send(PDV(context_id, True, True, command.encode()))
        if data_set is not None:
            await association.send(PDV(context_id, False, True, data_set))


async def test_echoscu_calls_relay() -> None:
    archive = Archive()
    async with serving(archive) as port:
        (await peers.echoscu(peers.Address(port, "RELAY"), calling="MODALITY")).check()
        result = await peers.pynetdicom("echoscu", peers.Address(port, "RELAY"), calling="PY")
        result.check()
        aborted = await peers.echoscu(peers.Address(port, "RELAY"), "--abort")
        assert aborted.status == 0
    assert archive.calling == ["MODALITY", "PY", "ECHOSCU"]
    assert archive.endings == ["released"] * 2 + ["aborted by the peer: source 0, reason 0"]


async def test_storescu_calls_relay_in_its_smallest_and_largest_pdus(tmp_path: Path) -> None:
    """DCMTK writes the data set anew from what it has read: all runs must send the same."""
    archive = Archive()
    results = []
    async with serving(archive) as port:
        for options in (["-R"], ["-R", "-pdu", "4096"], ["-R", "--max-send-pdu", "4096"]):
            address = peers.Address(port, "RELAY")
            (await peers.storescu(address, CT, options=options)).check()
            results.append(archive.stored.pop(images.read(CT).sop_instance))
    assert results[0] == results[1] == results[2]
    syntax, data_set = results[0]
    assert syntax == uids.EXPLICIT_VR_LITTLE_ENDIAN
    assert data_set[-1000:] in peers.data_set_of(CT)


async def test_findscu_calls_relay() -> None:
    answer = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY \x10\x00\x20\x00\x08\x00\x00\x00ANSWER%02d"
    async with serving(Archive(*(answer % number for number in range(40)))) as port:
        address = peers.Address(port, "RELAY")
        # -xi: the answers above are in Implicit VR.
        result = await peers.findscu(
            address, "QueryRetrieveLevel=STUDY", "PatientID", options=["-S", "-xi"]
        )
        assert result.check().output.count("ANSWER") == 40


async def test_orthanc_calls_relay(tmp_path: Path) -> None:
    archive = Archive()
    async with serving(archive) as port:
        modalities = [peers.Address(port, "RELAY")]
        async with peers.orthanc(tmp_path, modalities=modalities) as orthanc:
            (await peers.storescu(orthanc, CT, options=["-R"])).check()
            async with httpx.AsyncClient(base_url=orthanc.http, trust_env=False) as client:
                echo = await client.post("/modalities/RELAY/echo", content="{}")
                assert echo.status_code == 200
                [name] = (await client.get("/instances")).json()
                stored = await client.post("/modalities/RELAY/store", content=name, timeout=30)
                assert stored.status_code == 200
    assert list(archive.stored) == [images.read(CT).sop_instance]


# --- TLS --------------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class Certificates:
    """One authority's certificate for loopback, as files for DCMTK and contexts for Relay."""

    key: Path
    chain: Path
    authority: Path
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    names = Certificates(
        tmp_path / "key.pem",
        tmp_path / "chain.pem",
        tmp_path / "authority.pem",
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    leaf.private_key_pem.write_to_path(str(names.key))
    names.chain.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    authority.cert_pem.write_to_path(str(names.authority))
    for context in (names.server, names.client):
        leaf.configure_cert(context)
        authority.configure_trust(context)
    names.server.verify_mode = ssl.CERT_REQUIRED
    return names


async def test_dcmtk_over_tls_both_ways(tmp_path: Path, certificates: Certificates) -> None:
    tls = [
        *("+tls", str(certificates.key), str(certificates.chain)),
        *("+cf", str(certificates.authority)),
    ]
    archive = Archive()
    async with serving(archive, ssl_context=certificates.server) as port:
        address = peers.Address(port, "RELAY", host="localhost")
        (await peers.echoscu(address, *tls)).check()
        (await peers.storescu(address, CT, options=["-R", *tls])).check()
    assert archive.endings == ["released", "released"]
    it = images.read(CT)
    async with (
        peers.storescp(tmp_path / "out", *tls) as peer,
        associated(peer, (it.sop_class, it.transfer_syntax), ssl_context=certificates.client) as (
            association,
            [context],
        ),
    ):
        assert await store(association, context, it) == 0
        [path] = peer.stored()
        assert peers.data_set_of(path) == on_the_wire(it)


async def test_dcmtk_meets_tls_where_it_expects_none(certificates: Certificates) -> None:
    async with serving(ssl_context=certificates.server) as port:
        assert (await peers.echoscu(peers.Address(port, "RELAY"))).status != 0
    async with serving() as port:
        result = await peers.echoscu(
            peers.Address(port, "RELAY"),
            *("+tls", str(certificates.key), str(certificates.chain)),
            *("+cf", str(certificates.authority)),
        )
        assert result.status != 0
