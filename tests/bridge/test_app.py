"""A whole Bridge: it starts, is found again after a restart, and ends when told."""

import hmac
import stat
from pathlib import Path

import attrs
import httpx
import pytest
import structlog
import trio
import trustme

from relay.bridge.app import DATABASE_FILE, run_bridge
from relay.bridge.schema import MIGRATIONS, load_network
from relay.database import open_database
from relay.errors import IdentityError, RelayError
from relay.invitation import InvitationInquiry
from relay.providers.disk import open_disk_provider
from tests.interop.processes import free_port

from .conftest import PATIENCE, connected, running


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}


async def start(data_dir: Path, **settings) -> None:
    """Run a Bridge that is to fail at once."""
    settings = {"behind_proxy": True, "listen": [("127.0.0.1", 0)], **settings}
    with trio.fail_after(PATIENCE):
        await run_bridge(
            data_dir=data_dir, url="http://127.0.0.1:1", stopping=trio.Event(), **settings
        )


async def test_what_it_writes_is_private(bridge, data_dir: Path) -> None:
    found = modes(data_dir)
    assert found.pop("data") == 0o700
    assert found.pop("stores") & 0o077 == 0
    assert set(found.values()) == {0o600}
    assert {"bridge.db", "identity.key", "control.sock"} <= set(found)


async def test_restart_is_the_same_network(data_dir: Path) -> None:
    async with running(data_dir) as bridge:
        first = await bridge.get("/v1/status")
        router = await bridge.enrol("North Hospital")
    async with running(data_dir) as bridge:
        second = await bridge.get("/v1/status")
        assert (first["network"], first["fingerprint"]) == (
            second["network"],
            second["fingerprint"],
        )
        [row] = await bridge.get("/v1/routers")
        assert row["fingerprint"] == router.identity.fingerprint
        async with connected(bridge, router):
            pass


async def test_who_asks_about_an_invitation_without_its_code_is_in_the_audit(bridge) -> None:
    asked = InvitationInquiry.of(await bridge.invite())
    for inquiry in (asked, attrs.evolve(asked, mac=bytes(32))):
        await bridge.web.post("/v1/enrolments/inquiry", content=inquiry.pack())
    failures: list[tuple[str, str]] = []
    with trio.fail_after(PATIENCE):
        while not failures:
            found = (await bridge.get("/v1/audit"))["entries"]
            failures = [(e["words"], e["why"]) for e in found if e["outcome"] == "failure"]
    assert failures == [
        (
            "somebody asked about an invitation without knowing its code",
            "invitation-inquiry: the code does not match",
        )
    ]


async def test_two_bridges_on_one_folder(bridge, data_dir: Path) -> None:
    with pytest.raises(RelayError, match="running already"):
        await start(data_dir)
    await bridge.get("/v1/status")


async def test_lost_identity_is_not_replaced(data_dir: Path) -> None:
    async with running(data_dir):
        pass
    remove(data_dir / "identity.key")
    with pytest.raises(IdentityError, match="restore it from a backup"):
        await start(data_dir)
    assert "identity.key" not in modes(data_dir)


async def test_identity_of_another_network(data_dir: Path, tmp_path: Path) -> None:
    async with running(data_dir), running(tmp_path / "other"):
        pass
    copy(tmp_path / "other" / "identity.key", data_dir / "identity.key")
    with pytest.raises(IdentityError, match="another Bridge"):
        await start(data_dir)


def remove(path: Path) -> None:
    path.unlink()


def copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


async def test_plain_http_only_when_told(data_dir: Path) -> None:
    with pytest.raises(RelayError, match="behind_proxy"):
        await start(data_dir, behind_proxy=False)


async def test_port_taken(bridge, tmp_path: Path) -> None:
    with pytest.raises(RelayError, match=str(bridge.port)):
        await start(tmp_path / "other", listen=[("127.0.0.1", bridge.port)])


@pytest.fixture
def issued(tmp_path: Path) -> tuple[trustme.CA, Path, Path]:
    authority = trustme.CA()
    certificate, key = tmp_path / "bridge.crt", tmp_path / "bridge.key"
    made = authority.issue_cert("127.0.0.1")
    for pem in made.cert_chain_pems:
        pem.write_to_path(certificate, append=True)
    made.private_key_pem.write_to_path(key)
    return authority, certificate, key


async def test_tls_and_its_own_check(data_dir: Path, issued) -> None:
    import ssl

    authority, certificate, key = issued
    port = free_port()
    async with running(
        data_dir,
        port=port,
        url=f"https://127.0.0.1:{port}",
        behind_proxy=False,
        certificate=certificate,
        key=key,
    ) as bridge:
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
            assert (await client.get(f"{bridge.url}/healthz")).json()["status"] == "ok"
        # Its authority is nobody's but ours, and the check works all the same.
        answer = await bridge.control.post("/v1/providers/disk/check", timeout=20)
        findings = answer.json()["findings"]
        assert [finding for finding in findings if not finding["ok"]] == []
        assert len(findings) > 5


async def test_a_certificate_for_another_host_is_warned_of(data_dir: Path, issued) -> None:
    _, certificate, key = issued
    warned = []
    for host in ("127.0.0.1", "relay.example.org"):
        settings = {"behind_proxy": False, "certificate": certificate, "key": key}
        with structlog.testing.capture_logs() as logs:
            async with running(data_dir, url=f"https://{host}", **settings):
                pass
        warned.append([line["names"] for line in logs if "certificate" in line["event"]])
    assert warned == [[], [["127.0.0.1"]]]


async def test_stopping_closes_websockets_at_once(data_dir: Path) -> None:
    async with running(data_dir, grace=30) as bridge:
        router = await bridge.enrol()
        async with connected(bridge, router):
            with trio.fail_after(3):
                bridge.stopping.set()
                await bridge.stopped.wait()


async def test_stopping_waits_for_nobody_who_waits_for_an_object(data_dir: Path) -> None:
    async with running(data_dir, grace=30) as bridge:
        async with open_database(data_dir / DATABASE_FILE, MIGRATIONS) as database:
            _, network = await load_network(database, data_dir)
        [store] = [row["name"] for row in await bridge.get("/v1/providers")]
        key = hmac.digest(network.secret, b"relay/1/store\0" + store.encode(), "sha256")
        async with open_disk_provider(
            data_dir / "signer", base_url=bridge.url, key=key, space=1
        ) as signer:
            signed = await signer.sign_get_ahead("ab/one", lifetime=60, reader=b"r")
        answers: list[int] = []

        async def ask() -> None:
            answers.append((await bridge.web.get(signed.url, timeout=20)).status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            with trio.move_on_after(0.3):  # it is held
                while not answers:
                    await trio.sleep(0.01)
            assert answers == []
            with trio.fail_after(3):
                bridge.stopping.set()
                await bridge.stopped.wait()
        assert answers == [204]


async def test_nothing_signed_is_logged(data_dir: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with running(data_dir) as bridge:
            router = await bridge.enrol()
            async with connected(bridge, router):
                await bridge.control.post("/v1/providers/disk/check", timeout=20)
                await bridge.web.get("/v1/blobs/ab/cd?e=1&l=0&s=SIGNATURE")
                await bridge.says(b"GET /v1/blobs/x?s=SIGNATURE HTTP/1.1\r\n\r\n")
    words = str(logs)
    assert "bridge started" in words
    assert "SIGNATURE" not in words
    assert "s=" not in words
    assert "relay-invitation" not in words
