"""The audit of real associations: what two Routers, a Bridge and a collector have of each."""

import base64
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pydicom
import pytest
import trio

from tests.audit.collectors import listening
from tests.audit.rnc import faults
from tests.certificates import Authority
from tests.hospitals import ct_image, make, publish, two_hospitals
from tests.interop import peers
from tests.network import POLL, Site
from tests.ports import Ports

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

_ports = Ports(9_400, 400)

DEADLINE = 60.0
CT = "1.2.840.10008.5.1.4.1.1.2"

Entry = dict[str, Any]


async def entries(site: Site, *options: str) -> list[Entry]:
    """The oldest first."""
    found: list[Entry] = await site.ask("audit", "list", "--limit", "500", *options)
    return found[::-1]


async def until(site: Site, count: int, *options: str) -> list[Entry]:
    """These entries, once there are so many."""
    with trio.fail_after(DEADLINE):
        while len(found := await entries(site, *options)) < count:
            await trio.sleep(POLL)
    return found


async def messages_of(site: Site) -> None:
    """Each entry is a message by the standard's schema."""
    async with site.rest() as asking:
        for entry in await entries(site):
            assert "was changed on the disk" not in entry["words"]
            response = await asking.get(f"/v1/audit/{entry['number']}.xml")
            assert faults(response.content) == [], entry


async def test_what_is_relayed_is_in_both_audits_and_at_the_collector(tmp_path: Path) -> None:
    image = ct_image()
    stored = make(tmp_path / "stored")
    authority = Authority(tmp_path / "authority")
    async with listening(authority) as (collector, where):
        router = {"audit_syslog": str(where), "audit_ca_file": str(authority.file)}
        async with (
            peers.storescp(stored, ae_title="STORESCP") as scp,
            two_hospitals(tmp_path / "net", "STORESCU", router=router) as net,
        ):
            near, far = net.routers["A"], net.routers["B"]
            await publish(net, "STORESCP", scp.port, "echo,store")
            sent = await peers.storescu(net.address("A", "STORESCP"), image.path)
            assert sent.status == 0, sent.output
            for site, address in ((near, ""), (far, "127.0.0.1")):
                (began,) = await until(site, 1, "--kind", "begin")
                (over,) = await until(site, 1, "--kind", "transfer")
                assert began["words"] == "STORESCU begins to send to STORESCP"
                assert over["words"] == "STORESCU has sent 1 object to STORESCP"
                assert (over["outcome"], over["objects"]) == ("success", 1)
                assert over["association"] == began["association"]
                (study,) = over["studies"]
                assert study["study"] is None  # no data set of what is relayed is read
                (instances,) = study["instances"]
                assert (instances["sop_class"], instances["count"]) == (CT, 1)
                assert instances["uids"] == [image.sop_instance]
                _, destination, other = over["participants"]
                assert destination["address"] == address
                assert other["name"] == ("Hospital B" if site is near else "Hospital A")
            # One that is not granted: refused there, told on both sides.
            refused = await peers.findscu(
                net.address("A", "STORESCP"), "QueryRetrieveLevel=STUDY", calling="STORESCU"
            )
            assert refused.status != 0
            (told,) = await until(near, 1, "--kind", "alert", "--ae-title", "STORESCU")
            assert told["words"] == "STORESCU is not let in by STORESCP"
            with trio.fail_after(DEADLINE):
                while not any("is refused" in e["words"] for e in await entries(far)):
                    await trio.sleep(POLL)
            # One that nobody knows.
            await peers.echoscu(net.address("A", "STORESCP"), calling="STRANGER")
            (stranger,) = await until(near, 1, "--kind", "alert", "--ae-title", "STRANGER")
            assert stranger["words"] == "STRANGER may not call STORESCP"
            assert "is no device of this Router" in stranger["why"]
            # What people did at the console.
            changes = await entries(far, "--kind", "alert", "--who", "console")
            done = [entry["words"] for entry in changes]
            assert any(w.startswith("Added the device STORESCP at") for w in done)
            assert any(w.startswith("Granted echo, store of") for w in done)
            assert any(w.startswith("Joined a network as Hospital") for w in done)
            assert not any("relay1" in json.dumps(entry) for entry in changes)  # no invitation
            await messages_of(near)
            await messages_of(far)
            output = await far.relay("audit", "verify")
            assert "none was changed" in output
            count = len(await entries(near)) + len(await entries(far))
            await collector.wait_for(count)
            starts = [m for m in collector.messages if b"Application Start" in m]
            assert len(starts) == 2
            assert sum(b"DICOM Instances Transferred" in m for m in collector.messages) == 2
            joined = await entries(net.bridge, "--kind", "alert")
            words = [entry["words"] for entry in joined]
            assert sum(w.endswith(" has joined the network") for w in words) == 2
            assert sum(w.startswith("Invited Hospital ") for w in words) == 2
            await messages_of(net.bridge)
            assert await net.bridge.stop() == 0
            await net.bridge.start()
            runs = await until(net.bridge, 3, "--kind", "application")
            assert [entry["type"] for entry in runs] == [
                "Application Start",
                "Application Stop",
                "Application Start",
            ]


