"""Telling the hospital's own alerting what is wrong: one JSON object, by POST, for each change.

One task, one post at a time, in order. What it cannot get rid of never holds anything up: posts
wait in a bounded line that loses its oldest, each has its deadline and its few tries. The URL is
often all that protects the place that it names, so that no log line holds more of it than the host.
"""

import ssl
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
import trio

from relay.errors import connection_fault
from relay.router.queue.pauses import Pauses
from relay.tunnel.store import TRANSIENT_STATUSES
from relay.web.tls import PRIVATE_AUTHORITY

log = structlog.get_logger()

# From the connection to the answer's headers; an alerting system that is slower is down.
DEADLINE = 10.0
# A restart of theirs is bridged; what is down for longer finds the warnings on our page.
TRIES = 3
PAUSES = Pauses(first=2.0, factor=4.0, cap=30.0)
# Of what a proxy says against it, how much is told on.
MAXIMUM_WORDS = 80
# Warnings come by the handful. More than this wait only where the other end takes nothing.
MAXIMUM_WAITING = 256


class Webhook:
    """Posts to `url`; `ssl_context` and `proxy` are those of everything that goes outside."""

    def __init__(
        self,
        url: str,
        *,
        ssl_context: ssl.SSLContext,
        proxy: str | None,
        deadline: float = DEADLINE,
        pauses: Pauses = PAUSES,
    ) -> None:
        self._url = url
        self._host = urlsplit(url).hostname or "?"
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._deadline = deadline
        self._pauses = pauses
        self._waiting: deque[dict[str, Any]] = deque()
        self._filled = trio.Event()
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many posts never arrived, as far as we know: refused, or dropped from the line."""
        return self._failures

    def post(self, body: Mapping[str, Any]) -> None:
        """Put `body` in line. Never waits: the oldest in line gives way."""
        if len(self._waiting) >= MAXIMUM_WAITING:
            dropped = self._waiting.popleft()
            self._failed(dropped, f"more than {MAXIMUM_WAITING} posts wait")
        self._waiting.append(dict(body))
        self._filled.set()

    async def run(self) -> None:
        """Post what is in line, for ever. What fails is logged and counted."""
        while True:
            await self._filled.wait()
            while self._waiting:
                body = self._waiting.popleft()
                why = await self._deliver(body)
                if why is not None:
                    self._failed(body, why)
            self._filled = trio.Event()

    def _failed(self, body: Mapping[str, Any], why: str) -> None:
        self._failures += 1
        log.warning(
            "webhook failed",
            host=self._host,
            warning=body.get("warning"),
            state=body.get("state"),
            why=why,
        )

    async def _deliver(self, body: Mapping[str, Any]) -> str | None:
        """None once it has arrived; else why it has not, after all tries."""
        failures = 0
        while True:
            why, again = await self._try(body)
            failures += 1
            if why is None or not again or failures == TRIES:
                return why
            await trio.sleep(self._pauses.next(failures))

    async def _try(self, body: Mapping[str, Any]) -> tuple[str | None, bool]:
        """What went wrong, and whether another try may help."""
        try:
            with trio.fail_after(self._deadline):
                status = await self._post(body)
        except (trio.TooSlowError, httpx.TimeoutException):
            return f"no answer in {self._deadline:g} s", True
        except httpx.ProxyError as error:
            return f"the proxy refuses: {str(error)[:MAXIMUM_WORDS]}", True
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            # Not the library's own words: they may quote the URL.
            fault = connection_fault(error, self._host, PRIVATE_AUTHORITY)
            return fault or type(error).__name__, isinstance(error, httpx.TransportError)
        if httpx.codes.is_success(status):
            return None, False
        if httpx.codes.is_redirect(status):
            return f"HTTP {status}, a redirect: give the URL that it leads to", False
        return f"HTTP {status}", status in TRANSIENT_STATUSES

    async def _post(self, body: Mapping[str, Any]) -> int:
        """The status of the answer, of which no more is read. Raises what httpx raises."""
        async with (
            # A new one for each: no connection to keep for a post a day, no cookies.
            httpx.AsyncClient(
                verify=self._ssl_context,
                proxy=self._proxy,
                timeout=None,  # there is one deadline for all of it
                follow_redirects=False,
                trust_env=False,
            ) as client,
            client.stream("POST", self._url, json=body) as response,
        ):
            return response.status_code
