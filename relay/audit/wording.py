"""What somebody has changed, in words: a sentence for each operation that changes something.

    POST /v1/devices ae_title=CT1 host=10.0.0.5   ->   Added the device CT1 at 10.0.0.5

A sentence names what its operation was told, and nothing else: what a body has beside that may be
a secret. So the names in it are all that is ever read of one.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

# What stands in brackets is left out where it has a name that nothing was said of.
_OPTIONAL: Final = re.compile(r"\[([^\]]*)\]")
_NAME: Final = re.compile(r"\{(\w+)\}")

# Of one value, and of a list of them.
MAXIMUM_VALUE = 128
MAXIMUM_LISTED = 32

# What says nothing of a name: 0 does.
_NOTHING: tuple[object, ...] = (None, "", [])

# What an operation has told of itself: that there was another one before.
REPLACED: Final = "replaced"


@attrs.frozen(slots=True)
class Words:
    """A verb, as it was tried and as it was done, and what it was done to.

    `unsaid` stands for that where it was not said: a body that is wrong, or of somebody who was
    refused before it was read.
    """

    verb: str
    past: str
    what: str
    unsaid: str = ""

    def sentence(self, values: Mapping[str, Any], *, done: bool) -> str:
        """With these values in it: "Added the device CT1"."""

        def optional(found: re.Match[str]) -> str:
            names = _NAME.findall(found[1])
            return found[1] if all(values.get(name) for name in names) else ""

        what = _OPTIONAL.sub(optional, self.what)
        if self.unsaid and any(values.get(name) in _NOTHING for name in _NAME.findall(what)):
            what = self.unsaid
        verb = self.past if done else f"tried to {self.verb}"
        said = f"{verb} {_NAME.sub(lambda found: _text(values.get(found[1])), what)}"
        return said[:1].upper() + said[1:]

    @property
    def names(self) -> frozenset[str]:
        """What it reads of a body, a path, or what the operation tells."""
        return frozenset(_NAME.findall(self.what))


def _text(value: object) -> str:
    listed = value if isinstance(value, list) else [value]
    words = ", ".join(
        "unknown" if each in (None, "") else str(each) for each in listed[:MAXIMUM_LISTED]
    )
    return words[:MAXIMUM_VALUE]


_PERSON: Final = "/v1/people/{name}"
_DEVICE: Final = "the device {ae_title}[ at {host}][ port {port}][ with {services}]"

# By method and path, as the OpenAPI document has it. `hospital` is of the operation's own telling.
_WORDS: Final = {
    "POST /v1/devices": Words("add", "added", _DEVICE, "a device"),
    "DELETE /v1/devices/{ae_title}": Words("remove", "removed", "the device {ae_title}"),
    "POST /v1/aliases": Words(
        "give", "gave", "{published} the local name {local}", "a device a local name"
    ),
    "DELETE /v1/aliases/{local}": Words("remove", "removed", "the local name {local}"),
    "POST /v1/destinations": Words(
        "set",
        "set",
        "what goes to {called}[ from {calling}][ to be {mode}]",
        "how objects go to a device",
    ),
    "DELETE /v1/destinations/{called}": Words("stop", "stopped", "queueing what goes to {called}"),
    "POST /v1/apply": Words("apply", "applied", "a file of devices, names and grants"),
    "POST /v1/asks": Words(
        "ask",
        "asked",
        "for {services} of {ae_title}[, for {calling}]",
        "for the use of a device",
    ),
    "DELETE /v1/asks/{number}": Words(
        "decline", "declined", "request {number}[: {hospital} for {services} of {ae_title}]"
    ),
    "POST /v1/asks/{number}/accept": Words(
        "grant", "granted", "request {number}[: {hospital} may use {services} of {ae_title}]"
    ),
    "DELETE /v1/asked/{ae_title}": Words("forget", "forgot", "what was asked of {ae_title}"),
    "POST /v1/grants": Words(
        "grant",
        "granted",
        "{services} of {ae_title}[ to {hospital}][, for {calling} alone]",
        "the use of a device",
    ),
    "DELETE /v1/grants/{number}": Words(
        "take back", "took back", "grant {number}[: {services} of {ae_title} to {hospital}]"
    ),
    "POST /v1/enrolment": Words("join", "joined", "a network[ as {hospital}][, at {bridge}]"),
    "POST /v1/peers": Words("verify", "verified", "[{hospital} by its ]contact string"),
    "POST /v1/peers/{fingerprint}/verify": Words(
        "verify", "verified", "[{hospital} by ]the fingerprint {fingerprint}"
    ),
    "POST /v1/peers/{fingerprint}/accept": Words(
        "accept", "accepted", "AE titles[ {ae_titles}] as those of {fingerprint}[, {hospital}]"
    ),
    "POST /v1/people": Words("add", "added", "{name}[ as {role}]", "a person"),
    f"POST {_PERSON}/role": Words("give", "gave", "{name}[ the role {role}]"),
    f"POST {_PERSON}/password": Words("give", "gave", "{name} another password"),
    f"POST {_PERSON}/link": Words("make", "made", "a one-time link for {name}"),
    f"DELETE {_PERSON}": Words("remove", "removed", "the person {name}"),
    "POST /v1/first-link": Words("make", "made", "the first administrator's one-time link"),
    "POST /v1/api-tokens": Words(
        "make", "made", "the API token {name}[ with the role {role}]", "an API token"
    ),
    "DELETE /v1/api-tokens/{name}": Words("remove", "removed", "the API token {name}"),
    "POST /v1/tokens": Words(
        "make", "made", "the DICOMweb token {name}[ for {device}]", "a DICOMweb token"
    ),
    "DELETE /v1/tokens/{name}": Words("remove", "removed", "the DICOMweb token {name}"),
    "POST /v1/queue/retry": Words("retry", "retried", "objects in the queue[ for {called}]"),
    "POST /v1/queue/discard": Words("discard", "discarded", "objects in the queue[ for {called}]"),
    "POST /v1/queue/pause": Words(
        "pause", "paused", "what goes to {called}", "what goes to a device"
    ),
    "POST /v1/queue/resume": Words(
        "resume", "resumed", "what goes to {called}", "what goes to a device"
    ),
    "POST /v1/invitations": Words("invite", "invited", "{name}", "a hospital"),
    "DELETE /v1/invitations/{id}": Words("take back", "took back", "the invitation {id}"),
    "POST /v1/providers": Words(
        "set up", "set up", "the object store {name}[, {kind}]", "an object store"
    ),
    "POST /v1/providers/use": Words(
        "use",
        "put",
        "object stores in use, in this order: {names}",
        "object stores in another order",
    ),
    "DELETE /v1/providers/{name}": Words("remove", "removed", "the object store {name}"),
    "DELETE /v1/restoration": Words(
        "confirm", "confirmed", "that what a restored backup had undone is set right"
    ),
    "POST /v1/routers/{fingerprint}/revoke": Words(
        "revoke", "revoked", "the Router[ of {hospital},] {fingerprint}"
    ),
    "DELETE /v1/sessions/{session}": Words("end", "ended", "the session {session}"),
}

# Where the operation has told that what it was given took another's place.
_REPLACING: Final = {"POST /v1/devices": Words("change", "changed", _DEVICE, "a device")}


def words_of(operation: str, values: Mapping[str, Any]) -> Words | None:
    """The words for "POST /v1/devices"; None for one that has none."""
    if values.get(REPLACED) and operation in _REPLACING:
        return _REPLACING[operation]
    return _WORDS.get(operation)
