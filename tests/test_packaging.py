"""What Relay is installed with: systemd units and their sandbox, a container, a wheel."""

import os
import re
import shutil
import ssl
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest
import trio

import relay
from relay.cli.run import pages_settings
from relay.config import BridgeConfig, RouterConfig
from relay.config_file import load
from relay.pages.serving import load_tls
from relay.web.tls import covers, names_in
from tests.hospitals import ct_image, make, publish, two_hospitals
from tests.interop import peers

ROOT = Path(__file__).parent.parent
PACKAGING = ROOT / "packaging"
UNITS = ("relay-router.service", "relay-bridge.service")

DEADLINE = 60

# systemd-analyze's figure for what a service may still do, in tenths: 1.9. What is left is the
# network, and the ports below 1024.
EXPOSURE = 20

# prctl(2): PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: what MemoryDenyWriteExecute asks of the kernel
# from Linux 6.3 on. Then the program, which inherits it.
DENIED = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""

# What the one file needs of a machine: glibc and zlib.
NEEDED = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
    "libz.so.1",
)

# In mounts of its own: the root, what is shared with it, and then the program with its arguments.
ENTER = """
root=$0 shared=$1
shift
mount --bind "$shared" "$root$shared" && mount -t proc proc "$root/proc" &&
    mount --rbind /dev "$root/dev" && exec chroot "$root" "$@"
"""

systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here"
)


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, with a program that is here."""
    found = []
    for name in UNITS:
        text = (PACKAGING / "systemd" / name).read_text()
        path = tmp_path / name
        path.write_text(text.replace("/usr/local/bin/relay", "/bin/true"))
        found.append(path)
    return found


# --- systemd --------------------------------------------------------------------------------------


@systemd
def test_systemd_takes_the_units(units: list[Path]) -> None:
    for unit in units:
        done = ran("systemd-analyze", "verify", str(unit))
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), unit.name


@systemd
def test_the_sandbox_is_tight(units: list[Path]) -> None:
    for unit in units:
        done = ran(
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            *(f"--threshold={EXPOSURE}", str(unit)),
        )
        assert done.returncode == 0, done.stdout[-600:]


def test_both_units_are_the_same_but_for_the_mode() -> None:
    router, bridge = ((PACKAGING / "systemd" / name).read_text() for name in UNITS)
    told = [line for line in router.splitlines() if line and not line.startswith("#")]
    expected = [line.replace("Router", "Bridge").replace("router", "bridge") for line in told]
    assert [line for line in bridge.splitlines() if line and line[0] != "#"] == expected
    assert "--mode router" in router
    user = (PACKAGING / "systemd/relay.sysusers.conf").read_text()
    assert "\nu relay " in user
    assert "\nUser=relay\n" in router


def test_the_units_unpack_the_one_file_where_programs_may_run() -> None:
    """Not in /tmp, which may be noexec, in memory, or cleared of what is ten days old."""
    for name in UNITS:
        lines = (PACKAGING / "systemd" / name).read_text().splitlines()
        assert "CacheDirectory=%N" in lines
        assert "Environment=TMPDIR=/var/cache/%N" in lines
        (cleared,) = (line for line in lines if line.startswith("ExecStartPre="))
        assert cleared.endswith("/find /var/cache/%N -mindepth 1 -delete")


def test_the_unit_can_read_what_installing_says() -> None:
    """`relay init` writes for the owner alone; the unit's user is another."""
    text = (ROOT / "docs/installing.md").read_text().partition("## With systemd")[2]
    steps = text.partition("```sh\n")[2].partition("```")[0].splitlines()
    written = next(n for n, line in enumerate(steps) if line.startswith("relay init"))
    given = steps.index("chgrp relay /etc/relay/relay.toml")
    assert written < given < steps.index("chmod 0640 /etc/relay/relay.toml")
    assert given < next(n for n, line in enumerate(steps) if "enable --now" in line)


