"""The REST, route by route."""

from pathlib import Path

import pytest

from relay.identity import Identity
from relay.invitation import Invitation
from relay.router import probe, routes
from relay.router.device_words import Own
from relay.router.devices import Device
from relay.router.live import LiveAssociation, Side
from relay.router.probe import Finding, Report
from relay.router.refusals import NO_DEVICE
from tests.router.fakes import hospital, listing, publication
from tests.router.rest import PACS, client


async def test_status_before_and_after_enrolment(tmp_path: Path) -> None:
    async with client(tmp_path, enrolled=False) as call:
        status = await call("GET", "/status")
        assert (status["enrolled"], status["connected"]) == (False, False)
        assert "contact" not in status
        for path in ("/peers", "/directory"):
            answer = await call("GET", path, status=409)
            assert "relay enroll" in answer["error"]
    async with client(tmp_path) as call:
        status = await call("GET", "/status")
        assert (status["enrolled"], status["connected"]) == (True, True)
        assert status["bridge"] == "https://bridge.example"
        assert status["federation"] is None
        call.node.name_federation("EVERYWHERE")
        assert (await call("GET", "/status"))["federation"] == "EVERYWHERE"
        assert status["fingerprint"] == call.node.identity.fingerprint


async def test_enrolment_takes_an_invitation(tmp_path: Path) -> None:
    bridge = Identity.from_seed(bytes(32)).public
    invitation = Invitation("https://b.example", bytes(16), bytes(16), bridge, bytes(16), 1)
    async with client(tmp_path) as call:
        answer = await call("POST", "/enrolment", {"invitation": invitation.to_string()})
        assert call.invitations == [invitation]
        assert answer["already"] is False
        again = await call("POST", "/enrolment", {"invitation": invitation.to_string()})
        assert again["already"] is True
        assert answer["contact"].startswith("relay-contact:")
        await call("POST", "/enrolment", {"invitation": "relay-invitation:x"}, 400)
        await call("POST", "/enrolment", {}, 400)


