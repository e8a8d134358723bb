"""The first steps of a new Router: join the network, add a device, test it.

As long as one of them is to be done, the Overview begins with them (relay.router.pages.overview).
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.errors import Refused
from relay.pages.forms import form
from relay.pages.site import Site


class Step(Enum):
    """What is to be done next."""

    ENROL = 1
    DEVICE = 2
    DONE = 3


@attrs.frozen(slots=True)
class FirstSteps:
    """The steps over `site`."""

    site: Site

    def routes(self) -> Sequence[Route]:
        return [Route("/enrol", self.enrol, methods=["POST"])]

    @staticmethod
    def next(status: Mapping[str, Any]) -> Step:
        """Which step a Router with this status (GET /v1/status) is at."""
        if not status["enrolled"]:
            return Step.ENROL
        return Step.DONE if status["devices"] else Step.DEVICE

    async def enrol(self, request: Request) -> Response:
        """Join the network of the invitation that was pasted."""
        typed = await form(request)
        rest = self.site.rest.of(request)
        # However a mail program has broken the line.
        invitation = "".join(typed.text("invitation").split())
        try:
            if not invitation:
                raise Refused(400, "paste the invitation that the Bridge's administrator sent you")
            joined = await rest.post("/v1/enrolment", {"invitation": invitation})
        except Refused as error:
            return await self.site.page(
                request,
                "enrol.html",
                error.status,
                title="Join the network",
                refused=str(error),
                invitation=typed.text("invitation"),
                ae_title=(await rest.get("/v1/status"))["ae_title"],
            )
        if joined["already"]:
            return self.site.see_other("/", said=f"This Router is {joined['name']} already.")
        return self.site.see_other("/", said=f"This Router has joined as {joined['name']}.")
