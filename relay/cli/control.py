"""How the command line speaks to the running process: REST over the Unix socket in `data_dir`."""

import socket
from pathlib import Path
from typing import Any

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
    """The running process of `config`, which was read from `file`."""

    config: Config
    file: Path

    @property
    def socket(self) -> Path:
        return self.config.data_dir / SOCKET

    def get(self, path: str, **query: str) -> Any:
        return self._call("GET", path, None, query)

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, body, {})

    def delete(self, path: str, **query: str) -> Any:
        return self._call("DELETE", path, None, query)

    def _call(self, method: str, path: str, body: Any, query: dict[str, str]) -> Any:
        """The JSON answer. Raises NotRunning; Refused with the process's words; RelayError."""
        self._check_somebody_listens()
        try:
            with httpx.Client(
                transport=httpx.HTTPTransport(uds=str(self.socket)),
                base_url="http://relay",
                timeout=TIMEOUT,
                trust_env=False,  # a proxy is for the network, not for this socket
            ) as client:
                response = client.request(method, path, json=body, params=query)
        except httpx.HTTPError as error:
            raise RelayError(
                f"{self.socket}: no answer from the process: {type(error).__name__}"
            ) from error
        answer = _json(response)
        if response.is_success:
            return answer
        words = answer.get("error") if isinstance(answer, dict) else None
        raise Refused(response.status_code, str(words or response.reason_phrase))

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


def _json(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError as error:
        raise RelayError(f"the process answered {response.status_code} without JSON") from error