async def test_devices(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        assert (await call("POST", "/devices", PACS))["services"] == ["store"]
        await call("POST", "/devices", PACS | {"port": 105})
        slash = {"ae_title": "A/B test", "host": "192.0.2.3"}
        await call("POST", "/devices", slash)
        assert [d["ae_title"] for d in await call("GET", "/devices")] == ["A/B test", "PACS"]
        await call("DELETE", "/devices/A%2FB%20test")
        await call("DELETE", "/devices/PACS")
        assert "no device" in (await call("DELETE", "/devices/PACS", status=404))["error"]
        await call("POST", "/devices", PACS | {"port": 0}, 400)
        await call("POST", "/devices", [PACS], 400)


async def test_aliases(tmp_path: Path) -> None:
    async with client(tmp_path) as call, hospital(tmp_path / "north") as north:
        await call.node.joined().directory.take(
            listing(north, publications=[publication(north, "PACS", "store")])
        )
        await call("POST", "/devices", PACS | {"published_as": "PACS_B"})
        alias = await call("POST", "/aliases", {"local": "PACS/A", "published": "PACS"})
        assert alias == {
            "local": "PACS/A",
            "published": "PACS",
            "peer": north.identity.fingerprint,
            "name": north.contact.name,
        }
        nobodys = await call("POST", "/aliases", {"local": "CT", "published": "CT1"})
        assert (nobodys["peer"], nobodys["name"]) == (None, "")
        assert await call("GET", "/aliases") == [nobodys, alias]
        taken = {"local": "PACS", "published": "MR1"}
        assert "choose another" in (await call("POST", "/aliases", taken, 409))["error"]
        await call("POST", "/aliases", {"local": "MR"}, 400)
        assert await call("DELETE", "/aliases/PACS%2FA") == alias
        await call("DELETE", "/aliases/PACS%2FA", status=404)
        assert await call("GET", "/aliases") == [nobodys]


async def test_destinations(tmp_path: Path) -> None:
    async with client(tmp_path) as call, hospital(tmp_path / "north") as north:
        await call.node.joined().directory.take(
            listing(north, publications=[publication(north, "PACS", "store")])
        )
        await call("POST", "/devices", PACS | {"published_as": "PACS_B"})
        await call("POST", "/aliases", {"local": "PACS/A", "published": "PACS"})
        row = await call("POST", "/destinations", {"called": "PACS/A", "priority": "high"})
        assert row == {
            "called": "PACS",
            "calling": "",
            "mode": "queued",
            "mixed": "refuse",
            "priority": "high",
            "local": "PACS/A",
            "device": "",
            "peer": north.identity.fingerprint,
            "name": north.contact.name,
            "known": [],
            "unknown": {},
            "refused": {},
            "granted": [],
        }
        one = {"called": "MR", "calling": "PACS", "mode": "confirmed"}
        other = await call("POST", "/destinations", one)
        assert (other["calling"], other["device"]) == ("PACS_B", "PACS")
        assert (other["peer"], other["name"], other["local"]) == (None, "", "MR")
        assert await call("GET", "/destinations") == [other, row]
        await call("POST", "/destinations", {"called": "PACS"}, 409)
        await call("POST", "/destinations", {"called": "MR", "calling": "PACS/A"}, 409)
        await call("POST", "/destinations", {"mode": "queued"}, 400)
        await call("DELETE", "/destinations/MR", status=404)
        # They follow their device, and go with it.
        await call("POST", "/devices", PACS | {"published_as": "PACS_C"})
        assert [r["calling"] for r in await call("GET", "/destinations")] == ["PACS_C", ""]
        assert (await call("DELETE", "/destinations/MR?calling=PACS"))["called"] == "MR"
        await call("POST", "/destinations", one)
        await call("DELETE", "/devices/PACS")
        assert await call("GET", "/destinations") == [row]
        assert await call("DELETE", "/destinations/PACS%2FA") == row


async def test_a_grant_names_a_device_by_either_title(tmp_path: Path) -> None:
    async with client(tmp_path) as call, hospital(tmp_path / "north") as north:
        await call.node.joined().directory.take(listing(north))
        await call("POST", "/devices", PACS | {"published_as": "PACS_B"})
        wish = {"peer": north.identity.fingerprint, "services": ["store"]}
        for title in ("PACS", "PACS_B"):
            grant = await call("POST", "/grants", wish | {"ae_title": title}, 201)
            assert (grant["ae_title"], grant["device"]) == ("PACS_B", "PACS")
        assert len(await call("GET", "/grants")) == 1


async def test_testing_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(device: Device, own: Own, device_tls: object) -> Report:
        return Report([Finding(f"{own.ae_title} to {device.ae_title}", True)], {"1.2": ["1.3"]})

    monkeypatch.setattr(probe, "test", test)
    async with client(tmp_path) as call:
        await call("POST", "/devices", PACS)
        assert await call("POST", "/devices/PACS/test") == {
            "findings": [{"what": "RELAY to PACS", "ok": True, "advice": ""}],
            "accepted": {"1.2": ["1.3"]},
        }
        await call("POST", "/devices/NONE/test", status=404)


async def test_peers_directory_and_grants(tmp_path: Path) -> None:
    async with client(tmp_path) as call, hospital(tmp_path / "north") as north:
        await call.node.joined().directory.take(
            listing(north, publications=[publication(north, "FAR", "echo", "store")])
        )
        (row,) = await call("GET", "/directory")
        assert (row["ae_title"], row["services"], row["own"]) == ("FAR", ["echo", "store"], False)
        assert (row["hospital"], row["federation"]) == (north.contact.name, False)
        (peer,) = await call("GET", "/peers")
        assert (peer["state"], peer["connected"]) == ("unverified", True)
        contact = {"contact": north.contact.to_string()}
        assert (await call("POST", "/peers", contact))["name"] == north.contact.name
        (peer,) = await call("GET", "/peers")
        assert peer["state"] == "verified"
        await call("POST", "/peers", {"contact": "relay-contact:x"}, 400)
        await call("POST", f"/peers/{peer['fingerprint']}/accept", status=409)

        await call("POST", "/devices", PACS)
        wish = {"peer": peer["fingerprint"], "ae_title": "PACS", "services": ["store"]}
        grant = await call("POST", "/grants", wish, 201)
        assert grant["calling"] == ["*"]
        assert grant.pop("replaced") == []
        assert await call("GET", "/grants") == [grant]
        other = await call("POST", "/grants", wish | {"user_identity": True}, 201)
        assert other["replaced"] == [grant["id"]]
        grant = await call("POST", "/grants", wish, 201)
        await call("DELETE", f"/grants/{grant['id']}")
        await call("DELETE", f"/grants/{grant['id']}", status=404)
        await call("POST", "/grants", wish | {"services": []}, 400)
        await call("POST", "/grants", wish | {"services": ["query"]}, 409)


async def test_asks(tmp_path: Path) -> None:
    async with client(tmp_path) as call, hospital(tmp_path / "north") as north:
        await call.node.joined().directory.take(
            listing(north, publications=[publication(north, "FAR", "store")])
        )
        wish = {"ae_title": "FAR", "services": ["store"], "calling": ["WS"], "note": "please"}
        await call("POST", "/asks", wish, 202)
        await call("POST", "/asks", wish | {"ae_title": "NONE"}, 409)
        await call("POST", "/asks", wish | {"note": "x" * 501}, 400)
        assert await call("GET", "/asks") == []
        await call("DELETE", "/asks/7", status=404)
        await call("POST", "/asks/7/accept", status=404)


async def test_apply_and_associations(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        assert len((await call("POST", "/apply", {"devices": [PACS]}))["changes"]) == 1
        assert (await call("POST", "/apply", {"devices": [PACS]}))["changes"] == []
        assert await call("GET", "/associations") == []


async def test_a_document_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        large = {"devices": ["x" * (routes.MAXIMUM_APPLY + 1)]}
        assert "error" in await call("POST", "/apply", large, 413)


async def test_associations_have_the_peers_name_and_what_is_over_is_kept(tmp_path: Path) -> None:
    async with client(tmp_path) as call, hospital(tmp_path / "south", "SOUTH") as south:
        await call.node.joined().directory.take(listing(south))

        def entry(peer: str) -> LiveAssociation:
            return LiveAssociation("1", Side.CALLER, "WS", "WS", "PACS", peer, lambda: True)

        with call.node.live.hold(entry(south.identity.fingerprint)):
            (shown,) = await call("GET", "/associations")
            assert shown["name"] == "Hospital SOUTH"
        with call.node.live.hold(entry(call.node.identity.fingerprint)):
            pass
        recent = await call("GET", "/associations/recent")
        assert [row["name"] for row in recent] == ["Hospital RELAY", "Hospital SOUTH"]


async def test_rates_and_the_configuration_and_causes(tmp_path: Path) -> None:
    async with client(tmp_path, enrolled=False) as call:
        call.node.configuration = [{"key": "proxy"}]
        call.node.refusals.note("CT", "PACS", f"'CT' {NO_DEVICE}")
        assert (await call("GET", "/rates"))["samples"] == []
        assert await call("GET", "/configuration") == [{"key": "proxy"}]
        (refusal,) = await call("GET", "/refusals")
        assert refusal["cause"] == "no_device"


async def test_an_echo_through_the_network(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        echoed = await call("POST", "/directory/NO%2FBODY/echo")
        assert echoed["milliseconds"] is None
        assert "not published" in echoed["finding"]["advice"]
        await call("POST", "/directory/%5C/echo", status=400)
