"""Audit: who did what, and which objects went where, entry by entry. Both modes have it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode
from xml.etree import ElementTree

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.errors import Refused
from relay.pages.rest import path_of
from relay.pages.site import Site
from relay.people.roles import Role

XML_DECLARATION: Final = "<?xml version='1.0' encoding='utf-8'?>\n"

# Entries of one page.
PAGE: Final = 100

# What a person may filter by.
FILTERS: Final = ("kind", "since", "until", "who", "ae_title")

# The kinds of GET /v1/audit, and what people call them.
KINDS: Final = (
    ("", "Everything"),
    ("application", "Starts and stops"),
    ("begin", "Transfers begun"),
    ("transfer", "Objects transferred"),
    ("query", "Queries"),
    ("sign-in", "Sign-ins"),
    ("alert", "Changes and alerts"),
)


@attrs.frozen(slots=True)
class AuditPages:
    """The entries, filtered, the newest first.

    `studies_at` is the path of a page that shows a study by `?study=`; empty: there is none.
    """

    site: Site
    studies_at: str = ""

    def routes(self) -> Sequence[Route]:
        return [
            Route("/audit", self.index, methods=["GET"]),
            Route("/audit/message", self.message, methods=["GET"]),
            Route("/audit/verify", self.verify, methods=["GET"]),
        ]

    async def index(self, request: Request) -> Response:
        return await self._page(request)

    async def message(self, request: Request) -> Response:
        """One entry as a DICOM Audit Message, to be read or kept."""
        number = request.query_params.get("number", "")
        if not (number.isascii() and number.isdigit()):
            raise Refused(404, "an entry has a number: choose it from the list")
        rest = self.site.rest.of(request)
        text = await rest.get(f"/v1/audit/{number}.xml")
        found = await rest.get("/v1/audit", before=int(number) + 1, limit=1)
        return await self.site.page(
            request,
            "audit_message.html",
            title=f"Audit entry {number}",
            entry=_shown(found["entries"][0]),
            words=dict(KINDS),
            studies_at=self.studies_at,
            text=_indented(text),
        )

    async def verify(self, request: Request) -> Response:
        """Whether the chain of entries is whole."""
        found = await self.site.rest.of(request).get(path_of("v1", "audit", "verify"))
        return await self._page(request, found)

    async def _page(self, request: Request, verified: Mapping[str, Any] | None = None) -> Response:
        rest, query = self.site.rest.of(request), request.query_params
        typed = {name: query.get(name, "") for name in FILTERS}
        entries: Mapping[str, Any] = {"entries": [], "before": None}
        refused, code = "", 200
        try:
            asked: dict[str, Any] = {
                **{name: typed[name] or None for name in ("kind", "who", "ae_title")},
                **{name: _seconds(typed[name]) for name in ("since", "until")},
            }
            before = query.get("before") or None
            entries = await rest.get("/v1/audit", **asked, before=before, limit=PAGE)
        except Refused as error:
            refused, code = str(error), error.status
        older = entries["before"]
        return await self.site.page(
            request,
            "audit.html",
            code,
            entries=[_shown(entry) for entry in entries["entries"]],
            state=await rest.get("/v1/audit/state"),
            typed=typed,
            kinds=KINDS,
            words=dict(KINDS),
            filtered=any(typed.values()),
            studies_at=self.studies_at,
            verified=verified,
            may_see_more=self.site.who(request).may(Role.OPERATOR),
            csv=_link("/v1/audit.csv", asked) if not refused else "",
            earlier=_link("/audit", {**typed, "before": older}) if older is not None else "",
            later=_link("/audit", typed) if query.get("before") else "",
            refused=refused,
        )


def _shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with what a page says of who caused it, and of whom it went between.

    `by` and the ends `a` and `b` are as people know them; `by_address` is where the first one was,
    `by_note` what else is known of it, `hospitals` are those of the ends.
    """
    parties = {party["id"]: party for party in reversed(entry["participants"])}
    named = {id: _called(party) for id, party in parties.items()}
    by, a, b = (entry[name] or "" for name in ("requestor", "source", "destination"))
    party = parties.get(by, _NOBODY)
    note = by if named.get(by, by) != by else party["name"] if party["person"] else ""
    return {
        **entry,
        "by": named.get(by, by),
        "by_note": note,
        "by_address": party["address"],
        "a": named.get(a, a),
        "b": named.get(b, b),
        "hospitals": [name for end in (a, b) if (name := _hospital(parties.get(end, _NOBODY)))],
    }


_NOBODY: Final = {"id": "", "name": "", "address": "", "person": False}
# An AE title has no more (PS3.5 §6.2); what is longer, and has a name, is a fingerprint.
_AE_TITLE: Final = 16


def _hospital(party: Mapping[str, Any]) -> str:
    """The hospital of a device, where that is another one."""
    return "" if party["person"] or _called(party) == party["name"] else str(party["name"])


def _called(party: Mapping[str, Any]) -> str:
    """By what people know it: a hospital by its name, where only its fingerprint took part."""
    is_fingerprint = not party["person"] and len(party["id"]) > _AE_TITLE
    return str(party["name"] if is_fingerprint and party["name"] else party["id"])


def _indented(document: str) -> str:
    """A message of our own making, an element a line."""
    root = ElementTree.fromstring(document)
    ElementTree.indent(root)
    return XML_DECLARATION + ElementTree.tostring(root, encoding="unicode")


def _seconds(text: str) -> float | None:
    """A time as a form has it, in UTC. Raises Refused (400)."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(
            400, f"{text[:40]!r} is no time: write it as 2026-11-28T14:30, in UTC"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _link(path: str, query: Mapping[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path
