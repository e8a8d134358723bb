"""S3 by a real server: the conformance suite; misuse, faults and what `check` finds."""

import json
import os
import re
import time
from functools import partial
from pathlib import Path

import attrs
import httpx
import obstore
import pytest
import trio

from relay.errors import ProviderError
from relay.providers import s3
from relay.providers.s3 import S3Provider, S3Settings
from relay.tunnel import store as tunnel_store
from relay.tunnel.retry import persist
from relay.tunnel.store import ObjectRequest, open_object_client

from . import suite
from .faulty import Fault, faulty_proxy
from .seaweed import (
    ACCESS_KEY,
    READER_KEY,
    READER_SECRET,
    SECRET_KEY,
    SUSPENDED,
    VERSIONED,
    Seaweed,
)
from .suite import *  # noqa: F403

DOCUMENT = Path(__file__).parents[2] / "docs/providers.md"

GIVEN = {
    "bucket": "relay-bucket",
    "region": "eu-central-1",
    "access_key": "AKIDEXAMPLE",
    "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
}


@pytest.fixture
def provider(seaweed: Seaweed) -> S3Provider:
    return seaweed.provider()


@pytest.fixture
async def client(seaweed: Seaweed):
    async with seaweed.client() as client:
        yield client


def made(**changes: str) -> S3Provider:
    """A provider that nobody asks over the network."""
    given = {key: value for key, value in {**GIVEN, **changes}.items() if value}
    return S3Provider(S3Settings.read(given), client=httpx.AsyncClient)


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "https://relay-bucket.s3.eu-central-1.amazonaws.com/relay/ab/c"),
        ({"addressing": "path"}, "https://s3.eu-central-1.amazonaws.com/relay-bucket/relay/ab/c"),
        (
            {"region": "cn-north-1"},
            "https://relay-bucket.s3.cn-north-1.amazonaws.com.cn/relay/ab/c",
        ),
        (
            {"endpoint": "https://s3.hospital.example:9000/", "region": "", "prefix": "/a/b/"},
            "https://s3.hospital.example:9000/relay-bucket/a/b/ab/c",
        ),
        (
            {"endpoint": "https://s3.hospital.example", "addressing": "virtual"},
            "https://relay-bucket.s3.hospital.example/relay/ab/c",
        ),
        (
            {"bucket": "with.dots", "addressing": "path"},
            "https://s3.eu-central-1.amazonaws.com/with.dots/relay/ab/c",
        ),
    ],
)
async def test_where_an_object_is(changes: dict[str, str], url: str) -> None:
    signed = await made(**changes).sign_get("ab/c", lifetime=60)
    assert signed.url.split("?")[0] == url


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bucket": ""}, "bucket: is needed"),
        ({"bucket": "Relay"}, "bucket: expected a bucket's name"),
        ({"bucket": "a/b"}, "bucket: expected a bucket's name"),
        ({"bucket": "with.dots"}, "addressing: expected path"),
        ({"region": ""}, "region: is needed"),
        ({"region": "eu central"}, "region: expected"),
        ({"endpoint": "http://s3.example.org"}, "endpoint: expected an https URL"),
        ({"endpoint": "https://s3.example.org/bucket"}, "endpoint: expected an https URL"),
        ({"endpoint": "https://u:p@s3.example.org"}, "endpoint: expected an https URL"),
        ({"endpoint": "https://s3.example.org:x"}, "endpoint: expected an https URL"),
        ({"endpoint": "s3.example.org"}, "endpoint: expected an https URL"),
        ({"endpoint": "https://[s3.example.org"}, "endpoint: expected an https URL"),
        ({"addressing": "magic"}, "addressing: expected one of virtual, path"),
        ({"prefix": "../up"}, "prefix: expected"),
        ({"prefix": "Über"}, "prefix: expected"),
        ({"access_key": ""}, "access_key: is needed, best as env:NAME"),
        ({"secret_key": "env:RELAY_NO_SUCH"}, "RELAY_NO_SUCH is not set"),
        ({"secret_key": "file:here"}, "the whole path"),
        ({"secret_key": "file:/no/such"}, "/no/such cannot be read"),
        ({"ca_file": "/no/such"}, "ca_file: /no/such cannot be read"),
        ({"proxy": "https://proxy.example:3128"}, "proxy: expected http://"),
        ({"proxy": "http://u:p@proxy.example:x"}, "proxy: expected http://"),
        ({"proxy": "http://u:p@[proxy.example"}, "proxy: expected http://"),
        ({"credentials": "some"}, "credentials: expected one of keys, role"),
        ({"credentials": "role"}, "access_key: no setting of s3"),
        ({"bulk_delete": "maybe"}, "bulk_delete: expected true or false"),
        ({"secret": "x"}, "secret: no setting of s3; there are: access_key"),
    ],
)
def test_settings_asked_wrongly(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ProviderError, match=words) as caught:
        made(**changes)
    assert caught.value.permanent
    assert GIVEN["secret_key"] not in str(caught.value)


