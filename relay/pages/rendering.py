"""Templates and static files, from the packages, read once at the start."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import attrs
from jinja2 import DictLoader, Environment, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay import __version__
from relay.errors import Refused
from relay.pages.filters import FILTERS

SHARED: Final = "relay.pages"
STATIC_PATH: Final = "/static"
_MEDIA: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
}
# What lies under a name that has its content's hash in it never changes.
_FOREVER: Final = "public, max-age=31536000, immutable"


@attrs.frozen(slots=True)
class _Static:
    url: str
    content: bytes
    media: str


class Rendering:
    """What is in `templates/` and `static/` of relay.pages and of a mode's own `package`.

    All values are escaped, and one that is missing is an error: a page never shows less than it
    was meant to without anybody's noticing.
    """

    def __init__(self, package: str) -> None:
        packages = (package, SHARED)
        self._static = {
            name: _Static(f"{STATIC_PATH}/{_hash(content)}/{name}", content, _media(name))
            for name, content in _read(packages, "static").items()
        }
        templates = _read(packages, "templates")
        self._environment = Environment(
            loader=DictLoader({name: content.decode() for name, content in templates.items()}),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(FILTERS)
        self._environment.globals.update(static=self.static, version=__version__)

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        """The text of a page, or of a part of one."""
        return self._environment.get_template(template).render(values)

    def static(self, name: str) -> str:
        """The URL of a static file."""
        return self._static[name].url

    def routes(self) -> Sequence[Route]:
        """Serve the static files; whoever asks."""

        async def serve(request: Request) -> Response:
            file = self._static.get(request.path_params["name"])
            if file is None:
                raise Refused(404, "no such file")
            # After an update a page of before may ask for what has another hash now.
            known = file.url == request.scope["path"]
            return Response(
                file.content,
                media_type=file.media,
                headers={"cache-control": _FOREVER if known else "no-store"},
            )

        return [Route(STATIC_PATH + "/{hash}/{name}", serve, methods=["GET"])]


def _read(packages: Sequence[str], folder: str) -> dict[str, bytes]:
    """All files in `folder` of these packages; of two by one name the first package's."""
    found: dict[str, bytes] = {}
    for package in packages:
        directory = files(package) / folder
        if not directory.is_dir():
            continue
        for entry in directory.iterdir():
            if entry.is_file() and not entry.name.startswith("."):
                found.setdefault(entry.name, entry.read_bytes())
    return found


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _media(name: str) -> str:
    return _MEDIA[name.rpartition(".")[2]]
