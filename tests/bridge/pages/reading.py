"""A page read as a browser reads it, and held to how pages are made."""

import json
from html.parser import HTMLParser

import trio
from starlette.types import ASGIApp, Message

_VOID = {"meta", "link", "input", "br", "hr", "img", "line", "polyline", "polygon", "path"}
_WITHIN_A_LINE = {"bdi", "a", "span", "strong", "code", "time"}
# What the policy would not run, or what only a text from elsewhere could have brought in.
_NO_ATTRIBUTES = ("style", "onclick", "onmouseover", "onload", "onerror", "onsubmit")


class Page(HTMLParser):
    """Raises AssertionError for markup that nobody closes, inline code, a doubled id, or a field
    without a label."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.text = ""
        self.forms: list[dict[str, str]] = []
        self.fields: dict[str, str] = {}
        self.links: list[str] = []
        self.headings: list[str] = []
        self.alerts: list[str] = []
        self._open: list[tuple[str, dict[str, str]]] = []
        self._ids: list[str] = []
        self._labels: list[str] = []
        self._labelled: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, self._open
        assert len(set(self._ids)) == len(self._ids), sorted(self._ids)
        assert set(self._labelled) <= set(self._labels), (self._labelled, self._labels)
        assert "<script>alert" not in html
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        assert not [name for name in given if name in _NO_ATTRIBUTES], (tag, given)
        assert tag != "script" or given.get("src", "").startswith("/static/")
        if "id" in given:
            self._ids.append(given["id"])
        match tag:
            case "form":
                self.forms.append(given)
            case "a":
                self.links.append(given["href"])
            case "label":
                self._labels.append(given["for"])
            case "input" | "select" | "textarea" if given.get("type") != "hidden":
                self._labelled.append(given["id"])
        if tag == "input":
            self.fields[given["name"]] = given.get("value", "")
        if tag == "option" and "selected" in given:
            self.fields[self._within("select")["name"]] = given["value"]
        if tag not in _VOID:
            self._open.append((tag, given))
        if tag not in _WITHIN_A_LINE:
            self.text += " "

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _VOID

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"<{opened}> is closed by </{tag}>"
        if tag not in _WITHIN_A_LINE:
            self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data
        for tag, given in self._open:
            if tag == "textarea":
                self.fields[given["name"]] = self.fields.get(given["name"], "") + data
            if "alert" in given.get("class", "").split():
                self.alerts.append(data.strip())
        if any(tag in ("h1", "h2") for tag, _ in self._open) and data.strip():
            self.headings.append(data)

    def _within(self, tag: str) -> dict[str, str]:
        return next(given for name, given in reversed(self._open) if name == tag)

    @property
    def alert(self) -> str:
        """What alerts say."""
        return " ".join(" ".join(self.alerts).split())

    def actions(self) -> set[str]:
        """Where its forms go."""
        return {form.get("action", "") for form in self.forms}


async def blocks(app: ASGIApp, path: str, cookies: str) -> dict[str, Page]:
    """The blocks with which a stream of events begins, by their ids; the reader then goes away."""
    found: dict[str, Page] = {}
    gone = trio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message
            return
        for event in message["body"].decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line)
            if lines.get("event") == "block":
                data = json.loads(lines["data"])
                found[data["id"]] = Page(data["html"])
        if found:
            gone.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost:8080"), (b"cookie", cookies.encode())],
        "client": ("127.0.0.1", 50000),
        "server": ("localhost", 8080),
    }
    with trio.fail_after(10):
        await app(scope, receive, send)
    return found
