"""Server-sent events (WHATWG HTML §9.2), as relay.js reads them."""

import json
from collections.abc import Mapping
from typing import Any, Final

EVENTS: Final = "text/event-stream"


def event(name: str, data: Mapping[str, Any]) -> str:
    """One event. Its data is JSON, which has no line end in it."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


# The sign-in has ended: the page goes to where one signs in.
OVER: Final = event("over", {})
