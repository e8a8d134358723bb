"""Which addresses a Router speaks to when the Bridge gives it a URL: none inside the hospital.

DESIGN §3, "Stores": never loopback, link-local or private addresses unless the configuration lists
their origin. The Bridge could else make a Router knock at its neighbours' doors.
"""

import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable
from typing import Any

import trio

from relay.errors import ProviderError
from relay.tunnel.connections import NoAnswer

# TCP to one address, so that a blackholed one leaves time for the next.
ADDRESS_TIMEOUT = 4.0

NOT_PUBLIC = "address is not public and not in allowed_origins"

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
# IPv6 addresses of the open internet (RFC 4291 §2.4, IANA): site-local, IPv4-compatible and local
# NAT64 ones lie outside.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits


def is_public(address: IPAddress) -> bool:
    """Whether `address` is one of the open internet: not loopback, link-local or private.

    An IPv6 address that leads to an IPv4 one counts as that (mapped, NAT64, 6to4, Teredo).
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner: IPAddress | None = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inner = address.teredo[1]
        elif address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast


def literal(host: str) -> list[IPAddress]:
    """The address that `host` is in any notation ("127.1", "0x7f.1"); none if it is a name."""
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return []
    return _addresses(rows)


def _addresses(rows: Iterable[Any]) -> list[IPAddress]:
    """The addresses in what getaddrinfo gives, without IPv6 scopes."""
    return [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in rows]


class Guard:
    """Looks names up, and connects to nothing but an address that was checked.

    Since it connects to the very address that it has checked, a name has no second look-up in
    which to turn into another (DNS rebinding). TLS still checks the name.
    """

    def __init__(
        self, allowed: Collection[tuple[str, int]], permitted: Callable[[IPAddress], bool]
    ) -> None:
        self._allowed = allowed
        self._permitted = permitted

    async def connect(self, host: str, port: int, timeout: float) -> trio.SocketStream:
        """A connection to the first of `host`'s addresses that answers, within `timeout` seconds.

        Raises ProviderError where one of them may not be spoken to, else NoAnswer.
        """
        if (host, port) in self._allowed:
            return await connect_tcp(host, port, timeout)
        failure = NoAnswer("ConnectTimeout")
        with trio.move_on_after(timeout):
            for address in await self._resolve(host, port):
                try:
                    return await connect_tcp(str(address), port, ADDRESS_TIMEOUT)
                except NoAnswer as error:
                    failure = error
        raise failure

    async def _resolve(self, host: str, port: int) -> list[IPAddress]:
        try:
            rows = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NoAnswer("ConnectError") from error
        addresses = _addresses(rows)
        if not all(map(self._permitted, addresses)):
            raise ProviderError(f"{host}: {NOT_PUBLIC}", permanent=True)
        # One at a time is tried, and hospitals' IPv6 is often a black hole: IPv4 first.
        return sorted(addresses, key=lambda address: address.version)


async def connect_tcp(host: str, port: int, timeout: float) -> trio.SocketStream:
    """A connection to `host` within `timeout` seconds, whatever its address. Raises NoAnswer."""
    try:
        with trio.fail_after(timeout):
            return await trio.open_tcp_stream(host, port)
    except trio.TooSlowError as error:
        raise NoAnswer("ConnectTimeout") from error
    except OSError as error:
        raise NoAnswer("ConnectError") from error
