"""By which names the pages may be asked for, and where a request comes from.

A page elsewhere can have a name of its own lead to this machine (DNS rebinding), and a browser then
takes that page and ours for one. So a Host that is not listed is refused (421), and what changes
something must come from a page of this very origin.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address

import attrs
from starlette.datastructures import Headers

from relay.errors import Refused

LOOPBACK_NAME = "localhost"

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z.-]{1,253}))(?::[0-9]{1,5})?")


@attrs.frozen(slots=True)
class Hosts:
    """`names` are lower case. `tls`: this process itself serves them over TLS.

    Without `tls`, `names` are those of a reverse proxy that does: whoever is not on this machine
    reaches the pages over https alone. `loopback`: this machine's own names are taken, too, from
    any port (an SSH tunnel has one of its own). `forwarded`: every request comes by a proxy.
    """

    names: frozenset[str]
    tls: bool = False
    loopback: bool = True
    forwarded: bool = False

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        *,
        tls: bool = False,
        loopback: bool = True,
        forwarded: bool = False,
    ) -> "Hosts":
        return cls(frozenset(name.lower().rstrip(".") for name in names), tls, loopback, forwarded)

    def scheme(self, host: str) -> str:
        """How a browser reaches this Host header's name. Raises Refused (421)."""
        name = _name(host)
        if name in self.names:
            return "https"
        if self.loopback and is_loopback(name):
            return "https" if self.tls else "http"
        raise Refused(
            421,
            "these pages are not served by the name in your browser's address line: use one of"
            " theirs, or list it in `hosts` of the configuration",
        )

    def origin(self, headers: Headers) -> str:
        """The origin by which this request's browser knows the pages. Raises Refused (421)."""
        host = headers.get("host", "")
        return f"{self.scheme(host)}://{host.lower()}"

    def check_same_origin(self, headers: Headers) -> None:
        """That a page of ours has sent it. Raises Refused (403)."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is None and origin is None:
            raise Refused(403, "the browser does not say which page sent this: use a newer one")
        if site is not None and site != "same-origin":
            raise Refused(403, "another site's page has sent this: nothing was changed")
        if origin is not None and origin.lower() != self.origin(headers):
            raise Refused(
                403,
                "another origin's page has sent this: nothing was changed. Behind a reverse proxy,"
                " it has to pass the Host header on and to be reached over https",
            )

    def address(self, headers: Headers, client: tuple[str, int] | None) -> str:
        """Who asks: the peer, or whom a proxy of ours names last in X-Forwarded-For."""
        peer = client[0] if client else ""
        named = _name(headers.get("host", ""))
        behind = self.forwarded or (not self.tls and is_loopback(peer) and named in self.names)
        if not behind:
            return peer
        last = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        try:
            return str(ip_address(last))
        except ValueError:
            return peer


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host == LOOPBACK_NAME:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_own_name(host: str) -> bool:
    """Whether a Host header names this machine as only itself does."""
    return is_loopback(_name(host))


def _name(host: str) -> str:
    """The name in a Host header (RFC 9110 §7.2), in lower case; empty where it is none.

    Strict, for libraries make a URL of it: "relay/sign-in?" before a path would be another path.
    """
    match = _HOST.fullmatch(host)
    return (match[1] or match[2]).lower().rstrip(".") if match is not None else ""
