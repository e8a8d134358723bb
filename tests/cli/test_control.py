import socket
import threading
from pathlib import Path

import pytest

from relay.cli.control import Control, NotRunning
from relay.config_file import load
from relay.errors import Refused, RelayError
from tests.cli.conftest import FakeProcess


def control_of(process: FakeProcess) -> Control:
    return Control(load(process.configuration), process.configuration)


def test_the_answer_is_json(router: FakeProcess) -> None:
    router.will("GET", "/v1/status", {"version": "1"})
    router.will("POST", "/v1/devices", {"ae_title": "CT1"}, status=201)
    router.will("DELETE", "/v1/grants/1", b"", status=204)
    control = control_of(router)
    assert control.get("/v1/status") == {"version": "1"}
    assert control.post("/v1/devices", {"a": [1]}) == {"ae_title": "CT1"}
    assert control.delete("/v1/grants/1") is None
    assert router.asked[1] == ("POST", "/v1/devices", {"a": [1]})


def test_a_refusal_keeps_the_words_and_the_status(router: FakeProcess) -> None:
    router.will("POST", "/v1/grants", {"error": "no such service"}, status=400)
    router.will("GET", "/v1/x", [], status=500)
    with pytest.raises(Refused, match="no such service") as caught:
        control_of(router).post("/v1/grants")
    assert caught.value.status == 400
    with pytest.raises(Refused, match="Internal Server Error"):
        control_of(router).get("/v1/x")


def test_what_is_no_json_is_no_answer(router: FakeProcess) -> None:
    router.will("GET", "/v1/status", b"<html>")
    with pytest.raises(RelayError, match="without JSON"):
        control_of(router).get("/v1/status")


def test_nobody_there_says_how_to_start(stopped: FakeProcess) -> None:
    with pytest.raises(NotRunning) as caught:
        control_of(stopped).get("/v1/status")
    assert str(caught.value) == (
        f"no Router is running on {stopped.folder / 'data'}:"
        f" start it with `relay --mode router --config {stopped.configuration}`"
    )


def test_a_socket_left_behind_is_nobody_either(stopped: FakeProcess) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stopped.folder / "data/control.sock"))
    with pytest.raises(NotRunning):
        control_of(stopped).get("/v1/status")


def test_somebody_elses_socket_says_so(stopped: FakeProcess) -> None:
    words = control_of(stopped).how_to_start(OSError(13, "Permission denied"))
    assert "run this as the user that runs Relay" in words


def test_a_process_that_dies_in_the_middle_is_said(stopped: FakeProcess) -> None:
    path = Path(stopped.folder / "data/control.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def hang_up() -> None:
            for _ in range(2):  # the look whether somebody listens, and the request
                connection, _ = listening.accept()
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(RelayError, match="no answer from the process"):
            control_of(stopped).get("/v1/status")
        thread.join()
