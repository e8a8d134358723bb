"""What went wrong, and what to do about it: words for what the REST says in one.

A refusal names its cause, an object in the queue its state; here each has a remedy, and a page of
ours to go to where there is one. The cause itself is said by the Router's own words, which stand
beside these.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import attrs

# What GET /v1/status says of a Router that the Bridge does not know, or not any more.
NOT_LET_IN = "the Bridge did not let this Router in"


@attrs.frozen(slots=True)
class Remedy:
    """What to do, in a sentence or two; `label` and `href` are of a page that does it."""

    words: str
    label: str = ""
    href: str = ""


def link(path: str, **query: str) -> str:
    """A path of ours with a query, escaped."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


# --- calls that were refused ----------------------------------------------------------------------


def of_refusal(refusal: Mapping[str, Any]) -> Remedy:
    """What to do about one row of GET /v1/refusals."""
    calling, called = refusal["calling"], refusal["called"]
    match refusal["cause"]:
        case "no_device":
            return Remedy(
                f"If {calling} is a device of yours, add it. Else have the device call under the AE"
                " title that it has here.",
                "Add it",
                link("/devices/new", ae_title=calling),
            )
        case "other_address":
            return Remedy(
                "If that is where the device is now, change its host. If it has several addresses,"
                " or a NAT is between, allow any address.",
                "Change the device",
                link("/devices/edit", ae_title=calling),
            )
        case "not_enrolled":
            return Remedy("This Router has joined no network yet.", "Paste the invitation", "/")
        case "no_connection":
            return Remedy(
                "The Router connects again by itself. If it stays so, `relay doctor` on this"
                " machine looks at the way to the Bridge: proxy, firewall, TLS and clock.",
                "See the connection",
                "/",
            )
        case "not_published":
            return Remedy(
                "Compare the AE title that the device calls with those of the network: spelling and"
                " case count.",
                "See the network",
                "/network",
            )
        case "not_granted":
            return Remedy(
                "The other hospital decides who may use its device. Ask it for the services that"
                " you need.",
                "Ask for a grant",
                link("/network/ask", ae_title=called),
            )
        case "peer_offline":
            return Remedy(
                "The other hospital's Router is not connected. Telephone its administrator; until"
                " then, queue what is sent there, and it goes out by itself.",
                "Queue it",
                link("/network/names", called=called) + "#destination",
            )
        case "untrusted":
            return Remedy(
                "Compare contact strings, by telephone or on paper: theirs here, yours there.",
                "Compare contacts",
                "/network/peers",
            )
        case "device_busy":
            return Remedy(
                "The far device is switched off, full, or does not know its own Router. Its"
                " hospital's administrator tests it there; what is queued waits for it.",
                "Queue it",
                link("/network/names", called=called) + "#destination",
            )
        case "destination":
            return Remedy(
                "The destination of a C-MOVE must be a device that is published with store, by your"
                " hospital or by one that has granted you store of it.",
                "See the network",
                "/network",
            )
        case "aborted":
            return Remedy(
                "Send again. If it happens again, the far device's own log says why; ask its"
                " hospital."
            )
    return Remedy("Try again. If it happens again, this Router's log says more.")


# --- objects in the queue -------------------------------------------------------------------------

_HELD = {
    "not_accepted": Remedy(
        "The device does not take this kind of object any more. It is asked again each hour, and"
        " what is held goes on by itself once it does. Once it is mended, a retry has it asked at"
        " once."
    ),
    "doubtful": Remedy(
        "It is from before this Router was restored, and may have been delivered already. A retry"
        " asks the other hospital's Router first, and sends what its device has not got."
    ),
    "locked": Remedy(
        "It is locked with another spool key. Start the Router with that key (spool_key in"
        " relay.toml); it goes on by itself then. A retry does not help."
    ),
    "moved": Remedy(
        "The AE title belongs to another hospital than it did, and nothing is sent to the new"
        " owner. Find out whose it is now, send the images again from the modality, then discard"
        " these.",
        "See the network",
        "/network",
    ),
}

