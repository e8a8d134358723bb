"""Can this machine reach the Bridge, as a Router would? Every way in which that fails, in words.

    proxy's tunnel -> TLS, one request, the clock -> WebSocket

The first and the last are the Router's own code; the request between tells what those cannot.
"""

import ssl
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import httpx
import trio

from relay.cli import output
from relay.config import RouterConfig
from relay.errors import RelayError, SignallingError, connection_fault, leaves
from relay.invitation import Invitation, InvitationInquiry
from relay.providers import Finding
from relay.signalling.dial import BridgeAddress, websocket_dial
from relay.signalling.proxy import PASSWORD_REFUSED, Proxy, authority, connect_through
from relay.web.tls import PRIVATE_AUTHORITY, client_tls

# A person waits for this. A proxy that has to ask another takes a few seconds.
TIMEOUT = 10.0

# Openings are refused at 3 hours (DESIGN §3), a certificate may be refused sooner. Minutes are
# what an NTP client that has stopped leaves behind.
WORRYING_SKEW = 120.0
# What is measured is no better: a Date has whole seconds (RFC 9110 §5.6.7), and either may be any
# part of one behind; half of what the request took comes to that.
VISIBLE_SKEW = 3.0

NEEDS_PROXY = "if the way out of this hospital is a proxy, give it as `proxy` in relay.toml"
# What is said of an invitation, and where its Bridge does not say whether it is open.
INVITATION = "the invitation"
NOT_TOLD = "whether the invitation is open still is not known"

# What reading it raises, where something else than a Bridge has answered: no JSON, not these
# fields, or a time that no calendar has.
_NO_ANSWER_OF_OURS = (ValueError, LookupError, TypeError, ArithmeticError, OSError, RecursionError)

INCOMPLETE_CHAIN = (
    ", and if it comes from a public one, have the Bridge send the authority's own certificates"
    " too (fullchain.pem)"
)


async def bridge(
    url: str, *, proxy: str | None, ca_file: Path | None, hint: str = ""
) -> AsyncIterator[Finding]:
    """The way to the Bridge at `url`: proxy, TLS, answer, whether the clocks agree, WebSocket.

    `hint` is said as well where nothing comes back from there.
    """
    try:
        context = client_tls(ca_file)
    except RelayError as error:
        yield Finding("ca_file", False, str(error))
        return
    if proxy is not None:
        tunnel = await _tunnel(url, proxy)
        yield tunnel
        if not tunnel.ok:
            return
    reached = True
    async for finding in _request(url, proxy, context, hint):
        yield finding
        reached = reached and finding.ok
    # What hangs is said once: without an answer there is no WebSocket either.
    if reached:
        yield await _websocket(url, proxy, context)


async def of_router(url: str, config: RouterConfig) -> AsyncIterator[Finding]:
    """`bridge`, the way this Router goes."""
    proxy = config.proxy.reveal() if config.proxy else None
    hint = NEEDS_PROXY if proxy is None else ""
    async for finding in bridge(url, proxy=proxy, ca_file=config.ca_file, hint=hint):
        yield attrs.evolve(finding, advice=with_source(finding.advice, config))


async def invitation(invited: Invitation, config: RouterConfig) -> Finding:
    """What its Bridge says of an invitation, which is not used up by that."""
    url = f"{invited.url.rstrip('/')}/v1/enrolments/inquiry"
    try:
        # In all: httpx waits so long for each piece of an answer, whoever sends them.
        with trio.fail_after(TIMEOUT):
            async with httpx.AsyncClient(
                verify=client_tls(config.ca_file),
                proxy=config.proxy.reveal() if config.proxy else None,
                timeout=TIMEOUT,
                trust_env=False,
            ) as client:
                answer = await client.post(url, content=InvitationInquiry.of(invited).pack())
        said = answer.json()
        if answer.status_code == HTTPStatus.FORBIDDEN:
            return Finding(INVITATION, False, str(said["error"]))
        answer.raise_for_status()
        until = output.local_time(said["expires"])
        return Finding(f"{INVITATION} is open, for {said['name']}, until {until}", True)
    except (RelayError, httpx.HTTPError, trio.TooSlowError, *_NO_ANSWER_OF_OURS) as error:
        return Finding(
            NOT_TOLD,
            True,
            f"`relay enroll` shows it ({_why_not_told(error)})",
        )


def with_source(words: str, config: RouterConfig) -> str:
    """`words`, and where `proxy` is kept if the proxy does not take its password."""
    if config.proxy is None or not config.proxy.source or PASSWORD_REFUSED not in words:
        return words
    return f"{words}; `proxy` is what {config.proxy.source} holds"


