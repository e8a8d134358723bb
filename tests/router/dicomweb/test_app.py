"""The resources that there are, and the Router that serves them, over TLS too."""

import json
import ssl
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from relay.errors import RelayError
from relay.router.app import CONTROL_SOCKET, run_router
from relay.router.dicomweb.app import make_app
from relay.router.dicomweb.asked import Service
from relay.router.dicomweb.settings import DicomwebSettings
from relay.router.federation.federation import Federation
from tests.certificates import Authority
from tests.interop.peers import free_port
from tests.router.dicomweb.served import served
from tests.router.fakes import hospital
from tests.router.federation.catalogues import Catalogue, federated, study


async def test_every_resource_has_its_route(tmp_path: Path) -> None:
    async with hospital(tmp_path, enrolled=False) as node:
        app = make_app(Service(Federation(node)))
    paths = {getattr(route, "path", "") for route in app.routes}
    study = "/aets/{ae_title}/rs/studies/{study}"
    instance = study + "/series/{series}/instances/{instance}"
    for path in (study, f"{study}/metadata", f"{instance}/frames/{{frames}}", f"{study}/instances"):
        assert path in paths


async def test_a_router_serves_it_over_tls_to_who_has_a_token(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shown = authority.issue("localhost")
    port = free_port()
    stopping = trio.Event()
    settings = DicomwebSettings(
        listen=[("127.0.0.1", port)],
        certificate=shown.certificate,
        private_key=shown.private_key,
    )
    serve = partial(
        run_router,
        data_dir=tmp_path / "data",
        ae_title="RELAY",
        listen=[("127.0.0.1", 0)],
        dicomweb=settings,
        grace_period=1.0,
        stopping=stopping,
    )
    control = httpx.AsyncHTTPTransport(uds=str(tmp_path / "data" / CONTROL_SOCKET))
    trust = ssl.create_default_context(cafile=str(authority.file))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            async with httpx.AsyncClient(transport=control, base_url="http://relay") as rest:
                made = await rest.post("/v1/tokens", json={"name": "viewer"})
            headers = {"authorization": f"Bearer {made.json()['token']}"}
            async with httpx.AsyncClient(
                base_url=f"https://localhost:{port}", verify=trust
            ) as http:
                path = "/aets/FEDERATION/rs/studies?PatientID=7"
                assert (await http.get(path, headers=headers)).status_code == 204
                assert (await http.get(path)).status_code == 401
            stopping.set()


async def test_without_tls_it_says_so_where_others_can_listen(tmp_path: Path) -> None:
    stopping = trio.Event()
    serve = partial(
        run_router,
        data_dir=tmp_path / "data",
        ae_title="RELAY",
        listen=[("127.0.0.1", 0)],
        dicomweb=DicomwebSettings(listen=[("0.0.0.0", 0)]),
        grace_period=0.0,
        stopping=stopping,
    )
    with capture_logs() as lines, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            stopping.set()
    assert "DICOMweb without TLS" in json.dumps(lines, default=str)


async def test_a_certificate_that_cannot_be_used_stops_the_router(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    settings = DicomwebSettings(listen=[("127.0.0.1", 0)], certificate=broken, private_key=broken)
    with pytest.raises(RelayError, match="cannot use certificate"), trio.fail_after(20):
        await run_router(
            data_dir=tmp_path / "data",
            ae_title="RELAY",
            listen=[("127.0.0.1", 0)],
            dicomweb=settings,
            stopping=trio.Event(),
        )


@pytest.mark.parametrize("path", ["/aets%2FFEDERATION%2Frs%2Fstudies", "/aets%2FA/rs/studies"])
async def test_a_path_of_escapes_is_the_same(tmp_path: Path, path: str) -> None:
    async with (
        federated(tmp_path, {"A": Catalogue([study("1.1", PatientID="7")])}) as (federation, _),
        served(federation) as web,
    ):
        answer = await web.http.get(f"http://127.0.0.1:{web.port}{path}?PatientID=7")
        [row] = answer.json()
        title = "A" if "A/" in path else "FEDERATION"
        url = f"http://127.0.0.1:{web.port}/aets/{title}/rs/studies/1.1"
        assert row["00081190"]["Value"] == [url]
