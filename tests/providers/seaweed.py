"""SeaweedFS, an S3 server of somebody else's, as a process on loopback, over TLS."""

import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import httpx
import trustme

from relay.providers.s3 import S3Provider, S3Settings
from tests.ports import LOOPBACK, Ports

ACCESS_KEY, SECRET_KEY = "AKIDRELAYTEST", "secret/of+the=test"
# Of another account, which may read and list and nothing else.
READER_KEY, READER_SECRET = "AKIDREADER", "secret-of-the-reader"
BUCKET, VERSIONED, SUSPENDED = "relay-test", "versioned", "suspended"

# It takes 4 s on an idle machine.
START_DEADLINE = 60.0
# weed adds this to each of its ports for gRPC.
GRPC_OFFSET = 10_000
_ports = Ports(10_000, 1_000)

# A bucket takes seven volumes at its first object, and so does the filer for its own journal after
# a minute; a bucket that finds none left refuses every PUT. Room for twice as many as there are.
VOLUMES = 2 * 7 * 4

WEED = Path(sys.executable).parent / "weed"


@attrs.define
class Server:
    """The process, which may be killed and started again on what it has."""

    log: Path
    command: tuple[str | Path, ...]
    _process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL: SIGTERM takes it 25 s."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def output(self) -> str:
        return self.log.read_text(errors="replace")


@attrs.frozen
class Seaweed:
    """A running server: its S3 endpoint, and the authority that its certificate is of."""

    endpoint: str
    ca_file: Path
    server: "Server"
    _master: str
    _filer: str

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def settings(self, **changes: str) -> dict[str, str]:
        """What an administrator would enter; a folder of its own, unless told otherwise."""
        return {
            "bucket": BUCKET,
            "endpoint": self.endpoint,
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "ca_file": str(self.ca_file),
            "prefix": f"t{secrets.token_hex(6)}",
            **changes,
        }

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=self.trust(), timeout=10, trust_env=False)

    def provider(self, **changes: str) -> S3Provider:
        settings = S3Settings.read(self.settings(**changes))
        return S3Provider(settings, client=self.client)

    def shell(self, *commands: str) -> str:
        """What `weed shell` answers to these commands."""
        done = subprocess.run(
            [WEED, "shell", f"-master={self._master}", f"-filer={self._filer}"],
            input="\n".join([*commands, "exit", ""]),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_DEADLINE
        with httpx.Client(verify=self.trust(), trust_env=False) as client:
            while time.monotonic() < deadline and self.server.running:
                try:
                    if client.get(self.endpoint).status_code == 403:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
        raise RuntimeError(f"weed does not run\n{self.server.output()[-2000:]}")


@contextmanager
def seaweed(folder: Path) -> Iterator[Seaweed]:
    """A server with the buckets named above, killed at the end of the block."""
    authority = trustme.CA()
    certificate = authority.issue_cert(LOOPBACK, "localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    (folder / "s3.json").write_text(json.dumps(_identities()))
    (folder / "data").mkdir()
    master, volume, filer, s3 = (_ports.free(GRPC_OFFSET) for _ in range(4))
    server = Server(
        folder / "log",
        (
            *(WEED, "-logtostderr", "server", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"),
            *(f"-dir={folder / 'data'}", f"-master.port={master}", f"-volume.max={VOLUMES}"),
            *(f"-volume.port={volume}", f"-filer.port={filer}", "-master.telemetry=false"),
            *("-master.volumeSizeLimitMB=64", "-s3", f"-s3.port={s3}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder / 's3.json'}"),
            *(f"-s3.cert.file={folder / 'certificate.pem'}", f"-s3.key.file={folder}/key.pem"),
        ),
    )
    found = Seaweed(
        f"https://{LOOPBACK}:{s3}",
        folder / "ca.pem",
        server,
        f"{LOOPBACK}:{master}",
        f"{LOOPBACK}:{filer}",
    )
    try:
        server.start()
        found.wait()
        found.shell(
            f"s3.bucket.create -name {BUCKET}",
            f"s3.bucket.create -name {VERSIONED}",
            f"s3.bucket.versioning -name {VERSIONED} -enable",
            f"s3.bucket.create -name {SUSPENDED}",
            f"s3.bucket.versioning -name {SUSPENDED} -enable",
            f"s3.bucket.versioning -name {SUSPENDED} -suspend",
        )
        yield found
    finally:
        server.kill()


def _identities() -> dict[str, object]:
    return {
        "identities": [
            {
                "name": "relay",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Read", "Write", "List"],
            },
            {
                "name": "reader",
                "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
                "actions": ["Read", "List"],
            },
        ]
    }
