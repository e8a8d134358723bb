"""Can this machine reach the Bridge? One request, and every way in which it fails, in words."""

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from relay.config import RouterConfig
from relay.errors import RelayError, connection_fault
from relay.providers import Finding
from relay.web.tls import PRIVATE_AUTHORITY, client_tls

# A person waits for this. A proxy that has to ask another takes a few seconds.
TIMEOUT = 10.0

# Openings are refused at 3 hours (DESIGN §3), a certificate may be refused sooner. Minutes are
# what an NTP client that has stopped leaves behind.
WORRYING_SKEW = 120.0


def bridge(url: str, *, proxy: str | None, ca_file: Path | None) -> Iterator[Finding]:
    """The way to the Bridge at `url`: proxy, TLS, answer, and whether the clocks agree."""
    host = urlsplit(url).hostname
    way = f"Bridge {url}" + (f" through the proxy {_shown(proxy)}" if proxy else "")
    try:
        context = client_tls(ca_file)
    except RelayError as error:
        yield Finding("ca_file", False, str(error))
        return
    try:
        with httpx.Client(verify=context, proxy=proxy, timeout=TIMEOUT, trust_env=False) as client:
            started = time.time()
            answer = client.get(f"{url}/healthz")
            middle = (started + time.time()) / 2
    except httpx.ProxyError as error:
        yield Finding(way, False, f"the proxy refuses: {error}; check its address and password")
    except httpx.TimeoutException:
        yield Finding(
            way, False, f"no answer in {TIMEOUT:.0f} s: does the firewall let HTTPS to {host} out?"
        )
    except httpx.TransportError as error:
        yield Finding(way, False, _why(error, str(host)))
    else:
        yield _health(way, answer)
        yield from _clock(answer, middle)


def of_router(url: str, config: RouterConfig) -> Iterator[Finding]:
    """`bridge`, the way this Router goes."""
    return bridge(
        url, proxy=config.proxy.reveal() if config.proxy else None, ca_file=config.ca_file
    )


def _health(way: str, answer: httpx.Response) -> Finding:
    if answer.is_success:
        return Finding(f"{way} answers", True)
    return Finding(
        way,
        False,
        f"/healthz is answered {answer.status_code}: is something else at this address?",
    )


def _clock(answer: httpx.Response, now: float) -> Iterator[Finding]:
    try:
        there = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return  # a proxy in between has taken it out; nothing can be said
    skew = now - there
    words = f"clock differs from the Bridge's by {abs(skew):.0f} s"
    fine = abs(skew) < WORRYING_SKEW
    yield Finding(
        words, fine, "" if fine else "set up NTP: systemctl enable --now systemd-timesyncd"
    )


def _why(error: Exception, host: str) -> str:
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return connection_fault(error, host, PRIVATE_AUTHORITY) or words


def _shown(proxy: str) -> str:
    """The proxy without its password."""
    parts = urlsplit(proxy)
    return f"{parts.hostname}:{parts.port or 80}"
