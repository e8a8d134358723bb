"""/people: who may come in, and the API tokens; for administrators."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.errors import Refused
from relay.pages.door import LINK_PATH
from relay.pages.forms import Form, form
from relay.pages.rest import path_of
from relay.pages.site import Site
from relay.people.roles import Role

PATH = "/people"
ROLES = [
    (Role.VIEWER.value, "Viewer", "Looks at everything but patients' names."),
    (
        Role.OPERATOR.value,
        "Operator",
        "Also searches by patient, retries and discards, and tests devices.",
    ),
    (
        Role.ADMINISTRATOR.value,
        "Administrator",
        "Also changes devices, grants, providers, people and settings.",
    ),
]


@attrs.frozen(slots=True)
class _Views:
    site: Site

    async def show(self, request: Request) -> Response:
        return await self._page(request)

    async def add(self, request: Request) -> Response:
        """Add a person; the page then shows the link to send, which nothing shows again."""
        rest, typed = self.site.rest.of(request), await form(request)
        body = {"name": typed.text("name"), "role": typed.text("role"), "link": True}
        try:
            answer = await rest.post("/v1/people", body)
        except Refused as error:
            return await self._page(request, error, typed=typed)
        return await self._page(request, made=self._link(request, answer))

    async def change_role(self, request: Request) -> Response:
        name, role = request.path_params["name"], (await form(request)).text("role")
        return await self._do(
            request, path_of("v1", "people", name, "role"), {"role": role}, f"{name} is {role} now."
        )

    async def link(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            answer = await self.site.rest.of(request).post(path_of("v1", "people", name, "link"))
        except Refused as error:
            return self.site.see_other(PATH, failed=str(error))
        return await self._page(request, made=self._link(request, answer))

    async def remove(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            await self.site.rest.of(request).delete(path_of("v1", "people", name))
        except Refused as error:
            return self.site.see_other(PATH, failed=str(error))
        return self.site.see_other(PATH, f"{name} was removed, and is signed out.")

    async def add_token(self, request: Request) -> Response:
        """Make a token; the page then shows it, which nothing does again."""
        typed = await form(request)
        body = {"name": typed.text("token_name"), "role": typed.text("token_role")}
        try:
            answer = await self.site.rest.of(request).post("/v1/api-tokens", body)
        except Refused as error:
            return await self._page(request, error, typed=typed)
        return await self._page(request, made={"kind": "token", **answer})

    async def remove_token(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            await self.site.rest.of(request).delete(path_of("v1", "api-tokens", name))
        except Refused as error:
            return self.site.see_other(PATH, failed=str(error))
        return self.site.see_other(PATH, f"The API token {name} holds no more.")

    async def _do(self, request: Request, path: str, body: Any, said: str) -> Response:
        try:
            await self.site.rest.of(request).post(path, body)
        except Refused as error:
            return self.site.see_other(PATH, failed=str(error))
        return self.site.see_other(PATH, said)

    def _link(self, request: Request, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The link under the name by which this page was asked for."""
        origin = self.site.hosts.origin(request.headers)
        return {
            "kind": "link",
            "name": answer["name"],
            "link": f"{origin}{LINK_PATH}?code={answer['code']}",
        }

    async def _page(
        self,
        request: Request,
        error: Refused | None = None,
        typed: Form | None = None,
        made: Mapping[str, Any] | None = None,
    ) -> Response:
        rest, typed = self.site.rest.of(request), typed or Form({})
        return await self.site.page(
            request,
            "people.html",
            error.status if error else 200,
            title="People",
            people=await rest.get("/v1/people"),
            tokens=await rest.get("/v1/api-tokens"),
            roles=ROLES,
            typed=typed.values(),
            refused=str(error) if error else "",
            made=made,
        )


def routes(site: Site) -> Sequence[BaseRoute]:
    """The pages of people."""
    do = _Views(site)
    token = "/api-tokens"  # not below PATH: a person may be called tokens/x
    one, one_token = PATH + "/{name:path}", token + "/{name:path}"
    return [
        Route(PATH, do.show, methods=["GET"]),
        Route(PATH + "/add", do.add, methods=["POST"]),
        Route(token + "/add", do.add_token, methods=["POST"]),
        Route(one_token + "/remove", do.remove_token, methods=["POST"]),
        Route(one + "/role", do.change_role, methods=["POST"]),
        Route(one + "/link", do.link, methods=["POST"]),
        Route(one + "/remove", do.remove, methods=["POST"]),
    ]
