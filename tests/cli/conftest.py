"""A process that answers on the control socket as told, and a device behind the DICOM socket."""

import json
import logging
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
import structlog
import trio
from click.testing import CliRunner, Result

from relay.cli.control import SOCKET
from relay.cli.root import main
from tests.cli.scp import Device, listening

Behind = Callable[[Device], AbstractContextManager[None]]

FINGERPRINT = "abcd-efgh-ijkl-mnop-qrst-uvwx-yz23-4567"
PEER = {
    "fingerprint": FINGERPRINT,
    "name": "South Hospital",
    "verified": False,
    "state": "unverified",
    "connected": True,
    "enrolled": True,
    "claims": [],
}
DEVICE = {
    "ae_title": "PACS",
    "host": "10.0.0.2",
    "port": 104,
    "published_as": "PACS",
    "services": ["store", "query"],
    "federation": False,
    "maximum_associations": 16,
}
GRANT = {
    "id": 7,
    "peer": FINGERPRINT,
    "name": "South Hospital",
    "unpublished": [],
    "ae_title": "PACS",
    "device": "PACS",
    "services": ["store"],
    "calling": ["*"],
    "user_identity": False,
}


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command line sets up logging for its process; here there are other tests in it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@attrs.define
class FakeProcess:
    """Answers requests from a table; what was asked is in `asked`."""

    folder: Path
    mode: str
    answers: dict[tuple[str, str], tuple[int, Any]] = attrs.Factory(dict)
    asked: list[tuple[str, str, Any]] = attrs.Factory(list)

    @property
    def configuration(self) -> Path:
        return self.folder / "relay.toml"

    def will(self, method: str, path: str, body: Any, status: int = 200) -> None:
        self.answers[method, path] = status, body

    def relay(self, *arguments: str, typed: str | None = None) -> Result:
        """Run the command line against it; `typed` comes in on stdin."""
        arguments = (*arguments, "--config", str(self.configuration))
        return CliRunner().invoke(main, arguments, input=typed)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    process: FakeProcess


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        process = self.server.process
        process.asked.append((self.command, self.path, body))
        status, answer = process.answers.get(
            (self.command, self.path), (404, {"error": f"no answer for {self.path}"})
        )
        if callable(answer):
            answer = answer()
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _answer


def _write_configuration(folder: Path, mode: str) -> None:
    table = {
        "router": '[router]\nae_title = "NORTH"\n',
        "bridge": '[bridge]\nurl = "https://relay.example.org"\nbehind_proxy = true\n',
    }[mode]
    (folder / "relay.toml").write_text(f'{table}data_dir = "data"\n')
    (folder / "data").mkdir(mode=0o700, exist_ok=True)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], FakeProcess]]:
    """Starts a fake process of a mode."""
    servers = []

    def start(mode: str) -> FakeProcess:
        _write_configuration(tmp_path, mode)
        server = _Server(str(tmp_path / "data" / SOCKET), _Handler)
        server.process = FakeProcess(tmp_path, mode)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server.process

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def router(start: Callable[[str], FakeProcess]) -> FakeProcess:
    return start("router")


@pytest.fixture
def bridge(start: Callable[[str], FakeProcess]) -> FakeProcess:
    return start("bridge")


@pytest.fixture
def stopped(tmp_path: Path) -> FakeProcess:
    """A configured Router that does not run."""
    _write_configuration(tmp_path, "router")
    return FakeProcess(tmp_path, "router")


@pytest.fixture
def behind(stopped: FakeProcess) -> Behind:
    """Runs a device in a thread of its own, since each command runs trio itself."""

    @contextmanager
    def behind(device: Device) -> Iterator[None]:
        ready = threading.Event()
        token: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

        async def main() -> None:
            with trio.CancelScope() as scope:
                async with listening(device, stopped.folder / "data"):
                    token.append((trio.lowlevel.current_trio_token(), scope))
                    ready.set()
                    await trio.sleep_forever()

        thread = threading.Thread(target=trio.run, args=(main,))
        thread.start()
        assert ready.wait(5)
        yield
        token[0][0].run_sync_soon(token[0][1].cancel)
        thread.join(5)

    return behind


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs any click command."""

    def run(command: click.Command, *arguments: str) -> Result:
        return CliRunner().invoke(command, list(arguments))

    return run


@pytest.fixture
def peers(router: FakeProcess) -> FakeProcess:
    router.will("GET", "/v1/peers", [PEER])
    router.will("GET", "/v1/status", {"connected": True})
    router.will(
        "GET",
        "/v1/directory",
        [
            {"peer": FINGERPRINT, "ae_title": "SOUTH_PACS", "services": ["echo", "store"]}
            | {"granted": ["store"], "name": "South Hospital", "claimed_by": None}
            | {"signed": True}
        ],
    )
    return router