def test_a_ca_file_without_certificates(tmp_path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    read = S3Settings.read({**GIVEN, "ca_file": str(tmp_path / "ca.pem")})
    with pytest.raises(ProviderError, match="ca_file: no certificates in PEM"):
        read.client(None)


def test_secrets_are_in_no_representation() -> None:
    read = S3Settings.read({**GIVEN, "session_token": "TOKENTOKEN"})
    assert not re.search("AKID|wJal|TOKEN", repr(read) + repr(made()) + str(vars(made())))


async def test_the_environment_of_the_process_changes_nothing(monkeypatch) -> None:
    before = (await made().sign_get("ab/c", lifetime=60)).url
    for name, value in {
        "AWS_ENDPOINT_URL": "https://evil.example",
        "AWS_ENDPOINT_URL_S3": "https://evil.example",
        "AWS_SESSION_TOKEN": "token",
        "AWS_ACCESS_KEY_ID": "other",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_S3_EXPRESS": "true",
        "AWS_REGION": "us-west-2",
    }.items():
        monkeypatch.setenv(name, value)
    after = (await made().sign_get("ab/c", lifetime=60)).url
    changing = r"X-Amz-Date=\w+|X-Amz-Signature=\w+"
    assert re.sub(changing, "", before) == re.sub(changing, "", after)


async def test_a_session_token_is_signed_with(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RELAY_TOKEN", "the+token")
    signed = await made(session_token="env:RELAY_TOKEN").sign_put("a", size_limit=1, lifetime=60)
    assert "X-Amz-Security-Token=the%2Btoken" in signed.url
    assert dict(signed.headers) == {"If-None-Match": "*"}
    (tmp_path / "secret").write_text("from a file\n")
    read = S3Settings.read({**GIVEN, "secret_key": f"file:{tmp_path}/secret"})
    assert read.secret_key.reveal() == "from a file"


@pytest.fixture
async def metadata(monkeypatch):
    """Where a machine in Amazon's cloud learns the keys of its role (EC2, "Instance metadata")."""
    keys = {
        "AccessKeyId": "ASIAROLE",
        "SecretAccessKey": "secret",
        "Token": "role-token",
        "Expiration": "2099-01-01T00:00:00Z",
        "Code": "Success",
    }
    answers = {
        "PUT /latest/api/token": "v2-token",
        "GET /latest/meta-data/iam/security-credentials/": "relay-role",
        "GET /latest/meta-data/iam/security-credentials/relay-role": json.dumps(keys),
    }

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            while data := await stream.receive_some():
                body = answers.get(" ".join(data.decode().split(" ")[:2]))
                status = "404 No" if body is None else "200 OK"
                words = (
                    f"HTTP/1.1 {status}\r\nContent-Length: {len(body or '')}\r\n\r\n{body or ''}"
                )
                await stream.send_all(words.encode())

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{port}")
        yield answers
        nursery.cancel_scope.cancel()


async def test_a_machines_role_signs(metadata: dict[str, str]) -> None:
    provider = made(credentials="role", access_key="", secret_key="")
    with trio.fail_after(20):
        signed = await provider.sign_get("ab/c", lifetime=60)
    assert "X-Amz-Credential=ASIAROLE" in signed.url
    assert "X-Amz-Security-Token=role-token" in signed.url


async def test_a_machine_without_a_role(metadata: dict[str, str]) -> None:
    metadata.clear()
    provider = made(credentials="role", access_key="", secret_key="")
    with trio.fail_after(30), pytest.raises(ProviderError, match="the store answered 404"):
        await provider.sign_get("ab/c", lifetime=60)


# --- misuse -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        ("X-Amz-Expires=60", "X-Amz-Expires=600"),
        ("X-Amz-Date=2", "X-Amz-Date=1"),
        (ACCESS_KEY, READER_KEY),
        ("us-east-1", "eu-west-1"),
        ("SignedHeaders=host", "SignedHeaders=host%3Bx-a"),
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
        ("AWS4-HMAC-SHA256", "AWS4-NONE"),
    ],
)
async def test_no_part_of_a_signed_url_can_be_changed(provider, client, change) -> None:
    await suite.put(provider, client, "ab/one", b"data")
    signed = await provider.sign_get("ab/one", lifetime=60)
    forged = attrs.evolve(signed, url=signed.url.replace(*change))
    assert forged.url != signed.url
    assert (await suite.send(client, forged)).status_code in suite.REFUSED
    assert (await suite.send(client, signed)).content == b"data"