_LOST = Remedy("The disk has lost it. Send it again from the modality, then discard it.")

# By the status of the far device's answer: what it means is a matter of its first digits
# (PS3.7 Annex C, PS3.4 §B.2.3).
_STATUSES = {
    "0111": Remedy(
        "The device has an object of this UID already that this Router did not send. Compare both"
        " at the device; then discard this one."
    ),
    "0117": Remedy(
        "The device says that the object's UID is not valid. It never takes it as it is: correct it"
        " at its source and send it again, then discard this one."
    ),
    "0122": Remedy(
        "The device does not take this SOP class. Ask its hospital; if it never will, discard it."
    ),
    "0124": Remedy(
        "The device does not let this sender store. Its administrator can allow it; then resume the"
        " destination."
    ),
}
_WILL_NOT = Remedy(
    "The data set does not fit the device's idea of its SOP class: it never takes it as it is. Its"
    " administrator can see why in its log; correct it at its source, then discard this one."
)
_CANNOT = Remedy(
    "The device could not process it, again and again. Its own log says what it has against it."
    " Once that is mended, retry: that is one more attempt."
)
_FAILED = Remedy(
    "The reason is the far device's, or that of the way there. Once it is mended, retry; what is"
    " not wanted any more, discard."
)


def of_item(item: Mapping[str, Any]) -> Remedy:
    """What to do about one row of GET /v1/queue/items; no words where there is nothing to do."""
    match item["state"]:
        case "waiting":
            return _of_waiting(item)
        case "held":
            return _HELD.get(item["hold"] or "", _FAILED)
        case "failed":
            return _of_failed(item["status"] or "", item["reason"])
    return Remedy("")


def _of_waiting(item: Mapping[str, Any]) -> Remedy:
    paused = item["paused"]
    if paused is not None and paused["by"] == "person":
        return Remedy("A person has paused this destination. It waits until somebody resumes it.")
    if paused is not None:
        return Remedy(
            "The device's own answer has paused this destination. Have the cause mended at the far"
            " hospital first, then resume it."
        )
    if item["trouble"]:
        return Remedy("It is tried again by itself, for as long as it takes.")
    return Remedy("It goes out by itself, in its turn.")


def _of_failed(status: str, reason: str) -> Remedy:
    if status in _STATUSES:
        return _STATUSES[status]
    if status.startswith("A9"):
        return _WILL_NOT
    if status.startswith("C") or status == "0110":
        return _CANNOT
    if "disk" in reason or "damaged" in reason or "file" in reason:
        return _LOST
    return _FAILED


# --- warnings -------------------------------------------------------------------------------------


def of_warning(warning: Mapping[str, Any]) -> Remedy:
    """Where to go about one row of GET /v1/warnings; its words say what to do already."""
    called = warning["destination"] or ""
    match warning["warning"]:
        case "failed":
            return Remedy("", "See them", link("/transfers/items", called=called, state="failed"))
        case "refused" | "doubtful" | "moved" | "locked":
            return Remedy("", "See them", link("/transfers/items", called=called, state="held"))
        case "waiting" | "paused":
            return Remedy("", "See the destination", link("/transfers", called=called))
        case "spool_full" | "spool_broken":
            return Remedy("", "See the queue", "/transfers")
        case "audit_behind":
            return Remedy("", "See the audit", "/audit")
    return Remedy("", "See the queue", "/transfers")


# --- the connection to the Bridge -----------------------------------------------------------------


def of_connection(status: Mapping[str, Any]) -> str:
    """What to do about a Bridge that is not connected; empty where it is, or none is known."""
    if not status["enrolled"] or status["connected"]:
        return ""
    why = str(status["last_failure"] or "")
    if why.startswith(NOT_LET_IN):
        return (
            "Ask the Bridge's administrator. Revoking is for good: to come back as a new Router,"
            " stop this one, move its data folder away, start it, and paste a new invitation."
        )
    return (
        "The Router tries again by itself, every few seconds. If it stays so, run `relay doctor` on"
        " this machine: it looks at proxy, firewall, TLS and clock, and says what is wrong."
    )
