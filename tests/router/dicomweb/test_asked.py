"""Whom a request is for: all devices, or the one that its URL names."""

from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from relay.errors import Refused
from relay.router.devices import Device
from relay.router.dicomweb.asked import Service, asked
from tests.router.federation.catalogues import Catalogue, federated


def request(title: str, path: str = "", caller: Device | None = None, **more: Any) -> Request:
    headers = [(b"host", more.pop("host", "relay.example:8443").encode())]
    if "proto" in more:
        headers.append((b"x-forwarded-proto", more.pop("proto").encode()))
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "server": ("127.0.0.1", 8443),
        "path": f"/aets/{title}/rs{path}",
        "raw_path": f"/aets/{title}/rs{path}".replace(" ", "%20").encode(),
        "query_string": b"",
        "headers": headers,
        "path_params": {"ae_title": title} | more,
        "state": {"caller": caller},
    }
    return Request(scope)


async def test_one_device_is_asked_alone_and_remembered_apart(tmp_path: Path) -> None:
    catalogues = {"A": Catalogue(), "MY PACS": Catalogue()}
    async with federated(tmp_path, catalogues) as (federation, caller):
        service = Service(federation)
        everything = asked(service, request("FEDERATION"))
        assert everything.federation is federation
        one = asked(service, request("MY PACS"))
        titles = [source.title for source in one.federation.sources.of(caller)]
        assert titles == ["MY PACS"]
        assert one.studies == "http://relay.example:8443/aets/MY%20PACS/rs/studies"
        assert one.federation.found is not federation.found
        assert one.federation.lines is federation.lines
        assert one.federation.held is federation.held
        assert asked(service, request("MY PACS")).federation is one.federation
        [source] = one.federation.sources.of(caller)
        assert (await one.federation.sources.describe(source, caller)).issuer == ""
        await federation.node.remove_device("MY PACS")
        with pytest.raises(Refused, match="no AE title 'MY PACS'") as refused:
            asked(service, request("MY PACS"))
        assert refused.value.status == 404
        assert asked(service, request("MY PACS"), stores=True).title == "MY PACS"


async def test_what_is_no_uid_is_refused(tmp_path: Path) -> None:
    async with federated(tmp_path, {}) as (federation, _):
        service = Service(federation)
        assert asked(service, request("FEDERATION", study="1.2")).path == {"study": "1.2"}
        for name in ("study", "series", "instance"):
            with pytest.raises(Refused, match=f"the {name} in the URL is no UID"):
                asked(service, request("FEDERATION", "", None, **{name: "Doe"}))


async def test_a_warning_is_one_line_of_ascii(tmp_path: Path) -> None:
    async with federated(tmp_path, {}) as (federation, _):
        one = asked(Service(federation), request("FEDERATION"))
        said = one.warning('Süd: "gone"\r\nset-cookie: a\\')
        text = said.removeprefix("299 http://relay.example:8443/aets/FEDERATION/rs ")
        assert text == "\"S?d: 'gone'  set-cookie: a/\""


async def test_a_proxy_says_that_it_does_the_tls(tmp_path: Path) -> None:
    async with federated(tmp_path, {}) as (federation, _):
        service = Service(federation)
        for proto, scheme in (("https", "https"), ("javascript", "http")):
            one = asked(service, request("FEDERATION", proto=proto))
            assert one.base == f"{scheme}://relay.example:8443/aets/FEDERATION/rs"
        proxied = asked(service, request("FEDERATION", proto="https", host="relay.example"))
        assert proxied.base == "https://relay.example/aets/FEDERATION/rs"
        # Some clients leave the port out.
        short = asked(service, request("FEDERATION", host="[::1]"))
        assert short.base == "http://[::1]:8443/aets/FEDERATION/rs"