async def test_a_signed_url_is_for_one_host(provider, client, seaweed: Seaweed) -> None:
    await suite.put(provider, client, "ab/one", b"data")
    signed = await provider.sign_get("ab/one", lifetime=60)
    elsewhere = attrs.evolve(signed, url=signed.url.replace("127.0.0.1", "localhost"))
    assert (await suite.send(client, elsewhere)).status_code == 403


async def test_another_accounts_key_signs_what_that_account_may(seaweed, client) -> None:
    reader = seaweed.provider(access_key=READER_KEY, secret_key=READER_SECRET)
    assert await suite.put(reader, client, "ab/one", b"data") == 403
    with pytest.raises(ProviderError, match="AccessDenied"):
        await reader.delete(["ab/one"])


async def test_a_folder_of_ones_own(seaweed: Seaweed, client) -> None:
    one, two = seaweed.provider(), seaweed.provider()
    await suite.put(one, client, "ab/one", b"data")
    assert await suite.names(two) == []
    await two.delete(["ab/one"])
    assert await suite.names(one) == ["ab/one"]


async def test_other_peoples_files_are_not_listed(seaweed: Seaweed, client) -> None:
    settings = S3Settings.read(seaweed.settings())
    provider = S3Provider(settings, client=seaweed.client)
    obstore.put(provider._store, "Bericht 2026.pdf", b"x")
    await suite.put(provider, client, "ab/one", b"data")
    assert await suite.names(provider) == ["ab/one"]


async def test_more_than_one_piece_is_listed_and_deleted(seaweed, client, monkeypatch) -> None:
    monkeypatch.setattr(s3, "LIST_PIECE", 7)
    for settings in ({}, {"bulk_delete": "false"}):
        provider = seaweed.provider(**settings)
        wanted = [f"ab/{number:02}" for number in range(20)]
        for name in wanted:
            await suite.put(provider, client, name, b"x")
        assert await suite.names(provider, "ab/") == wanted
        await provider.delete(wanted)
        assert await suite.names(provider) == []


# --- what check finds ---------------------------------------------------------------------------


def failed(findings) -> dict[str, str]:
    return {finding.what: finding.advice for finding in findings if not finding.ok}


@pytest.mark.parametrize("bucket", [VERSIONED, SUSPENDED])
async def test_versioning_is_found(seaweed: Seaweed, bucket: str) -> None:
    found = failed(await seaweed.provider(bucket=bucket).check())
    assert list(found) == ["no versioning"]
    assert "allow_versioning=true" in found["no versioning"]
    allowed = seaweed.provider(bucket=bucket, allow_versioning="true")
    assert failed(await allowed.check()) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bucket": "no-such-bucket"}, "NoSuchBucket: there is no such bucket"),
        ({"access_key": "AKIDNOBODY"}, "InvalidAccessKeyId: .*check access_key"),
        ({"secret_key": "wrong"}, "SignatureDoesNotMatch: .*check secret_key"),
        (
            {"access_key": READER_KEY, "secret_key": READER_SECRET},
            "AccessDenied: the access key may not",
        ),
        ({"endpoint": "https://127.0.0.1:1"}, "nobody listens there"),
        ({"endpoint": "https://no-such-host.invalid"}, "no such host"),
    ],
)
async def test_check_says_what_is_wrong(seaweed, changes: dict[str, str], words: str) -> None:
    findings = await seaweed.provider(**changes).check()
    found = failed(findings)
    assert re.search(words, " ".join(found.values())), found
    assert not re.search(f"{SECRET_KEY}|X-Amz|{ACCESS_KEY}", str(findings))


