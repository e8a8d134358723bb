"""Runs `relay`, and programs with pynetdicom, in processes that need not load it first.

Most of what a command or the start of a Router costs is the start of an interpreter with all that
Relay imports: more than a second of processor time, and the tests give hundreds of them; of what
one of pynetdicom's programs costs it is half a second. One process loads it all, and forks for
each:

    status, output, errors = run(["device", "list", "--config", "relay.toml"])
    process = start(["--mode", "router", "--config", "relay.toml"], sink)
    process = start(["-m", "pynetdicom", "echoscu", ...], sink, loaded=Loaded.PYNETDICOM)

It is started with the first of them, one for Relay and one for pynetdicom, and ends when this
process does, however that ends: it holds one end of a pipe. Its children end when it does, however
that ends (prctl(2), PR_SET_PDEATHSIG). As a program: python -m tests.commands LOADED SOCKET
"""

import atexit
import ctypes
import enum
import gc
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import trio

from tests import namespaces

# Requests that wait for the process to fork: tests start a few commands at once.
BACKLOG = 64

# A request names a few paths and options, and has the environment.
MAXIMUM_REQUEST = 256 * 1024

# An answer: a number.
MAXIMUM_ANSWER = 16

# The first start of all loads the program, on a machine that does the same for other workers.
START_DEADLINE = 60.0

# What a start or a command loads only when it needs it, as nearly every one does.
LOADED_LATE = ("encodings.ascii", "httpcore", "rich._emoji_codes")

# prctl(2): the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1

# What decides how an interpreter starts. Who sets one of them is not served by a fork.
INTERPRETER = "PYTHON"


class Loaded(enum.Enum):
    """What a process that forks has loaded."""

    RELAY = "relay"
    PYNETDICOM = "pynetdicom"


_lock = threading.Lock()
_servers: dict[Loaded, tuple[subprocess.Popen[bytes], Path]] = {}


def run(
    arguments: list[str], deadline: float, namespace: str | None = None
) -> tuple[int, str, str]:
    """Exit status, output and errors of `relay` with these arguments; for a thread of its own.

    In a network namespace, if one is named (tests.namespaces). Raises TimeoutError past `deadline`
    seconds.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start(arguments, output, errors, namespace=namespace)
        try:
            status = process.wait_in_thread(deadline)
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            process.wait_in_thread(START_DEADLINE)
            raise
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
        return status, texts[0], texts[1]


def start(
    arguments: list[str],
    output: IO[bytes],
    errors: IO[bytes] | None = None,
    *,
    namespace: str | None = None,
    loaded: Loaded = Loaded.RELAY,
    environment: Mapping[str, str] | None = None,
) -> "Forked":
    """Start `relay` with these arguments in a session of its own; for a thread of its own.

    With pynetdicom `loaded`: Python, with a file or `-m` and a module among its arguments.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(START_DEADLINE)
        connection.connect(str(_address(loaded)))
        request = {
            "arguments": arguments,
            "cwd": os.getcwd(),
            "environment": dict(os.environ if environment is None else environment),
            "namespace": namespace,
        }
        descriptors = [output.fileno(), (errors or output).fileno()]
        socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
        answer, given, _, _ = socket.recv_fds(connection, MAXIMUM_ANSWER, 1)
        if not given:
            raise ChildProcessError(f"{loaded.value} {arguments}: ended without a word")
    except BaseException:
        connection.close()
        raise
    return Forked(int(answer), given[0], connection)


def forks_serve() -> bool:
    """Whether a process that is forked starts as one would that is started now."""
    return _interpreters() == _INTERPRETERS


def _interpreters() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(INTERPRETER)}


_INTERPRETERS = _interpreters()