def clock(skew: float) -> Finding:
    """Whether our clock, `skew` seconds ahead of the Bridge's, agrees with it."""
    if abs(skew) < VISIBLE_SKEW:
        return Finding("clock agrees with the Bridge's", True)
    if abs(skew) < WORRYING_SKEW:
        words = f"clock differs from the Bridge's by {abs(skew):.0f} s, which does no harm"
        return Finding(words, True)
    far = f"{abs(skew) / 3600:.1f} hours" if abs(skew) >= 3600 else f"{abs(skew) / 60:.0f} minutes"
    way = "ahead of" if skew > 0 else "behind"
    return Finding(
        f"clock is {far} {way} the Bridge's",
        False,
        "set up NTP on the machine that is wrong (timedatectl shows it):"
        " systemctl enable --now systemd-timesyncd; at three hours nothing is relayed any more",
    )


# --- the three looks ----------------------------------------------------------------------------


async def _tunnel(url: str, proxy: str) -> Finding:
    """Whether the proxy connects to the Bridge's host, whose name it looks up itself."""
    try:
        address, way_out = BridgeAddress.parse(url), Proxy.parse(proxy)
    except SignallingError as error:
        return Finding("proxy", False, str(error))
    target = authority(address.host, address.port)
    what = f"{way_out} makes a tunnel to {target}"
    with trio.move_on_after(TIMEOUT):
        try:
            stream = await trio.open_tcp_stream(way_out.host, way_out.port)
        except (OSError, UnicodeError) as error:
            why = _why(error, way_out.host)
            return Finding(what, False, f"{why}: is `proxy` the right host and port?")
        try:
            await connect_through(way_out, stream, address.host, address.port)
        except SignallingError as error:
            return Finding(what, False, str(error).removeprefix(f"{way_out}: "))
        finally:
            await trio.aclose_forcefully(stream)
        return Finding(what, True)
    return Finding(
        what,
        False,
        f"no answer in {TIMEOUT:.0f} s: is `proxy` the right host and port, and does it know"
        f" {address.host}?",
    )


async def _request(
    url: str, proxy: str | None, context: ssl.SSLContext, hint: str
) -> AsyncIterator[Finding]:
    host = urlsplit(url).hostname
    way = f"Bridge {url}"
    further = f"; {hint}" if hint else ""
    try:
        async with httpx.AsyncClient(
            verify=context, proxy=proxy, timeout=TIMEOUT, trust_env=False
        ) as client:
            started = time.time()
            answer = await client.get(f"{url}/healthz")
            middle = (started + time.time()) / 2
    except httpx.ProxyError as error:
        yield Finding(way, False, f"the proxy refuses: {error}")
    except httpx.TimeoutException:
        yield Finding(
            way,
            False,
            f"no answer in {TIMEOUT:.0f} s: does the firewall let HTTPS to {host} out?{further}",
        )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        yield Finding(way, False, _why(error, str(host)) + ("" if _answered(error) else further))
    else:
        yield _health(way, answer)
        for finding in _clock(answer, middle):
            yield finding


async def _websocket(url: str, proxy: str | None, context: ssl.SSLContext) -> Finding:
    """Proxies and firewalls that let requests through do not always let this."""
    what, why = "its WebSocket opens", ""
    with trio.move_on_after(TIMEOUT):
        try:
            dial = websocket_dial(url, ssl_context=context, proxy=proxy)
            async with trio.open_nursery() as nursery:
                await dial(nursery)
                nursery.cancel_scope.cancel()
        except* SignallingError as group:
            why = str(next(leaves(group)))
        return Finding(what, not why, why)
    return Finding(
        what,
        False,
        f"no answer to the upgrade in {TIMEOUT:.0f} s: does a proxy or firewall in between not let"
        " WebSockets through?",
    )


def _health(way: str, answer: httpx.Response) -> Finding:
    if answer.is_success and _says_ok(answer):
        return Finding(f"{way} answers", True)
    if answer.is_success:
        kind = answer.headers.get("content-type", "nothing known").partition(";")[0]
        return Finding(
            way,
            False,
            f"what answers is no Bridge ({kind}): a login or block page in between, or another"
            " address than the Bridge's",
        )
    if answer.is_redirect:
        where = answer.next_request.url.host if answer.next_request is not None else "elsewhere"
        return Finding(
            way, False, f"it is sent on to {where}: a login page in between, or another address"
        )
    return Finding(
        way,
        False,
        f"/healthz is answered {answer.status_code}: is something else at this address, or is a"
        " reverse proxy there without its Bridge?",
    )


def _says_ok(answer: httpx.Response) -> bool:
    try:
        said = answer.json()
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("status") == "ok"


def _clock(answer: httpx.Response, now: float) -> Iterator[Finding]:
    try:
        there = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return  # a proxy in between has taken it out; nothing can be said
    yield clock(now - there)


def _why_not_told(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"the Bridge answers {error.response.status_code}: is it older than this Router?"
    if isinstance(error, trio.TooSlowError):
        return f"no answer in {TIMEOUT:.0f} s"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _answered(error: BaseException) -> bool:
    """Whether something has come back, of which TLS says that it is wrong."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _why(error: Exception, host: str) -> str:
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return connection_fault(error, host, PRIVATE_AUTHORITY + INCOMPLETE_CHAIN) or words