async def test_the_bridges_own_proxy_is_used_for_all(seaweed: Seaweed) -> None:
    asked: list[str] = []

    async def serve(near: trio.SocketStream) -> None:
        head = (await near.receive_some()).decode()
        asked.append(head.split("\r\n")[0])
        assert "basic dxnlcjpwyxnzd29yza==" in head.lower()  # user:password
        far = await trio.open_tcp_stream("127.0.0.1", seaweed.port)

        async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            while data := await source.receive_some():
                await sink.send_all(data)
            nursery.cancel_scope.cancel()

        async with near, far:
            await near.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(copy, near, far)
                nursery.start_soon(copy, far, near)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        settings = S3Settings.read(seaweed.settings(proxy=f"http://user:password@127.0.0.1:{port}"))
        assert "password" not in repr(settings)
        provider = S3Provider(settings, client=settings.client(None))
        assert failed(await provider.check()) == {}
        nursery.cancel_scope.cancel()
    # httpx and obstore both: the probe, and the two of the sweeper.
    assert len(asked) >= 2
    assert set(asked) == {f"CONNECT 127.0.0.1:{seaweed.port} HTTP/1.1"}


async def test_check_of_a_store_with_another_certificate(seaweed: Seaweed) -> None:
    settings = S3Settings.read(seaweed.settings(ca_file=""))
    provider = S3Provider(settings, client=httpx.AsyncClient)
    found = failed(await provider.check())
    assert any("certificate does not hold" in words for words in found.values())
    ((what, words),) = found.items()
    assert what.startswith("reach ")
    assert "ca_file" in words


@pytest.mark.parametrize(("offset", "way"), [(-100, "behind"), (1000, "ahead of")])
async def test_a_clock_that_is_wrong_is_found(seaweed: Seaweed, offset: float, way: str) -> None:
    settings = S3Settings.read(seaweed.settings())
    provider = S3Provider(settings, client=seaweed.client, clock=lambda: time.time() + offset)
    [(what, advice)] = failed(await provider.check()).items()
    assert re.fullmatch(f"clock: [0-9]+ s {way} the store's", what)
    assert abs(int(what.split()[1]) - abs(offset)) < 5
    assert "NTP" in advice


# --- faults -------------------------------------------------------------------------------------


@pytest.fixture
async def proxy(seaweed: Seaweed, tmp_path):
    async with faulty_proxy(tmp_path, seaweed.port, seaweed.trust()) as proxy:
        yield proxy


@pytest.fixture
def behind(seaweed: Seaweed, proxy) -> S3Provider:
    """A provider whose store is behind the faulty proxy."""
    settings = S3Settings.read(
        seaweed.settings(endpoint=proxy.endpoint, ca_file=str(proxy.ca_file))
    )
    return S3Provider(
        settings,
        client=lambda: httpx.AsyncClient(verify=proxy.client_trust(), trust_env=False),
    )


@pytest.fixture
async def router(proxy, monkeypatch):
    """A Router's way to the store, of little patience."""
    monkeypatch.setattr(tunnel_store, "PIECE_TIMEOUT", 1.0)
    async with open_object_client(
        ssl_context=proxy.client_trust(), allowed_origins=[proxy.endpoint]
    ) as client:
        yield client


def as_told(signed) -> ObjectRequest:
    return ObjectRequest(signed.method, signed.url, signed.headers, signed.expires)


DATA = os.urandom(300_000)


