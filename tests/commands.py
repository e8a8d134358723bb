"""Runs `relay` commands in processes that need not load the program first.

Most of what a command costs is the start of an interpreter with all that Relay imports, and the
tests give hundreds of them. One process loads it all, and forks for each command:

    status, output, errors = run(["device", "list", "--config", "relay.toml"])

It is started with the first command, and ends when this process does, however that ends: it holds
one end of a pipe. As a program: python -m tests.commands SOCKET
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path

# Requests that wait for the process to fork: tests start a few commands at once.
BACKLOG = 64

# A request names a few paths and options.
MAXIMUM_REQUEST = 256 * 1024

START_DEADLINE = 30.0

_lock = threading.Lock()
_server: tuple[subprocess.Popen[bytes], Path] | None = None


def run(arguments: list[str], deadline: float) -> tuple[int, str, str]:
    """Exit status, output and errors of `relay` with these arguments; for a thread of its own.

    Raises TimeoutError past `deadline` seconds.
    """
    with (
        socket.socket(socket.AF_UNIX) as connection,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        connection.settimeout(deadline)
        connection.connect(str(_address()))
        request = json.dumps({"arguments": arguments, "cwd": os.getcwd()}).encode()
        socket.send_fds(connection, [request], [output.fileno(), errors.fileno()])
        answer = connection.recv(16)
        if not answer:
            raise ChildProcessError(f"relay {' '.join(arguments)}: ended without a word")
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
        return int(answer), texts[0], texts[1]


def _address() -> Path:
    """Where the process listens; started if there is none yet."""
    global _server
    with _lock:
        if _server is None or _server[0].poll() is not None:
            folder = Path(tempfile.mkdtemp(prefix="relay-commands-"))
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.commands", str(folder / "socket")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parent.parent,
                start_new_session=True,
            )
            assert process.stdout is not None
            if not process.stdout.readline():
                raise ChildProcessError("tests.commands did not start")
            atexit.register(_end, process)
            _server = (process, folder / "socket")
        return _server[1]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.communicate()  # closes its input


# --- the process ----------------------------------------------------------------------------------


def main(address: str) -> None:
    from relay.cli.root import COMMANDS, main

    for place in COMMANDS.values():
        import_module(place.partition(":")[0])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(BACKLOG)
        threading.Thread(target=_end_with_parent, args=(address,), daemon=True).start()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                request, descriptors, _, _ = socket.recv_fds(connection, MAXIMUM_REQUEST, 2)
                if os.fork() == 0:
                    listener.close()
                    _child(connection, json.loads(request), descriptors, main)
                for descriptor in descriptors:
                    os.close(descriptor)


def _end_with_parent(address: str) -> None:
    sys.stdin.read()
    Path(address).unlink(missing_ok=True)
    Path(address).parent.rmdir()
    os._exit(0)


def _child(
    connection: socket.socket, request: dict[str, object], descriptors: list[int], relay: object
) -> None:
    """Run the command, say its exit status, and end."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((null, *descriptors)):
            os.dup2(descriptor, number)
        os.chdir(str(request["cwd"]))
        relay(args=request["arguments"], prog_name="relay")  # type: ignore[operator]
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(str(status).encode())
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1])
