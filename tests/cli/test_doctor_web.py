"""What is said of DICOMweb."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relay.cli import certificate, doctor_web
from relay.cli.doctor_calls import Known
from relay.config import RouterConfig
from relay.config_file import load
from relay.providers import Finding
from tests.cli.conftest import FakeProcess
from tests.cli.test_doctor import fill, findings, knows, wrong
from tests.cli.test_doctor_calls import device

URL = "http://127.0.0.1:8080/aets/FEDERATION/rs"
WEB = {"urls": [URL], "tokens": 1, "open": False, "origins": []}
TOKEN = {"name": "viewer", "device": None, "created": 1}


def configured(folder: Path, *lines: str) -> RouterConfig:
    file = folder / "relay.toml"
    file.write_text("\n".join(["[router]", *lines]) + "\n")
    config = load(file)
    assert isinstance(config, RouterConfig)
    return config


def running(
    folder: Path,
    web: Mapping[str, Any] | None = WEB,
    *lines: str,
    tokens: Any = (TOKEN,),
    **known: Any,
) -> list[Finding]:
    config = configured(folder, *(lines or ('dicomweb.listen = "127.0.0.1:8080"',)))
    now = Known(**{"devices": [device()]} | known)
    return list(doctor_web.running(config, web, tokens, now))


def test_off(tmp_path: Path) -> None:
    (finding,) = doctor_web.examine(configured(tmp_path))
    assert (finding.what, finding.ok) == ("DICOMweb is off", True)
    assert running(tmp_path, None, 'ae_title = "NORTH"') == []


def test_plain_http_is_for_this_machine(tmp_path: Path) -> None:
    config = configured(tmp_path, 'dicomweb.listen = ["127.0.0.1:8080", "0.0.0.0:8080"]')
    (finding,) = doctor_web.examine(config)
    assert (finding.what, finding.ok) == ("DICOMweb without TLS on 0.0.0.0:8080", False)
    assert "proxy on this machine" in finding.advice


def test_its_certificate_is_looked_at(tmp_path: Path) -> None:
    _, chain, key = certificate.make(tmp_path, "relay.example.org")
    config = configured(
        tmp_path,
        'dicomweb.listen = "0.0.0.0:8443"',
        f'dicomweb.certificate = "{chain}"',
        f'dicomweb.private_key = "{key}"',
    )
    until, same, private = doctor_web.examine(config)
    assert until.advice == "renew it, and restart the Router"  # two days are soon over
    assert same == Finding(f"private key {key} is the certificate's", True)
    assert private.ok
    key.chmod(0o644)
    assert not list(doctor_web.examine(config))[-1].ok


def test_who_may_use_it(tmp_path: Path) -> None:
    what = f"DICOMweb at {URL}"
    assert running(tmp_path) == [Finding(what, True, "1 token")]
    found = running(tmp_path, tokens=())
    assert [(finding.what, finding.ok) for finding in found] == [
        (what, True),
        ("somebody has a token for DICOMweb", False),
    ]
    (finding,) = running(
        tmp_path,
        WEB | {"open": True, "origins": ["https://viewer.example.org"]},
        'dicomweb.listen = "127.0.0.1:8080"',
        "dicomweb.open = true",
        'dicomweb.origins = ["https://viewer.example.org"]',
        tokens=(),
    )
    assert finding.ok
    assert "0 tokens; `open`: whoever is on this machine" in finding.advice
    assert "pages of https://viewer.example.org" in finding.advice


def test_a_token_of_a_device_that_is_gone(tmp_path: Path) -> None:
    there, gone = TOKEN | {"device": "WS"}, TOKEN | {"name": "old", "device": "CT"}
    _, finding = running(tmp_path, tokens=[there, gone])
    assert (finding.what, finding.ok) == ("token old calls as CT", False)
    assert "relay token remove 'old'" in finding.advice


@pytest.mark.parametrize(
    ("web", "lines"),
    [
        (None, ('dicomweb.listen = "127.0.0.1:8080"',)),
        (WEB, ('ae_title = "NORTH"',)),
        (WEB, ('dicomweb.listen = "127.0.0.1:8080"', "dicomweb.open = true")),
    ],
)
def test_what_was_changed_needs_a_new_start(
    tmp_path: Path, web: Mapping[str, Any] | None, lines: tuple[str, ...]
) -> None:
    (finding,) = running(tmp_path, web, *lines)
    assert not finding.ok
    assert "start the Router anew" in finding.advice


@pytest.mark.parametrize(
    ("title", "words"),
    [("WS", "with --federation"), ("NOBODY", "neither a device here"), ("FAR", ""), ("PACS", "")],
)
def test_what_is_stored_to_the_federation_has_where_to_go(
    tmp_path: Path, title: str, words: str
) -> None:
    devices = [device() | {"federation": False}, device("PACS") | {"federation": True}]
    lines = 'dicomweb.listen = "127.0.0.1:8080"', f'federation.store_to = "{title}"'
    found = running(tmp_path, WEB, *lines, devices=devices, directory=[{"ae_title": "FAR"}])
    faults = [finding for finding in found if not finding.ok]
    assert len(faults) == bool(words)
    assert all(words in finding.advice for finding in faults)


async def test_the_doctor_says_so_of_a_running_router_and_of_one_that_is_down(
    router: FakeProcess,
) -> None:
    await fill(router)
    text = router.configuration.read_text()
    router.configuration.write_text(f'{text}dicomweb.listen = "127.0.0.1:8080"\n')
    knows(router, dicomweb=WEB)
    router.will("GET", "/v1/tokens", [TOKEN])
    found = await findings(router)
    assert found[f"DICOMweb at {URL}"].ok
    router.will("GET", "/v1/tokens", [])
    assert "somebody has a token for DICOMweb" in wrong(await findings(router))
    router.configuration.write_text(f'{text}dicomweb.listen = "0.0.0.0:8080"\n')
    assert "DICOMweb without TLS on 0.0.0.0:8080" in wrong(await findings(router))
