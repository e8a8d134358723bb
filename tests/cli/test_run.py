import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import attrs
import pytest
import trio

from relay import config, config_file, config_tables
from relay.bandwidth import parse
from relay.cli.run import (
    dicomweb_settings,
    federation_settings,
    pages_settings,
    queue_settings,
    until_signalled,
)
from relay.config import RouterConfig
from relay.pages.settings import PagesSettings
from relay.router import device_tls, peers
from relay.router.dicomweb.settings import DicomwebSettings
from relay.router.federation.settings import FederationSettings, Merging, OnIncomplete
from relay.router.queue.settings import QueueSettings

SERVER = textwrap.dedent(
    """
    import sys, trio
    from relay import log
    from relay.cli.run import until_signalled

    log.configure(level="info", json=True)

    async def serve(stopping):
        print("started", flush=True)
        await stopping.wait()
        print("grace", flush=True)
        await trio.sleep(float(sys.argv[1]))
        print("ended", flush=True)

    trio.run(until_signalled, serve)
    """
)


def test_a_mode_loads_nothing_of_the_other() -> None:
    """It stays in memory for months."""
    program = (
        "import sys, relay.cli.run\n"
        "apps = {'relay.bridge.app', 'relay.router.app'}\n"
        "both = {*apps, 'pydicom', 'obstore', 'numpy'} & sys.modules.keys()\n"
        "import relay.router.app\n"
        "router = {'relay.bridge.app', 'obstore'} & sys.modules.keys()\n"
        "print(both, router)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "set() set()", done.stderr


def test_a_bridge_loads_nothing_of_the_router() -> None:
    program = (
        "import sys, relay.cli.run, relay.bridge.app\n"
        "print({'relay.router.app', 'relay.router.devices', 'pydicom'} & sys.modules.keys())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "set()", done.stderr


def test_numpy_begins_no_threads_in_a_router(tmp_path: Path) -> None:
    """It does as it is loaded, one for each processor, unless it has been told before."""
    program = (
        "import builtins, os, sys, pathlib, trio\n"
        "from relay.cli import run\n"
        "from relay import config_file\n"
        "load = builtins.__import__\n"
        "def watched(name, *rest):\n"
        "    if name == 'numpy':\n"
        "        print(os.environ.get('OPENBLAS_NUM_THREADS'), flush=True)\n"
        "        os._exit(0)\n"
        "    return load(name, *rest)\n"
        "builtins.__import__ = watched\n"
        "config = config_file.read(b'[router]', pathlib.Path(sys.argv[1]))\n"
        "trio.run(run._serve, config, trio.Event())\n"
    )
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "relay.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert done.stdout.strip() == "1", done.stderr


@pytest.fixture
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_asks_to_stop(number: signal.Signals) -> None:
    ended = []

    async def serve(stopping: trio.Event) -> None:
        os.kill(os.getpid(), number)
        await stopping.wait()
        ended.append(number)

    with trio.fail_after(5):
        await until_signalled(serve)
    assert ended == [number]


async def test_what_ends_by_itself_needs_no_signal() -> None:
    told = []

    async def serve(stopping: trio.Event) -> None:
        told.append(stopping.is_set())

    with trio.fail_after(5):
        await until_signalled(serve)
    assert told == [False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_kills_at_once(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.send_signal(number)
        assert process.stdout.readline() == b"grace\n"
        process.send_signal(number)
        assert process.wait(10) == -number


def test_a_graceful_end_is_status_0() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (config.TLSProfile, device_tls.Profile),
        (config.DeviceCertificates, device_tls.DeviceCertificates),
        (config.Trust, peers.Trust),
        (config_tables.Answers, Merging),
        (config_tables.OnIncomplete, OnIncomplete),
    ],
)
def test_what_relay_toml_may_say_is_what_the_router_knows(
    said: type[Enum], known: type[Enum]
) -> None:
    """Neither may import the other; the command line hands on the value."""
    assert [member.value for member in said] == [member.value for member in known]


def routers(text: str, folder: Path) -> RouterConfig:
    (folder / "spool.key").touch()
    loaded = config_file.read(text.encode(), folder / "relay.toml")
    assert isinstance(loaded, RouterConfig)
    return loaded


def test_what_relay_toml_leaves_out_of_the_queue_is_what_the_router_does_by_itself(
    tmp_path: Path,
) -> None:
    assert queue_settings(routers("[router]", tmp_path)) == QueueSettings()


def test_all_that_relay_toml_says_of_the_queue_reaches_it(tmp_path: Path) -> None:
    said = routers(
        """
        [router]
        spool_space = "2 GiB"
        spool_reserve = "3 MiB"
        spool_key = "spool.key"
        bandwidth = ["sat 20 Mbit/s"]
        warn_after = 60
        webhook = "https://example.org/hook"
        """,
        tmp_path,
    )
    assert queue_settings(said) == QueueSettings(
        space=2 * 2**30,
        reserve=3 * 2**20,
        key=tmp_path / "spool.key",
        bandwidth=parse(["sat 20 Mbit/s"]),
        warn_after=60.0,
        webhook="https://example.org/hook",
    )


def test_all_that_relay_toml_says_of_the_federation_reaches_it(tmp_path: Path) -> None:
    assert federation_settings(routers("[router]", tmp_path)) == FederationSettings()
    said = routers(
        """
        [router.federation]
        ae_title = "ALL"
        answers = "streamed"
        on_incomplete = "success"
        narrowing = false
        maximum_answers = 10
        queries = 2
        retrieves = 3
        site_wait = 5
        store_to = "NORTH_PACS"
        """,
        tmp_path,
    )
    assert federation_settings(said) == FederationSettings(
        ae_title="ALL",
        answers=Merging.STREAMED,
        on_incomplete=OnIncomplete.SUCCESS,
        narrowing=False,
        maximum_answers=10,
        queries=2,
        retrieves=3,
        site_wait=5.0,
        store_to="NORTH_PACS",
    )


def test_all_that_relay_toml_says_of_dicomweb_reaches_it(tmp_path: Path) -> None:
    nothing = dicomweb_settings(routers("[router]", tmp_path))
    assert nothing == DicomwebSettings(listen=[], origins=())
    (tmp_path / "a.pem").touch()
    said = routers(
        """
        [router.dicomweb]
        listen = "127.0.0.1:8443"
        certificate = "a.pem"
        private_key = "a.pem"
        origins = ["https://viewer.example.org"]
        open = true
        maximum_requests = 2
        """,
        tmp_path,
    )
    assert dicomweb_settings(said) == DicomwebSettings(
        listen=[("127.0.0.1", 8443)],
        certificate=tmp_path / "a.pem",
        private_key=tmp_path / "a.pem",
        origins=("https://viewer.example.org",),
        open=True,
        maximum_requests=2,
    )


def test_all_that_relay_toml_says_of_the_pages_reaches_them(tmp_path: Path) -> None:
    assert pages_settings(routers("[router]", tmp_path)) == PagesSettings(listen=[], hosts=())
    (tmp_path / "a.pem").touch()
    said = """
        listen = "10.0.0.1:8443"
        certificate = "a.pem"
        private_key = "a.pem"
        hosts = ["relay.example.org"]
        """
    expected = PagesSettings(
        listen=[("10.0.0.1", 8443)],
        certificate=tmp_path / "a.pem",
        private_key=tmp_path / "a.pem",
        hosts=("relay.example.org",),
    )
    assert pages_settings(routers(f"[router.pages]\n{said}", tmp_path)) == expected
    path = tmp_path / "bridge.toml"
    for line, on_network_port in (("", True), ("on_network_port = false", False)):
        path.write_text(
            '[bridge]\nurl = "https://h"\nbehind_proxy = true\n'
            f"[bridge.pages]\n{line}\n{textwrap.dedent(said)}"
        )
        loaded = config_file.load(path)
        assert pages_settings(loaded) == attrs.evolve(expected, on_network_port=on_network_port)
