"""A person at a browser: Debian's Chromium, driven by Playwright in a thread of its own.

    async with chromium() as running:
        person = await running.person()
        await person.do(lambda page: page.goto(url))

Playwright's plain interface belongs to one thread and waits there; trio's loop goes on meanwhile,
and what the thread waits for is bounded by PATIENCE. Nothing may leave this host: each request that
would is noted in `strangers`, and stopped. So is noted what the browser's console complains of.
"""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
import pytest
import trio
from PIL import Image
from playwright.sync_api import Browser, Page, Playwright, Route, ViewportSize, sync_playwright

from relay.workers import Workers

T = TypeVar("T")

CHROMIUM = shutil.which("chromium")

# Of one wait for what a page is to show, in milliseconds, on a busy machine of two cores.
PATIENCE = 15_000

# What is on this host.
HERE = ("127.0.0.1", "localhost", "::1")

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
TELEPHONE: ViewportSize = {"width": 390, "height": 844}

# Of a picture of a page: what text, its edges and a few signs have.
COLOURS = 64

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@attrs.define(slots=False, eq=False)  # Playwright leaves its marks on who listens
class Person:
    """One page, with cookies of its own."""

    workers: Workers
    page: Page
    strangers: list[str] = attrs.field(factory=list)
    complaints: list[str] = attrs.field(factory=list)

    async def do(self, steps: Callable[[Page], T]) -> T:
        """What `steps`, in the browser's thread, gives."""
        return await self.workers.run(partial(steps, self.page))

    def watch(self) -> None:
        """Note what is asked of other hosts, and what the console says of this page."""
        self.page.set_default_timeout(PATIENCE)
        self.page.context.route("**/*", self._let_through)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _let_through(self, route: Route) -> None:
        if urlsplit(route.request.url).hostname in HERE:
            route.continue_()
        else:
            self.strangers.append(route.request.url)
            route.abort()

    def _hear(self, message: Any) -> None:
        # A status of 400 and above is an answer like any other: tests look at what it shows.
        if message.type == "error" and "the server responded with a status" not in message.text:
            self.complaints.append(message.text)


@attrs.frozen(slots=True)
class Chromium:
    """A browser that runs."""

    workers: Workers
    playwright: Playwright
    browser: Browser

    async def person(
        self, *, dark: bool = False, size: ViewportSize | None = None, script: bool = True
    ) -> Person:
        """Somebody who sits down before it, without a past. `script` False: theirs runs no
        JavaScript."""

        def sit_down() -> Person:
            context = self.browser.new_context(
                viewport=size or DESKTOP,
                color_scheme="dark" if dark else "light",
                java_script_enabled=script,
                ignore_https_errors=True,  # the authority of a test is nobody's
                reduced_motion="reduce",
                service_workers="block",
            )
            person = Person(self.workers, context.new_page())
            person.watch()
            return person

        return await self.workers.run(sit_down)


@asynccontextmanager
async def chromium() -> AsyncIterator[Chromium]:
    """A browser, until the end of the block."""
    workers = Workers(1)

    def begin() -> Chromium:
        playwright = sync_playwright().start()
        # Without its sandbox: tests may be run by root, for whom it has none.
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        return Chromium(workers, playwright, launched)

    running = await workers.run(begin)

    def end() -> None:
        running.browser.close()
        running.playwright.stop()

    try:
        yield running
    finally:
        with trio.CancelScope(shield=True):
            await workers.run(end)
        workers.close()


def screenshot(page: Page, folder: Path, name: str) -> None:
    """The whole page as it is now, as a PNG file of few colours: a quarter of the size."""
    picture = page.screenshot(full_page=True, animations="disabled")
    folder.mkdir(parents=True, exist_ok=True)
    Image.open(BytesIO(picture)).convert("RGB").quantize(COLOURS).save(folder / f"{name}.png")