class Forked:
    """A process that another one has forked for us: what tests need of trio.Process."""

    def __init__(self, pid: int, descriptor: int, connection: socket.socket) -> None:
        """`descriptor` is a pidfd; `connection` brings the exit status."""
        self.pid = pid
        self._descriptor: int | None = descriptor
        self._connection = connection
        self._status: int | None = None
        self._waiting = trio.Lock()

    def poll(self) -> int | None:
        """The exit status, once there is one: negative where a signal ended the process."""
        if self._status is None:
            try:
                self._connection.settimeout(0)
                self._hear()
            except BlockingIOError:
                return None
        return self._status

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def send_signal(self, how: int) -> None:
        """Nothing where it has ended."""
        if self._descriptor is not None:
            try:
                signal.pidfd_send_signal(self._descriptor, how)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Until it has ended; the exit status."""
        async with self._waiting:
            while (status := self.poll()) is None:
                await trio.lowlevel.wait_readable(self._connection)
        self._close()
        return status

    def wait_in_thread(self, deadline: float) -> int:
        """The same without trio. Raises TimeoutError past `deadline` seconds."""
        self._connection.settimeout(deadline)
        return self._hear()

    def _hear(self) -> int:
        answer = self._connection.recv(MAXIMUM_ANSWER)
        if not answer:
            raise ChildProcessError("tests.commands ended before what it has started")
        self._status = int(answer)
        if not self._waiting.locked():  # else who waits is still to see that it is readable
            self._close()
        return self._status

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._connection.close()


def _address(loaded: Loaded) -> Path:
    """Where the process listens; started if there is none yet."""
    with _lock:
        if loaded not in _servers or _servers[loaded][0].poll() is not None:
            folder = Path(tempfile.mkdtemp(prefix="relay-commands-"))
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.commands", loaded.value, str(folder / "socket")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parent.parent,
                env={k: v for k, v in os.environ.items() if not k.startswith(INTERPRETER)}
                | _INTERPRETERS,
                start_new_session=True,
            )
            assert process.stdout is not None
            if not process.stdout.readline():
                raise ChildProcessError("tests.commands did not start")
            atexit.register(_end, process)
            _servers[loaded] = (process, folder / "socket")
        return _servers[loaded][1]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.communicate()  # closes its input


# --- the process ----------------------------------------------------------------------------------


def main(loaded: Loaded, address: str) -> None:
    program = _relay(Path(address).parent) if loaded is Loaded.RELAY else _python()
    # What is loaded stays: the children need not look through it, nor copy it for that.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(BACKLOG)
        print("ready", flush=True)
        Server(listener, program).serve()
    shutil.rmtree(Path(address).parent)


def _relay(folder: Path) -> Callable[[list[str]], Any]:
    """`relay`, with all that it may need.

    In place of those authorities that this machine trusts, which OpenSSL reads in 30 ms, it trusts
    one that has issued nothing: no test speaks to anybody outside.
    """
    import trustme

    from relay.cli.root import COMMANDS, main

    authority = folder / "authority.pem"
    trustme.CA().cert_pem.write_to_path(authority)

    for place in COMMANDS.values():
        import_module(place.partition(":")[0])
    for module in ("relay.cli.run", "relay.bridge.app", "relay.router.app", *LOADED_LATE):
        import_module(module)

    def relay(arguments: list[str]) -> None:
        os.environ.update(SSL_CERT_FILE=str(authority), SSL_CERT_DIR=str(folder))
        main(args=arguments, prog_name="relay")

    return relay


def _python() -> Callable[[list[str]], Any]:
    """The interpreter, with pynetdicom."""
    for module in ("pynetdicom", "pynetdicom.sop_class", "pynetdicom.apps.common"):
        import_module(module)

    def python(arguments: list[str]) -> None:
        if arguments[:2] == ["-W", "ignore"]:
            warnings.simplefilter("ignore")
            del arguments[:2]
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
            return
        file = Path(arguments[0])
        sys.argv, sys.path[0] = arguments, str(file.parent)
        main = sys.modules["__main__"] = ModuleType("__main__")
        main.__file__ = str(file)
        exec(compile(file.read_bytes(), file, "exec"), main.__dict__)

    return python


class Server:
    """Forks for each request, and says of each child how it has ended."""

    def __init__(self, listener: socket.socket, program: Callable[[list[str]], Any]) -> None:
        self._listener = listener
        self._program = program
        self._ready = selectors.DefaultSelector()
        self._children: set[int] = set()  # pidfds
        self._pid = os.getpid()
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def serve(self) -> None:
        """Until standard input ends."""
        self._ready.register(sys.stdin, selectors.EVENT_READ)
        self._ready.register(self._listener, selectors.EVENT_READ, self._fork)
        while True:
            for key, _ in self._ready.select():
                if key.fileobj is sys.stdin:
                    return
                key.data()

    def _fork(self) -> None:
        connection, _ = self._listener.accept()
        request, descriptors, _, _ = socket.recv_fds(connection, MAXIMUM_REQUEST, 2)
        pid = os.fork()
        if pid == 0:
            self._child(json.loads(request), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        child = os.pidfd_open(pid)
        try:
            socket.send_fds(connection, [str(pid).encode()], [child])
        except BrokenPipeError:  # who asked for it has ended
            signal.pidfd_send_signal(child, signal.SIGKILL)

        def ended() -> None:
            self._children.remove(child)
            self._ready.unregister(child)
            os.close(child)
            _, status = os.waitpid(pid, 0)
            with connection:
                try:
                    connection.send(str(os.waitstatus_to_exitcode(status)).encode())
                except BrokenPipeError:
                    return  # nobody waits for it any more

        self._children.add(child)
        self._ready.register(child, selectors.EVENT_READ, ended)

    def _child(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Be the program, with nothing of this process's but what it has loaded, and end."""
        status = 1
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDONLY)
            for number, descriptor in enumerate((null, *descriptors)):
                os.dup2(descriptor, number)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["environment"])
            if request["namespace"] is not None:
                namespaces.enter(request["namespace"])
            self._end_with_the_parent()
            self._program(request["arguments"])
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            # What an interpreter does at its end: a thread that nobody has ended keeps it up.
            threading._shutdown()  # type: ignore[attr-defined]
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _end_with_the_parent(self) -> None:
        if self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != self._pid:  # it had ended before
            raise SystemExit(1)


if __name__ == "__main__":
    main(Loaded(sys.argv[1]), sys.argv[2])
