"""How the command line speaks to the running process: REST over the Unix socket in `data_dir`."""

import socket
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import httpx

from relay.config import Config
from relay.errors import Refused, RelayError

SOCKET = "control.sock"
DICOM_SOCKET = "dicom.sock"

# A device test proposes every storage class and transfer syntax in batches, each of which may wait
# for the device; everything else answers at once.
TIMEOUT = 60.0


class NotRunning(RelayError):
    """Nobody listens on the socket."""


@attrs.frozen(slots=True)
class Control:
    """The running process of `config`, which was read from `file`; each answer comes within
    `timeout` seconds."""

    config: Config
    file: Path
    timeout: float = TIMEOUT

    @property
    def socket(self) -> Path:
        return self.config.data_dir / SOCKET

    def get(self, path: str, **query: str) -> Any:
        return self._call("GET", path, None, query)

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, body, {})

    def delete(self, path: str, **query: str) -> Any:
        return self._call("DELETE", path, None, query)

    def copy(self, path: str, sink: BinaryIO, **query: str) -> None:
        """Write the answer to GET `path` into `sink`, as it comes. Raises as the others do."""
        self._check_somebody_listens()
        try:
            with (
                self._client() as client,
                client.stream("GET", path, params=query) as response,
            ):
                if not response.is_success:
                    response.read()
                    raise _refused(response)
                for piece in response.iter_bytes():
                    sink.write(piece)
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error

    def _call(self, method: str, path: str, body: Any, query: dict[str, str]) -> Any:
        """The JSON answer. Raises NotRunning; Refused with the process's words; RelayError."""
        self._check_somebody_listens()
        try:
            with self._client() as client:
                response = client.request(method, path, json=body, params=query)
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error
        if response.is_success:
            return _json(response)
        raise _refused(response)

    def _client(self) -> httpx.Client:
        return httpx.Client(
            # No TLS on this socket: else it reads all authorities that the system trusts, 30 ms.
            transport=httpx.HTTPTransport(uds=str(self.socket), verify=False),
            base_url="http://relay",
            timeout=self.timeout,
            trust_env=False,  # a proxy is for the network, not for this socket
        )

    def _no_answer(self, error: httpx.HTTPError) -> RelayError:
        return RelayError(f"{self.socket}: no answer from the process: {type(error).__name__}")

    def _check_somebody_listens(self) -> None:
        # Not left to httpx, which leaks the socket where it cannot connect.
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError as error:
                raise NotRunning(self.how_to_start(error)) from error

    def how_to_start(self, error: BaseException) -> str:
        """One line for a socket on which nobody answers."""
        if "Permission denied" in str(error):
            return (
                f"{self.socket}: permission denied: run this as the user that runs Relay, or root"
            )
        mode = self.config.mode.value
        return (
            f"no {mode.capitalize()} is running on {self.config.data_dir}:"
            f" start it with `relay --mode {mode} --config {self.file}`"
        )


def _refused(response: httpx.Response) -> Refused:
    """What the process says against it."""
    answer = _json(response)
    words = answer.get("error") if isinstance(answer, dict) else None
    return Refused(response.status_code, str(words or response.reason_phrase))


def _json(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError as error:
        raise RelayError(f"the process answered {response.status_code} without JSON") from error