async def test_it_runs_without_memory_that_is_writable_and_executable(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute: no library may need it, on any way that an image takes."""
    denied = (sys.executable, "-c", DENIED)
    if ran(*denied, "/bin/true").returncode == 77:
        pytest.skip("this kernel cannot deny it")
    image = ct_image()
    async with (
        peers.storescp(make(tmp_path / "stored"), ae_title="STORESCP") as scp,
        two_hospitals(tmp_path / "net", "STORESCU", inside=denied) as net,
    ):
        await publish(net, "STORESCP", scp.port, "echo,store")
        sent = await peers.storescu(net.address("A", "STORESCP"), image.path)
        assert sent.status == 0, sent.output
        assert "Traceback" not in net.bridge.output()


def test_that_is_denied_here(tmp_path: Path) -> None:
    """The same, of a program that needs it: the test above can fail."""
    needs = "import mmap; mmap.mmap(-1, 4096, prot=7)"
    if ran(sys.executable, "-c", DENIED, "/bin/true").returncode == 77:
        pytest.skip("this kernel cannot deny it")
    assert ran(sys.executable, "-c", needs).returncode == 0
    assert ran(sys.executable, "-c", DENIED, sys.executable, "-c", needs).returncode != 0


@systemd
@pytest.mark.full
@pytest.mark.timeout(300)
async def test_every_system_call_that_it_makes_is_let_through(tmp_path: Path) -> None:
    """SystemCallFilter: what strace sees of a Bridge and two Routers at work beside it."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not here")
    image = ct_image()
    traces = make(tmp_path / "traces")
    async with (
        peers.storescp(make(tmp_path / "stored"), ae_title="STORESCP") as scp,
        two_hospitals(tmp_path / "net", "STORESCU", inside=_traced(traces)) as net,
    ):
        await publish(net, "STORESCP", scp.port, "echo,store")
        sent = await peers.storescu(net.address("A", "STORESCP"), image.path)
        assert sent.status == 0, sent.output
    # SQLite gives what root makes to the owner of the database, and asks for that as root alone.
    as_root = {"fchown"} if os.geteuid() == 0 else set[str]()
    assert _made(traces) <= as_root
    ran(*_traced(traces), sys.executable, "-c", "import os; os.chroot('/')")
    assert "chroot" in _made(traces), "what is not let through is seen"


def _traced(traces: Path) -> tuple[str, ...]:
    """Has strace write down every system call that the units deny."""
    allowed = _calls("@system-service") - _calls("@privileged")
    others = "trace=!" + ",".join(f"?{name}" for name in sorted(allowed))
    # -D: the process is the program, and strace a child of it, so that signals reach the program.
    return (
        "strace",
        "-D",
        "-ff",
        "--seccomp-bpf",
        "-qq",
        "-o",
        str(traces / "trace"),
        "-e",
        others,
    )


def _made(traces: Path) -> set[str]:
    return {
        name
        for trace in traces.iterdir()
        for name in re.findall(r"(?m)^(\w+)\(", trace.read_text(errors="replace"))
    }


def _calls(name: str) -> set[str]:
    """The system calls of a set of systemd's, and of the sets in it."""
    found = set()
    for line in ran("systemd-analyze", "syscall-filter", name).stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= _calls(word)
        elif word and not word.startswith("#"):
            found.add(word)
    return found


# --- a wheel, and one file ------------------------------------------------------------------------


