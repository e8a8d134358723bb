"""A hospital's NAT, as a process of its own: masquerades TCP over IPv4, and lets nothing else in.

    nat.py INSIDE OUTSIDE PUBLIC_ADDRESS [--forget SECONDS]

It makes a TUN device `nat` in both network namespaces and carries packets from one to the other.
Only what begins inside, with a SYN, may pass. A connection that is silent for longer than
`--forget` is forgotten as firewalls do it: nobody is told, and its packets come through no more.
It says on stdout, a line each, what it has forgotten (`forgot host:port`).

A process, since neither nft nor iptables is everywhere where network namespaces are.
"""

import argparse
import ctypes
import fcntl
import ipaddress
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

# linux/if_tun.h, linux/sched.h
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000

TCP = 6
SYN, ACK = 0x02, 0x10
LARGEST_PACKET = 65535
FIRST_PORT = 40000

Endpoint = tuple[bytes, int]  # an IPv4 address as it stands in the packet, and a port


@attrs.define
class Flow:
    """One connection from inside."""

    inside: Endpoint
    outside: Endpoint
    port: int  # ours
    last: float


@attrs.define
class NAT:
    """The table of connections."""

    public: bytes
    forget: float
    flows: list[Flow] = attrs.field(factory=list)
    port: int = FIRST_PORT

    def outward(self, packet: bytearray) -> bool:
        """Whether a packet from inside passes; its source is then ours."""
        source, target, flags = _endpoints(packet)
        flow = self._find(lambda flow: (flow.inside, flow.outside) == (source, target))
        if flow is None:
            if flags & (SYN | ACK) != SYN:
                return False
            flow = Flow(source, target, self.port, time.monotonic())
            self.port += 1
            self.flows.append(flow)
        _rewrite(packet, 12, 0, (self.public, flow.port))
        return True

    def inward(self, packet: bytearray) -> bool:
        """Whether a packet from outside passes; it goes to whom it answers."""
        source, target, _ = _endpoints(packet)
        flow = self._find(lambda flow: ((self.public, flow.port), flow.outside) == (target, source))
        if flow is None:
            return False
        _rewrite(packet, 16, 2, flow.inside)
        return True

    def _find(self, matches: Callable[[Flow], bool]) -> Flow | None:
        now = time.monotonic()
        for flow in [flow for flow in self.flows if now - flow.last > self.forget]:
            self.flows.remove(flow)
            host, port = flow.outside
            print(f"forgot {ipaddress.IPv4Address(host)}:{port}", flush=True)
        for flow in self.flows:
            if matches(flow):
                flow.last = now
                return flow
        return None


def _endpoints(packet: bytearray) -> tuple[Endpoint, Endpoint, int]:
    """Source, target and flags of a TCP segment (RFC 791 §3.1, RFC 9293 §3.1)."""
    start = (packet[0] & 0x0F) * 4
    source_port, target_port = struct.unpack_from("!HH", packet, start)
    return (
        (bytes(packet[12:16]), source_port),
        (bytes(packet[16:20]), target_port),
        packet[start + 13],
    )


def _rewrite(packet: bytearray, address_at: int, port_at: int, endpoint: Endpoint) -> None:
    """Put another address and port in, and make both checksums right again."""
    start = (packet[0] & 0x0F) * 4
    packet[address_at : address_at + 4] = endpoint[0]
    struct.pack_into("!H", packet, start + port_at, endpoint[1])
    packet[10:12] = packet[start + 16 : start + 18] = bytes(2)
    packet[10:12] = _checksum(packet[:start])
    pseudo = packet[12:20] + struct.pack("!HH", TCP, len(packet) - start)
    packet[start + 16 : start + 18] = _checksum(pseudo + packet[start:])


def _checksum(data: bytes | bytearray) -> bytes:
    """The Internet checksum (RFC 1071): the complement of the ones' complement sum."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def tunnel(namespace: str) -> int:
    """A new TUN device `nat` in a network namespace; this process is in that one then."""
    libc = ctypes.CDLL(None, use_errno=True)
    there = os.open(Path("/var/run/netns") / namespace, os.O_RDONLY)
    if libc.setns(there, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns {namespace}")
    os.close(there)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"nat", IFF_TUN | IFF_NO_PI))
    return device


async def carry(source: int, sink: int, passes: Callable[[bytearray], bool]) -> None:
    while True:
        await trio.lowlevel.wait_readable(source)
        packet = bytearray(os.read(source, LARGEST_PACKET))
        if packet[0] >> 4 == 4 and packet[9] == TCP and passes(packet):
            os.write(sink, packet)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("inside")
    parser.add_argument("outside")
    parser.add_argument("public", type=ipaddress.IPv4Address)
    parser.add_argument("--forget", type=float, default=float("inf"))
    given = parser.parse_args()
    nat = NAT(given.public.packed, given.forget)
    inside, outside = tunnel(given.inside), tunnel(given.outside)
    print("ready", flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry, inside, outside, nat.outward)
        nursery.start_soon(carry, outside, inside, nat.inward)


if __name__ == "__main__":
    trio.run(main)
