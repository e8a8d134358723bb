"""Adding an object store: a form made of its kind's settings, checked before anything is kept.

What was typed is shown again where it is refused, but for secrets: those leave this process to the
store alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.bridge.pages.providers import LIST, kinds, verdict
from relay.bridge.pages.rows import Row, need
from relay.errors import Refused
from relay.pages.forms import Form, form
from relay.pages.rest import path_of
from relay.pages.site import Site
from relay.people.roles import Role

# Before a setting's name, so that none is taken for a field of the form itself.
FIELD: Final = "set-"
# Where a kind does not say its settings: lines of KEY=VALUE.
LINES: Final = "lines"

# What built-in kinds are called, and for whom they are.
WORDS: Final = {
    "s3": ("S3", "Amazon S3, and what speaks its language: Ceph, MinIO, SeaweedFS, R2, Wasabi."),
    "disk": ("The Bridge's own disk", "Needs nothing else; all traffic passes the Bridge's line."),
}


@attrs.frozen(slots=True)
class Adding:
    """The views."""

    site: Site

    async def choose(self, request: Request) -> Response:
        need(request, Role.ADMINISTRATOR, "setting up an object store")
        offered = await kinds(self.site.rest.of(request))
        return await self.site.page(
            request,
            "provider_kinds.html",
            title="Add an object store",
            kinds=[{**row, **_called(row["kind"]), "href": _path(row["kind"])} for row in offered],
        )

    async def ask(self, request: Request) -> Response:
        need(request, Role.ADMINISTRATOR, "setting up an object store")
        return await self._form(request, await self._kind(request), {"name": ""})

    async def add(self, request: Request) -> Response:
        """Check what was typed, and set it up if it passes."""
        typed, kind, rest = await form(request), await self._kind(request), self.site.rest
        rest = rest.of(request)
        name = typed.text("name")
        try:
            body = {"name": name, "kind": kind["kind"], "settings": _settings(kind, typed)}
            found = verdict((await rest.post("/v1/providers/try", body))["findings"])
            if not found["fine"]:
                return await self._form(request, kind, _kept(kind, typed), findings=found)
            await rest.post("/v1/providers", body)
        except Refused as error:
            return await self._form(request, kind, _kept(kind, typed), error)
        return self.site.see_other(
            LIST,
            said=f"{name} passed its check and is set up. No session uses it yet: put it in use.",
        )

    async def _kind(self, request: Request) -> Row:
        for row in await kinds(self.site.rest.of(request)):
            if row["kind"] == request.path_params["kind"] and row["available"]:
                return row
        raise Refused(404, "no such kind of object store can be added: see those that can")

    async def _form(
        self,
        request: Request,
        kind: Row,
        typed: Mapping[str, str],
        refused: Refused | None = None,
        findings: Mapping[str, Any] | None = None,
    ) -> Response:
        settings = kind["settings"]
        status = refused.status if refused is not None else 200 if findings is None else 409
        called = _called(kind["kind"])
        return await self.site.page(
            request,
            "provider_add.html",
            status,
            title=f"Add {called['called']}",
            kind={**kind, **called},
            action=_path(kind["kind"]),
            prefix=FIELD,
            lines=LINES,
            usual=[_shown(row) for row in settings or () if not row["seldom"]],
            seldom=[_shown(row) for row in settings or () if row["seldom"]],
            typed=typed,
            opened=any(typed.get(row["name"]) for row in settings or () if row["seldom"]),
            again=refused is not None or findings is not None,
            findings=findings["findings"] if findings is not None else [],
            refused=str(refused or ""),
        )


def _path(kind: str) -> str:
    return path_of("providers", "add", kind)


def _shown(setting: Row) -> dict[str, Any]:
    """A setting as the form has it: what is chosen from a few has the choice of none of them."""
    default = setting["default"]
    values = ("true", "false") if setting["form"] == "flag" else setting["choices"]
    usual = f"as usual ({default})" if default else "as usual"
    return {**setting, "choices": [("", usual), *((value, value) for value in values)]}


def _called(kind: str) -> dict[str, str]:
    called, words = WORDS.get(kind, (kind, "Offered by a package that is installed here."))
    return {"called": called, "about": words}


def _settings(kind: Row, typed: Form) -> dict[str, str]:
    """What was typed, of what is not empty. Raises Refused (400)."""
    if kind["settings"] is None:
        return _lines(typed.text(LINES))
    given = {row["name"]: typed.text(FIELD + row["name"]) for row in kind["settings"]}
    return {name: value for name, value in given.items() if value}


def _lines(text: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        key, equals, value = line.strip().partition("=")
        if not key and not equals:
            continue
        if not equals or not key.strip():
            # Nothing of the line: what stands in it may be a secret.
            raise Refused(400, f"line {number} of the settings: expected KEY=VALUE")
        if key.strip() in settings:
            raise Refused(400, f"line {number} of the settings: {key.strip()[:64]} came before")
        settings[key.strip()] = value.strip()
    return settings


def _kept(kind: Row, typed: Form) -> dict[str, str]:
    """What is shown again: all but secrets; of lines, where nobody knows which are, the keys."""
    kept = {"name": typed.text("name")}
    if kind["settings"] is None:
        lines = typed.text(LINES).splitlines()
        kept[LINES] = "\n".join(line.partition("=")[0] + "=" for line in lines if "=" in line)
    for row in kind["settings"] or ():
        if row["form"] != "secret":
            kept[row["name"]] = typed.text(FIELD + row["name"])
    return kept


def routes(site: Site) -> Sequence[BaseRoute]:
    """The choice of a kind, and its form."""
    views = Adding(site)
    return [
        Route("/providers/add", views.choose),
        Route("/providers/add/{kind}", views.ask, methods=["GET"]),
        Route("/providers/add/{kind}", views.add, methods=["POST"]),
    ]
