"""Network namespaces of Linux, joined by cables: hospitals whose networks are as bad as real ones.

    with namespaces("internet", "hospital") as made:
        made.cable("internet", "hospital", "192.0.2.0/24", "2001:db8::/64")
        ... processes run behind the words of made["hospital"].inside

A namespace has its loopback up, no route but to its own cables, no name server, and in its
/etc/hosts what it was given: `ip netns exec` shows it the files of /etc/netns/NAME as its own.
"""

import ctypes
import ipaddress
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

_NETNS = Path("/etc/netns")

# An address that answers nothing: nobody of the test's namespaces has it, and none has a route.
NO_NAME_SERVER = "nameserver 198.51.100.53\noptions timeout:1 attempts:1\n"

_numbers = itertools.count()

# What stands before a command to run it in a namespace, and then its name.
_EXEC = ("ip", "netns", "exec")

# linux/sched.h, sys/mount.h
_CLONE_NEWNS = 0x0002_0000
_CLONE_NEWNET = 0x4000_0000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SLAVE = 0x8_0000
_MNT_DETACH = 2


class CannotMakeNamespaces(Exception):
    """This machine, or this user, has none to give; holds the reason."""


def ip(*arguments: str, check: bool = True) -> None:
    """Run iproute2's `ip`."""
    program = shutil.which("ip", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if program is None:
        raise CannotMakeNamespaces("no `ip` (Debian: iproute2)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise CannotMakeNamespaces(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@attrs.frozen(slots=True)
class Namespace:
    """One machine, as far as the network goes."""

    name: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What stands before a command to run it in here."""
        return (*_EXEC, self.name)

    def ip(self, *arguments: str) -> None:
        """Run `ip` in here."""
        ip("-n", self.name, *arguments)

    def address(self, address: str) -> None:
        """Have one more address, which the other ends of its cables may route to."""
        self.ip("addr", "add", address, "dev", "lo", *_no_duplicate_detection(address))

    def route(self, via: str, to: str = "default") -> None:
        """Send what is not on a cable to a neighbour."""
        self.ip("route", "add", to, "via", via)

    def names(self, hosts: Mapping[str, str]) -> None:
        """Know these names (name to address), and no others."""
        rows = {"localhost": "127.0.0.1", **hosts}
        text = "".join(f"{address} {name}\n" for name, address in rows.items())
        (_NETNS / self.name / "hosts").write_text(text)

    def setting(self, name: str, value: str) -> None:
        """Write a sysctl of this namespace."""
        subprocess.run(
            [*self.inside, "sh", "-c", f"echo {value} > /proc/sys/net/{name.replace('.', '/')}"],
            check=True,
        )


@attrs.frozen(slots=True)
class Namespaces:
    """What one test has made."""

    prefix: str
    made: dict[str, Namespace] = attrs.field(factory=dict)

    def __getitem__(self, name: str) -> Namespace:
        return self.made[name]

    def add(self, name: str) -> Namespace:
        """A new machine, on no cable."""
        new = Namespace(f"{self.prefix}-{name}")
        ip("netns", "add", new.name)
        self.made[name] = new
        folder = _NETNS / new.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "resolv.conf").write_text(NO_NAME_SERVER)
        new.names({})
        new.ip("link", "set", "lo", "up")
        # A new one forwards if this machine does, as those do that run containers.
        new.setting("ipv4.ip_forward", "0")
        return new

    def cable(self, one: str, other: str, *networks: str) -> None:
        """Join two by a cable. Of each network `one` has the first address, `other` the second."""
        ends = self[one], self[other]
        links = [f"c{next(_numbers)}" for _ in ends]
        ends[0].ip(
            *("link", "add", links[0], "type", "veth"),
            *("peer", "name", links[1], "netns", ends[1].name),
        )
        for number, (end, link) in enumerate(zip(ends, links, strict=True)):
            for text in networks:
                network = ipaddress.ip_network(text)
                address = f"{network[number + 1]}/{network.prefixlen}"
                end.ip("addr", "add", address, "dev", link, *_no_duplicate_detection(address))
            end.ip("link", "set", link, "up")


def _no_duplicate_detection(address: str) -> list[str]:
    """An IPv6 address is tentative for a second otherwise, and cannot be used."""
    return ["nodad"] if ":" in address else []


def named(inside: Sequence[str]) -> str | None:
    """The namespace, where it is all that `inside` stands for."""
    *words, name = inside or ("",)
    return name if tuple(words) == _EXEC else None


def enter(name: str) -> None:
    """Be in this namespace from now on, a process of one thread: as behind `ip netns exec`.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: str, *arguments: object) -> None:
        if getattr(libc, function)(*arguments) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"{function}: {os.strerror(error)}")

    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    call("setns", descriptor, _CLONE_NEWNET)
    os.close(descriptor)
    call("unshare", _CLONE_NEWNS)
    call("mount", b"", b"/", b"none", ctypes.c_ulong(_MS_SLAVE | _MS_REC), None)
    call("umount2", b"/sys", _MNT_DETACH)
    call("mount", name.encode(), b"/sys", b"sysfs", ctypes.c_ulong(0), None)
    for own in (_NETNS / name).iterdir():
        over = bytes(Path("/etc") / own.name)
        call("mount", bytes(own), over, b"none", ctypes.c_ulong(_MS_BIND), None)


@contextmanager
def namespaces(*names: str) -> Iterator[Namespaces]:
    """Make namespaces, and take them away at the end, cables and files included.

    Raises CannotMakeNamespaces. What runs in one must have ended before the block does.
    """
    made = Namespaces(f"relay{os.getpid()}x{next(_numbers)}")
    try:
        for name in names:
            made.add(name)
        yield made
    finally:
        for namespace in made.made.values():
            ip("netns", "delete", namespace.name, check=False)
            shutil.rmtree(_NETNS / namespace.name, ignore_errors=True)