@pytest.mark.parametrize("fault", Fault)
async def test_an_upload_survives(behind, proxy, router, fault: Fault) -> None:
    """What the store fails at is tried again, and one object is there, byte for byte."""
    proxy.fail("PUT", fault)
    failures: list[None] = []

    async def attempt(renew: bool) -> None:
        signed = await behind.sign_put("ab/one", size_limit=len(DATA), lifetime=60)
        await router.put(as_told(signed), DATA)

    with trio.fail_after(20):
        await persist(attempt, window=15, failed=lambda: failures.append(None))
    assert len(failures) == (0 if fault in (Fault.TRICKLE, Fault.CUT_ANSWER) else 1)
    signed = await behind.sign_get("ab/one", lifetime=60)
    assert await router.get(as_told(signed), len(DATA)) == DATA
    if fault is Fault.LOST_ANSWER:
        assert proxy.seen[:2] == ["PUT LOST_ANSWER", "PUT passed"]  # its own object: 412


@pytest.mark.parametrize("fault", Fault)
async def test_a_download_survives(behind, proxy, router, fault: Fault) -> None:
    put = await behind.sign_put("ab/one", size_limit=len(DATA), lifetime=60)
    await router.put(as_told(put), DATA)
    proxy.fail("GET", fault)
    failures: list[None] = []

    async def attempt(renew: bool) -> bytes:
        return await router.get(as_told(await behind.sign_get("ab/one", lifetime=60)), len(DATA))

    with trio.fail_after(20):
        assert await persist(attempt, window=15, failed=lambda: failures.append(None)) == DATA
    assert len(failures) == (0 if fault is Fault.TRICKLE else 1)


async def test_an_expired_url_is_signed_again(behind, router) -> None:
    renewed: list[bool] = []

    async def attempt(renew: bool) -> None:
        renewed.append(renew)
        signed = await behind.sign_put("ab/one", size_limit=10, lifetime=60 if renew else 1)
        if not renew:
            await trio.sleep(2.1)  # as a chunk waits for its turn
        await router.put(as_told(signed), b"late")

    with trio.fail_after(20):
        await persist(attempt, window=10, failed=lambda: None)
    assert renewed == [False, True]
    assert await router.get(as_told(await behind.sign_get("ab/one", lifetime=60)), 4) == b"late"


@pytest.mark.parametrize("fault", [Fault.ERROR_500, Fault.SLOW_DOWN_503, Fault.CUT_REQUEST])
async def test_the_sweeper_learns_that_the_store_fails(behind, proxy, fault: Fault) -> None:
    proxy.always.update({"POST": fault, "GET": fault})
    for call in (behind.delete(["ab/one"]), suite.names(behind)):
        with pytest.raises(ProviderError, match="S3 bucket relay-test: ") as caught:
            await call
        assert not re.search("X-Amz|AKID|Signature", str(caught.value))
        assert caught.value.__cause__ is None  # its words hold the request
    proxy.always.clear()
    await behind.delete(["ab/one"])


async def test_a_sweep_does_not_wait_for_ever(behind, proxy, monkeypatch) -> None:
    proxy.always["POST"] = Fault.STALL
    monkeypatch.setattr(s3, "CALL_TIMEOUT", 0.5)
    with trio.fail_after(5), pytest.raises(ProviderError, match=r"no answer in 0\.5 s"):
        await behind.delete(["ab/one"])


@pytest.mark.parametrize(
    ("method", "fault", "words"),
    [
        ("PUT", Fault.ERROR_500, "PUT: the store answered"),
        ("GET", Fault.SLOW_DOWN_503, "GET: SlowDown"),
        ("GET", Fault.CUT_ANSWER, "RemoteProtocolError"),
        ("DELETE", Fault.LOST_ANSWER, "RemoteProtocolError|ReadError"),
    ],
)
async def test_ready_says_that_the_store_fails(behind, proxy, method, fault, words) -> None:
    await behind.ready()
    proxy.always[method] = fault
    with pytest.raises(ProviderError, match=words) as caught:
        await behind.ready()
    assert "X-Amz" not in str(caught.value)
    proxy.always.clear()
    await behind.ready()


def test_least_rights_are_documented() -> None:
    """The policy in the document names what this provider does, and nothing more."""
    text = DOCUMENT.read_text()
    policy = json.loads(re.search(r"```json\n(\{.*?\n\})\n```", text, re.DOTALL)[1])
    actions = [action for row in policy["Statement"] for action in row["Action"]]
    assert sorted(actions) == [
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
    ]
