"""Objects of the queue: what each waits for or failed of, and what people do with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.errors import Refused
from relay.pages.forms import Form, form
from relay.pages.rest import path_of
from relay.pages.site import Site
from relay.router.pages.explaining import link, of_item
from relay.router.pages.transfers import TRANSFERS, with_patients

ITEMS = f"{TRANSFERS}/items"

# Objects of one page.
PAGE = 100

# What a selection may say, in a query and in the hidden fields of a form.
_SELECTED = ("called", "study", "state")

STATES = ("waiting", "held", "failed", "delivered", "discarded")


@attrs.frozen(slots=True)
class ObjectPages:
    """A list of objects, one object, and what is done with a selection of them."""

    site: Site

    def routes(self) -> Sequence[Route]:
        return [
            Route(ITEMS, self.index, methods=["GET"]),
            Route(f"{TRANSFERS}/item", self.show, methods=["GET"]),
            Route(f"{TRANSFERS}/retry", self.retry, methods=["POST"]),
            Route(f"{TRANSFERS}/discard", self.discard, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        """The newest first; `until` is where the page begins."""
        rest, query = self.site.rest.of(request), request.query_params
        chosen = {name: query.get(name, "") for name in _SELECTED}
        asked: dict[str, Any] = {name: value or None for name, value in chosen.items()}
        until = query.get("until") or None
        try:
            found = await rest.get(
                "/v1/queue/items", **asked, latest="true", limit=PAGE, until=until
            )
            counts = await rest.get("/v1/queue/count", **(asked | {"state": None}))
        except Refused as error:
            if error.status != 404:
                raise
            found, counts = {"items": [], "next": None}, dict.fromkeys(STATES, 0)
        rows = [{**item, "remedy": of_item(item)} for item in found["items"]]
        following = found["next"]
        study = [{"study": chosen["study"]}]
        (whose,) = await with_patients(rest, self.site.who(request), study)
        return await self.site.page(
            request,
            "items.html",
            title="Objects",
            rows=rows,
            counts=counts,
            chosen=chosen,
            states=STATES,
            patient=whose["patient"],
            tabs=[(state, link(ITEMS, **(chosen | {"state": state}))) for state in ("", *STATES)],
            earlier=link(ITEMS, **chosen, until=str(following)) if following is not None else "",
            later=link(ITEMS, **chosen) if until else "",
        )

    async def show(self, request: Request) -> Response:
        number = request.query_params.get("number", "")
        if not (number.isascii() and number.isdigit()):
            raise Refused(404, "an object has a number: choose it from the list")
        rest = self.site.rest.of(request)
        item = await rest.get(path_of("v1", "queue", "items", number))
        (whose,) = await with_patients(rest, self.site.who(request), [item])
        return await self.site.page(
            request,
            "item.html",
            title=f"Object {item['number']}",
            item=item,
            patient=whose["patient"],
            remedy=of_item(item),
        )

    # --- doing ------------------------------------------------------------------------------------

    async def retry(self, request: Request) -> Response:
        typed = await form(request)
        back = _back(typed)
        try:
            done = await self.site.rest.of(request).post("/v1/queue/retry", _selection(typed))
        except Refused as error:
            return self.site.see_other(back, failed=f"Not retried: {error}.")
        count = done["items"] or done["before"]["waiting"]
        if not count:
            return self.site.see_other(
                back, failed="Nothing was retried: it is delivered, being sent, or locked."
            )
        said = f"{_objects(count)} will be tried again now."
        paused = ", ".join(row["local"] for row in done["paused"])
        if paused:
            said += f" {paused} is paused: resume it, or nothing leaves."
        return self.site.see_other(back, said=said)

    async def discard(self, request: Request) -> Response:
        typed = await form(request)
        back = _back(typed)
        try:
            done = await self.site.rest.of(request).post("/v1/queue/discard", _selection(typed))
        except Refused as error:
            return self.site.see_other(back, failed=f"Not discarded: {error}.")
        return self.site.see_other(
            back, said=f"{_objects(done['items'])} given up and erased. The sender is not told."
        )


def _selection(typed: Form) -> Mapping[str, Any]:
    """What a form's hidden fields select. Raises Refused (400) where that is nothing."""
    chosen: dict[str, Any] = {name: typed.text(name) for name in _SELECTED if typed.text(name)}
    number = typed.number("number")
    if number is not None:
        chosen["numbers"] = [number]
    if not chosen:
        raise Refused(400, "nothing is selected")
    return chosen


def _back(typed: Form) -> str:
    """Where the form was: one of these pages, and no other place."""
    number = typed.text("number")
    if number.isascii() and number.isdigit():
        return link(f"{TRANSFERS}/item", number=number)
    if typed.text("from") == "transfers":
        return TRANSFERS
    return link(ITEMS, **{name: typed.text(name) for name in _SELECTED})


def _objects(count: int) -> str:
    return f"{count} object{'' if count == 1 else 's'}"