def test_the_wheel_carries_everything_that_the_program_reads(tmp_path: Path) -> None:
    """Templates, static files, the protocol: what is in relay/ and not Python."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    without = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "relay", source / "relay", ignore=without)
    done = ran(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
        *("--wheel-dir", str(tmp_path), str(source)),
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
    for path in (source / "relay").rglob("*"):
        if path.is_file():
            assert str(path.relative_to(source)) in inside
    assert any(name.endswith("templates/base.html") for name in inside)
    assert any("/static/" in name and name.endswith(".css") for name in inside)


@pytest.mark.full
@pytest.mark.timeout(1500)
async def test_the_one_file_runs_without_python(tmp_path: Path) -> None:
    """Built if it is not there, or older than the program; a Bridge, two Routers, an image."""
    binary = ROOT / "dist/relay"
    newest = max(path.stat().st_mtime for path in (ROOT / "relay").rglob("*") if path.is_file())
    if not binary.exists() or binary.stat().st_mtime < newest:
        built = await trio.run_process(
            [str(ROOT / "scripts/binary")], capture_stdout=True, capture_stderr=True, check=False
        )
        assert built.returncode == 0, built.stderr.decode()[-2000:]
    alone = _alone(binary, make(tmp_path / "root"), make(tmp_path / "net"))
    assert ran(*alone, "--version").stdout == f"relay, version {relay.__version__}\n"
    image = ct_image()
    async with (
        peers.storescp(make(tmp_path / "stored"), ae_title="STORESCP") as scp,
        two_hospitals(tmp_path / "net", "STORESCU", program=alone) as net,
    ):
        await publish(net, "STORESCP", scp.port, "echo,store")
        sent = await peers.storescu(net.address("A", "STORESCP"), image.path)
        assert sent.status == 0, sent.output
        assert (await net.bridge.ask("provider", "list"))[0]["kind"] == "disk"
        words = await net.bridge.relay("provider", "add", "cloud", "s3", check=False)
        assert "bucket" in words, "the store's own code is there"
        trust = ssl.create_default_context(cafile=str(net.ca_file))
        async with httpx.AsyncClient(verify=trust, trust_env=False) as browser:
            page = await browser.get(f"https://127.0.0.1:{net.wire.port}/sign-in")
        assert page.status_code == 200
        assert "</html>" in page.text
        # SIGTERM reaches the program through the file that has unpacked it.
        assert await net.routers["A"].stop() == 0
        assert await net.bridge.stop() == 0


def _alone(binary: Path, root: Path, shared: Path) -> tuple[str, ...]:
    """What runs the one file with nothing of this environment: no PATH, no libraries of a Python.

    For root also with nothing of this machine: in `root`, which holds the file, NEEDED and empty
    folders, and sees of what is outside `shared` alone.
    """
    if os.geteuid() != 0:
        return ("/usr/bin/env", "-i", "PATH=/nonexistent", f"HOME={shared}", str(binary))
    found = re.search(r"(/\S*/)libc\.so\.6", ran("ldd", str(binary)).stdout)
    assert found is not None
    for name in NEEDED:
        path = Path(found[1]) / name
        target = root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    loader = re.search(r"(?m)^\s*(/\S*/ld-linux\S*)", ran("ldd", str(binary)).stdout)
    assert loader is not None
    for source, target in ((loader[1], root / loader[1].lstrip("/")), (binary, root / "relay")):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    for name in ("tmp", "proc", "dev", str(shared).lstrip("/")):
        (root / name).mkdir(parents=True, exist_ok=True)
    return (
        *("/usr/bin/env", "-i", "PATH=/usr/bin:/usr/sbin:/bin:/sbin", f"HOME={shared}"),
        *("unshare", "--mount", "--propagation=private", "sh", "-c", ENTER),
        *(str(root), str(shared), "/relay"),
    )


# --- the container --------------------------------------------------------------------------------


def test_the_container_runs_as_nobody_special_and_says_how_it_is() -> None:
    lines = (PACKAGING / "Containerfile").read_text().splitlines()
    instructions = [line.partition(" ") for line in lines if re.match(r"[A-Z]+ ", line)]
    users = [rest for word, _, rest in instructions if word == "USER"]
    assert users[-1] not in ("root", "0", "0:0")
    assert [rest for word, _, rest in instructions if word == "FROM"][-1].startswith("debian:")
    assert any(word == "HEALTHCHECK" for word, _, _ in instructions)
    assert any(word == "VOLUME" and "/var/lib/relay" in rest for word, _, rest in instructions)
    copied = [rest.split()[:-1] for word, _, rest in instructions if word == "COPY"]
    here = [name for names in copied for name in names if not names[0].startswith("--from")]
    assert "relay" in here
    for source in here:
        assert (ROOT / source).exists(), source
    # All of the checkout, with what was built and installed in it, is no part of an image.
    assert "." not in here


def test_the_compose_file_is_a_bridge_and_two_routers() -> None:
    text = (PACKAGING / "compose.yml").read_text()
    services = text.partition("\nservices:")[2].partition("\nvolumes:")[0]
    assert re.findall(r"(?m)^  (\w+):$", services) == ["bridge", "north", "south"]
    for words in ("read_only: true", "cap_drop: [ALL]", "no-new-privileges"):
        assert words in text


def test_what_there_is_to_try_has_configurations_that_hold(tmp_path: Path) -> None:
    folder = tmp_path / "packaging"
    shutil.copytree(PACKAGING, folder, ignore=shutil.ignore_patterns("try"))
    done = ran(str(folder / "compose-try"), "write")
    assert done.returncode == 0, done.stderr
    bridge = load(folder / "try/bridge/relay.toml")
    assert isinstance(bridge, BridgeConfig)
    assert covers(names_in(bridge.certificate), "bridge") if bridge.certificate else False
    for hospital in ("north", "south"):
        router = load(folder / "try" / hospital / "relay.toml")
        assert isinstance(router, RouterConfig)
        assert router.ae_title == f"{hospital.upper()}_RELAY"
        assert load_tls(pages_settings(router)) is not None
