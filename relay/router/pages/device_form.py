"""A device as a form, and as the REST takes it.

What a form has typed is shown again as it was typed, so that a form that is refused loses nothing;
so its values are texts here, and become numbers and flags on their way to the REST.
"""

from collections.abc import Collection, Mapping
from typing import Any

from relay.pages.forms import Form
from relay.router.pages import services

TEXTS = ("ae_title", "host", "tls_name", "published_as", "present_as", "issuer", "character_set")
WHOLES = ("port", "maximum_associations", "split")
SECONDS = ("answer_wait", "resume_window", "place_wait", "linger")
FLAGS = ("tls", "check_address", "user_identity", "federation", "get_via_move")

# A form that nobody has typed into: the defaults are the Router's (docs/configuration.md).
NEW: Mapping[str, Any] = {
    "ae_title": "",
    "host": "",
    "port": "104",
    "tls": False,
    "tls_name": "",
    "published_as": "",
    "services": [],
    "private": "",
    "present_as": "",
    "issuer": "",
    "character_set": "",
    "move_via": "device",
    "maximum_associations": "16",
    "split": "1",
    "answer_wait": "25",
    "resume_window": "20",
    "place_wait": "5",
    "linger": "0",
    "check_address": True,
    "user_identity": False,
    "federation": False,
    "get_via_move": False,
}


# What the form shows folded, in two parts; it is opened where one of them is not the default.
ARCHIVE = ("federation", "issuer", "character_set", "get_via_move", "move_via", "present_as")
UNUSUAL = (
    *("tls", "tls_name", "published_as", "private", "check_address", "user_identity"),
    *("maximum_associations", *SECONDS, "split"),
)


def is_set(values: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether any of these is not as in a form that nobody has typed into."""
    return any(values[name] != NEW[name] for name in names)


def of_device(device: Mapping[str, Any]) -> dict[str, Any]:
    """The form's values for a device (GET /v1/devices)."""
    numbers = {name: f"{device[name]:g}" for name in (*WHOLES, *SECONDS)}
    published = device["published_as"]
    return {
        **{name: device[name] for name in (*TEXTS, *FLAGS)},
        **numbers,
        "published_as": "" if published == device["ae_title"] else published,
        "move_via": device["move_via"],
        "services": device["services"],
        "private": services.private_of(device["services"]),
    }


def of_form(typed: Form) -> dict[str, Any]:
    """The form's values as they were typed."""
    return {
        **{name: typed.text(name) for name in (*TEXTS, *WHOLES, *SECONDS)},
        **{name: typed.flag(name) for name in FLAGS},
        "move_via": typed.text("move_via", "device"),
        "services": typed.texts("services"),
        "private": typed.text("private"),
    }


def entry(typed: Form) -> dict[str, Any]:
    """What the REST is told. Raises Refused (400) for what is no number.

    Fields that were left empty are left out: the Router's defaults hold.
    """
    given: dict[str, Any] = {name: typed.text(name) for name in TEXTS}
    given |= {name: typed.number(name) for name in WHOLES}
    given |= {name: typed.decimal(name) for name in SECONDS}
    kept = {name: value for name, value in given.items() if value not in ("", None)}
    return kept | {
        **{name: typed.flag(name) for name in FLAGS},
        "move_via": typed.text("move_via", "device"),
        "services": services.of_form(typed),
    }
