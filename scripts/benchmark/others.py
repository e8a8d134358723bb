"""What else receives objects over a line, each a process of its own for each run: pynetdicom and
Orthanc by DIMSE, and Orthanc's DICOMweb by STOW-RS over TLS, as a gateway into a cloud has it."""

import json
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trustme

from scripts.benchmark import leftovers
from scripts.benchmark.links import Line
from scripts.benchmark.objects import Series
from scripts.benchmark.receiver import Receiver
from scripts.benchmark.sending import DEADLINE, storescu
from scripts.benchmark.trial import Way
from tests.hospital_networks.world import running
from tests.interop.peers import Address, PeerError, free_port
from tests.ports import LOOPBACK

# A device that is there for one run, and how a series is sent to it.
Other = Callable[[], AbstractAsyncContextManager[tuple[Way, Receiver]]]

DICOM_WEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

NGINX = Path("/usr/sbin/nginx")
NGINX_CONFIGURATION = """\
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
worker_processes 2;
events {{}}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    upstream orthanc {{ server {orthanc}; keepalive 16; }}
    server {{
        listen {port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        keepalive_requests 1000000;
        client_body_buffer_size 2m;
        location / {{
            proxy_pass http://orthanc;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""

# Requests under way at once.
CONNECTIONS = 4


def others(line: Line, directory: Path, series: Series) -> dict[str, Other]:
    """Those that are installed here, by name."""
    found: dict[str, Other] = {"pynetdicom": partial(_pynetdicom, line, directory, series)}
    if shutil.which("Orthanc"):
        found["orthanc"] = partial(_orthanc, line, directory, series)
        if DICOM_WEB.exists() and NGINX.exists():
            found["stow"] = partial(_stow, line, directory, series)
    return found


@asynccontextmanager
async def _pynetdicom(
    line: Line, directory: Path, series: Series
) -> AsyncIterator[tuple[Way, Receiver]]:
    port = free_port()
    with leftovers.fresh(directory, "pynetdicom") as stored:
        words = (sys.executable, "-m", "pynetdicom", "storescp", str(port), "-od", str(stored))
        async with running(directory / "pynetdicom.log", None, *line.b.inside, *words) as service:
            await service.listens(port)
            target = Address(port, "ANY", line.b.address)
            device = Receiver(stored, port, (service.process.pid,), exact=False)
            yield partial(storescu, line.a, target, series.files), device


@asynccontextmanager
async def _orthanc(
    line: Line, directory: Path, series: Series
) -> AsyncIterator[tuple[Way, Receiver]]:
    async with _running_orthanc(line, directory, {}) as (device, _):
        target = Address(device.port, "ORTHANC", line.b.address)
        yield partial(storescu, line.a, target, series.files), device


@asynccontextmanager
async def _stow(line: Line, directory: Path, series: Series) -> AsyncIterator[tuple[Way, Receiver]]:
    authority = trustme.CA()
    certificate = authority.issue_cert(line.b.address)
    ca_file, own = directory / "stow-ca.pem", directory / "stow.pem"
    authority.cert_pem.write_to_path(ca_file)
    certificate.private_key_and_cert_chain_pem.write_to_path(own)
    # Debian's Orthanc ends at its first request over TLS: nginx does that before it.
    settings: dict[str, object] = {
        "Plugins": [str(DICOM_WEB)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    port, configuration = free_port(), directory / "nginx.conf"
    async with _running_orthanc(line, directory, settings) as (device, http), AsyncExitStack() as s:
        configuration.write_text(
            NGINX_CONFIGURATION.format(
                directory=directory, orthanc=f"{LOOPBACK}:{http}", port=port, certificate=own
            )
        )
        front = (*line.b.inside, str(NGINX), "-c", str(configuration))
        service = await s.enter_async_context(running(directory / "front.log", None, *front))
        await service.listens(port)
        url = f"https://{line.b.address}:{port}/dicom-web/studies"
        words = (sys.executable, "-m", "scripts.benchmark.stow", url, str(ca_file))

        async def send() -> None:
            files = map(str, series.files)
            done = await line.a.run(*words, str(CONNECTIONS), *files, deadline=DEADLINE)
            if done.status:
                raise PeerError(f"STOW-RS: {done.output[-2000:]}")

        yield send, attrs.evolve(device, pids=(*device.pids, service.process.pid))


@asynccontextmanager
async def _running_orthanc(
    line: Line, directory: Path, settings: dict[str, object]
) -> AsyncIterator[tuple[Receiver, int]]:
    """An Orthanc without objects, and the port of its REST. It writes what it has parsed."""
    port, http = free_port(), free_port()
    configuration = directory / "orthanc.json"
    values: dict[str, object] = {
        "Name": "ORTHANC",
        "HttpPort": http,
        "RemoteAccessAllowed": True,
        "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "TcpNoDelay": True,
        "KeepAlive": True,
        **settings,
    }
    words = (*line.b.inside, "Orthanc", str(configuration))
    with leftovers.fresh(directory, "orthanc") as kept:
        stored, index = kept / "objects", kept / "index"
        values |= {"StorageDirectory": str(stored), "IndexDirectory": str(index)}
        configuration.write_text(json.dumps(values))
        async with running(directory / "orthanc.log", None, *words) as service:
            await service.listens(port)
            await service.listens(http)
            yield Receiver(stored, port, (service.process.pid,), exact=False), http
