"""Templates are strict, and static files lie under names that change with them."""

import re
from importlib.resources import files

import httpx
import pytest
from jinja2 import UndefinedError
from starlette.applications import Starlette

from relay.pages.rendering import Rendering

STATIC = files("relay.pages") / "static"


@pytest.fixture
def rendering() -> Rendering:
    return Rendering("relay.pages")


def test_what_is_missing_is_an_error(rendering: Rendering) -> None:
    with pytest.raises(UndefinedError):
        rendering.render("error.html", {"who": None})


async def test_static_files(rendering: Rendering) -> None:
    transport = httpx.ASGITransport(Starlette(routes=rendering.routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for name, media in (
            ("relay.css", "text/css; charset=utf-8"),
            ("relay.js", "text/javascript; charset=utf-8"),
            ("relay.svg", "image/svg+xml"),
        ):
            url = rendering.static(name)
            answer = await client.get(url)
            assert answer.content == (STATIC / name).read_bytes()
            assert answer.headers["content-type"] == media
            assert "immutable" in answer.headers["cache-control"]
            old = await client.get(re.sub(r"/static/\w+/", "/static/0/", url))
            assert old.headers["cache-control"] == "no-store"
    with pytest.raises(KeyError):
        rendering.static("../site.py")


@pytest.mark.parametrize("package", ["relay.pages", "relay.router.pages", "relay.bridge.pages"])
def test_no_page_needs_more_than_the_policy_allows(package: str) -> None:
    """No inline script or style, no handler, and nothing of another host."""
    for template in (files(package) / "templates").iterdir():
        text = template.read_text()
        assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:", text), template.name
        assert not re.search(r"<script(?![^>]* src=)", text), template.name
        assert not re.search(r"(?:src|href|action)=[\"']?(?:https?:)?//", text), template.name
        # What a fragment of ours is stands as it is by itself.
        assert not re.search(r"\|\s*safe", text), template.name


def test_the_style_sheet_and_the_script_ask_nobody() -> None:
    css, js = (STATIC / "relay.css").read_text(), (STATIC / "relay.js").read_text()
    assert not re.search(r"url\(|@import|https?:", css)
    assert not re.search(r"https?:|eval\(|fetch\(", js)
    assert js.count("\n") < 300


@pytest.mark.parametrize("package", ["relay.pages", "relay.router.pages", "relay.bridge.pages"])
def test_every_form_that_changes_something_has_its_token(package: str) -> None:
    for template in (files(package) / "templates").iterdir():
        for form in re.findall(
            r'<form[^>]*method="post".*?</form>', template.read_text(), re.DOTALL
        ):
            assert "token()" in form or 'action="/sign-in"' in form, template.name
