"""The line of the benchmark over distance is never better than it was asked to be."""

import hashlib
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from scripts.benchmark.links import Line, Link, checked, laid, netem
from tests.namespaces import CannotMakeNamespaces
from tests.network import START_DEADLINE

# Writes what one connection brings to a file.
TAKE = """
import socket, sys
with socket.create_server(("0.0.0.0", 9000)) as server, open(sys.argv[1], "wb") as file:
    print("ready", flush=True)
    connection, _ = server.accept()
    while data := connection.recv(1 << 16):
        file.write(data)
"""
GIVE = """
import socket, sys
with socket.create_connection((sys.argv[1], 9000)) as connection:
    connection.sendall(open(sys.argv[2], "rb").read())
"""


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("loopback", Link()),
        ("100ms-1000M", Link(100, 1000)),
        ("100ms-1000M-0.1%", Link(100, 1000, 1000)),
    ],
)
def test_a_link_has_a_name(name: str, link: Link) -> None:
    assert link.name == name
    assert Link.named(name) == link


@pytest.mark.parametrize("name", ["100ms", "100-1000", "1000M-100ms", ""])
def test_what_is_no_name_of_a_link(name: str) -> None:
    with pytest.raises(ValueError, match="no link"):
        Link.named(name)


def test_a_quarter_of_the_round_trip_on_each_leg_and_way() -> None:
    assert Link(100, 1000).one_way == 25_000


def test_the_queue_holds_what_is_under_way_in_a_round_trip() -> None:
    assert Link(100, 1000).queue == 12_500_000
    assert Link(20, 100).queue == 1_000_000


def test_netem_is_told_the_same() -> None:
    words = " ".join(netem(Link(100, 1000, 1000), "leg"))
    assert words.startswith("qdisc add dev leg root netem delay 25000us rate 1000mbit loss 0.05%")
    # the queue, and what is between the ends
    assert words.endswith(f"limit {(12_500_000 + 3_125_000) // 1500}")


async def carry(line: Line, directory: Path, size: int) -> None:
    """Some bytes from A to B, which arrive as they are."""
    sent, came = directory / "sent", directory / "came"
    sent.write_bytes(hashlib.shake_256(b"seed").digest(size))
    with trio.fail_after(START_DEADLINE):
        async with trio.open_nursery() as nursery:
            words = [*line.b.inside, sys.executable, "-c", TAKE, str(came)]
            taker: trio.Process = await nursery.start(
                partial(trio.run_process, words, stdout=subprocess.PIPE)
            )
            assert taker.stdout is not None
            await taker.stdout.receive_some()
            done = await line.a.run(sys.executable, "-c", GIVE, line.b.address, str(sent))
            done.check()
    assert came.read_bytes() == sent.read_bytes()


@pytest.mark.parametrize("loss", [0, 20_000])
async def test_a_line_carries_what_it_is_given(tmp_path: Path, loss: int) -> None:
    """In large segments, and with loss packet by packet."""
    try:
        async with laid(Link(20, 100, loss), tmp_path) as line:
            await carry(line, tmp_path, 2_000_000)
    except CannotMakeNamespaces as error:
        pytest.skip(str(error))


async def test_a_line_is_no_faster_than_asked(tmp_path: Path) -> None:
    try:
        async with laid(Link(40, 20), tmp_path) as line:
            found = await checked(line, tmp_path)
    except CannotMakeNamespaces as error:
        pytest.skip(str(error))
    assert found.get("ping", 40) >= 40
    assert found.get("iperf3", 0) <= 20 * 1.05  # it looks at its clock a little late


async def test_nothing_comes_over_a_line_that_loses_all(tmp_path: Path) -> None:
    try:
        async with laid(Link(20, 100, 2_000_000), tmp_path) as line:
            done = await line.a.run("ping", "-c", "3", "-i", "0.1", "-W", "1", line.b.address)
    except CannotMakeNamespaces as error:
        pytest.skip(str(error))
    assert done.status != 0