async def test_what_is_queued_is_told_with_its_study_at_acceptance_and_delivery(
    tmp_path: Path,
) -> None:
    image = ct_image()
    study = str(pydicom.dcmread(image.path, stop_before_pixels=True).StudyInstanceUID)
    stored = make(tmp_path / "stored")
    async with (
        peers.storescp(stored, ae_title="STORESCP") as scp,
        two_hospitals(tmp_path / "net", "STORESCU") as net,
    ):
        near, far = net.routers["A"], net.routers["B"]
        await publish(net, "STORESCP", scp.port, "echo,store")
        await near.relay("destination", "add", "STORESCP", "--queued")
        with trio.fail_after(DEADLINE):
            while (
                sent := await peers.storescu(net.address("A", "STORESCP"), image.path)
            ).status != 0:
                await trio.sleep(POLL)  # until it is known what the device takes
        taken, delivered = await until(near, 2, "--kind", "transfer")
        assert taken["words"] == "STORESCU has sent 1 object to RELAY_A, for STORESCP"
        assert delivered["words"] == "RELAY_A has sent 1 object to STORESCP"
        for entry in (taken, delivered):
            assert [row["study"] for row in entry["studies"]] == [study]
            assert entry["outcome"] == "success"
        assert "STORESCU" in [p["id"] for p in delivered["participants"]]
        (arrived,) = await until(far, 1, "--kind", "transfer")
        assert arrived["words"] == "STORESCU has sent 1 object to STORESCP"
        await messages_of(near)
        assert sent.status == 0


@pytest.mark.parametrize("level", ["keys", "whole", "none"])
async def test_a_query_is_told_with_as_much_as_is_wanted(tmp_path: Path, level: str) -> None:
    keys = ("QueryRetrieveLevel=STUDY", "PatientName=DOE*", "StudyInstanceUID")
    async with (
        peers.dcmqrscp(tmp_path / "dcmqrscp", ae_title="DCMQRSCP") as archive,
        two_hospitals(tmp_path / "net", "FINDSCU", router={"audit_queries": level}) as net,
    ):
        await publish(net, "DCMQRSCP", archive.port, "echo,query")
        result = await peers.findscu(net.address("A", "DCMQRSCP"), *keys)
        assert result.status == 0, result.output
        for site in net.routers.values():
            (asked,) = await until(site, 1, "--kind", "query")
            assert asked["words"] == "FINDSCU asks DCMQRSCP"
            assert asked["studies"] == []
            async with site.rest() as asking:
                response = await asking.get(f"/v1/audit/{asked['number']}.xml")
            assert faults(response.content) == []
            text = ElementTree.fromstring(response.content).findtext(".//ParticipantObjectQuery")
            query = base64.b64decode(text or "")
            assert (b"DOE*" in query) is (level == "whole")
            assert (b"STUDY" in query) is (level != "none")
            kept = (site.directory / "data" / "audit.db").read_bytes()
            kept += (site.directory / "data" / "audit.db-wal").read_bytes()
            assert b"DOE*".hex().encode() not in kept


async def test_the_federation_and_dicomweb_tell_who_asked_and_what_went(tmp_path: Path) -> None:
    image = ct_image()
    study = str(pydicom.dcmread(image.path, stop_before_pixels=True).StudyInstanceUID)
    port = _ports.free()
    async with (
        peers.dcmqrscp(tmp_path / "dcmqrscp", ae_title="DCMQRSCP") as archive,
        two_hospitals(tmp_path / "net", "VIEWER") as net,
    ):
        near = net.routers["A"]
        await near.stop()
        with near.configuration.open("a") as configuration:
            configuration.write(f'dicomweb.listen = "{peers.LOOPBACK}:{port}"\n')
        await near.start()
        assert (await peers.storescu(archive, image.path)).status == 0
        await publish(net, "DCMQRSCP", archive.port, "echo,query,retrieve")
        federation = net.address("A", "FEDERATION")
        keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}")
        found = await peers.findscu(federation, *keys, calling="VIEWER")
        assert found.status == 0, found.output
        asked = await until(near, 2, "--kind", "query", "--ae-title", "VIEWER")
        assert {e["words"] for e in asked} >= {"VIEWER asks FEDERATION", "VIEWER asks DCMQRSCP"}
        got = await peers.getscu(federation, tmp_path / "got", *keys, calling="VIEWER")
        assert got.status == 0, got.output
        over = await until(near, 2, "--kind", "transfer", "--ae-title", "VIEWER")
        told = {entry["words"]: entry for entry in over}
        whole = told["FEDERATION has sent 1 object to VIEWER"]
        assert [row["study"] for row in whole["studies"]] == [study]
        assert "DCMQRSCP has sent 1 object to VIEWER" in told  # in the call that it made for it
        # The same by the web: a search, the study, and one who has no token.
        made = await near.ask("token", "add", "night script", "--device", "VIEWER")
        headers = {"Authorization": f"Bearer {made['token']}"}
        base = f"http://{peers.LOOPBACK}:{port}/aets/FEDERATION/rs/studies"
        async with httpx.AsyncClient(trust_env=False, timeout=60) as web:
            search = await web.get(base, params={"PatientID": "SECRET-1"}, headers=headers)
            assert search.status_code in (200, 204), search.text
            wanted = {**headers, "Accept": 'multipart/related; type="application/dicom"'}
            assert (await web.get(f"{base}/{study}", headers=wanted)).status_code == 200
            assert (await web.get(base, headers={"Authorization": "Bearer x"})).status_code == 401
        (began,) = [
            entry
            for entry in await until(near, 1, "--kind", "begin", "--ae-title", "FEDERATION")
            if "night script" in [p["name"] for p in entry["participants"]]
        ]
        assert began["words"] == "FEDERATION begins to send to VIEWER"
        assert [row["study"] for row in began["studies"]] == [study]
        alerts = await until(near, 1, "--kind", "alert", "--who", peers.LOOPBACK)
        assert alerts[0]["words"] == "a request of DICOMweb is refused"
        await messages_of(near)
        everything = await entries(near)
        assert "SECRET-1" not in json.dumps(everything)
        assert await near.stop() == 0  # what goes by the web is told at the end
        await near.start()
        words = [e["words"] for e in await entries(near, "--kind", "transfer")]
        assert words.count("FEDERATION has sent objects in 1 request to VIEWER") == 1
