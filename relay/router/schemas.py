"""What the Router's REST takes and gives, as the OpenAPI document describes it."""

from relay.router.causes import Cause
from relay.router.devices import MoveVia
from relay.router.directory import Standing
from relay.router.federation.overview import Reach
from relay.router.live import Side, Work
from relay.router.passthrough import How
from relay.router.queue.destinations import Mixed, Mode
from relay.spool.items import Priority
from relay.web.operations import (
    COUNT,
    FINDING,
    FLAG,
    TEXT,
    TEXT_OR_NULL,
    Schema,
    listed,
    options,
    record,
)

SECONDS: Schema = {"type": "number"}
_SECONDS_OR_NULL: Schema = {"type": ["number", "null"]}
# Transfer syntaxes by SOP class.
_TAKEN: Schema = {"type": "object", "additionalProperties": listed(TEXT)}
DEVICE = record(
    ae_title=TEXT,
    host=TEXT,
    port=COUNT,
    services=listed(TEXT),
    maximum_associations=COUNT,
    answer_wait=SECONDS,
    resume_window=SECONDS,
    check_address=FLAG,
    user_identity=FLAG,
    published_as=TEXT,
    tls=FLAG,
    tls_name=TEXT,
    move_via={"enum": [via.value for via in MoveVia]},
    present_as=TEXT,
    place_wait=SECONDS,
    linger=SECONDS,
    split=COUNT,
    declares=_TAKEN,
    federation=FLAG,
    issuer=TEXT,
    character_set=TEXT,
    get_via_move=FLAG,
)
# `refusal`: why the Bridge does not publish it.
DEVICE_SHOWN = record(**DEVICE["properties"], refusal=TEXT_OR_NULL)
DEVICE_ENTRY = dict(DEVICE) | {"required": ["ae_title", "host"]}
ALIAS = record(local=TEXT, published=TEXT)
# Who publishes it now: a fingerprint, and a name that is empty for nobody.
ALIAS_SHOWN = record(**ALIAS["properties"], peer=TEXT_OR_NULL, name=TEXT)
FINDINGS = record(
    findings=listed(FINDING),
    accepted=_TAKEN,
)
# Both titles as a person knows them, or as they are published.
DESTINATION_ENTRY = dict(
    options(
        called=TEXT,
        calling=TEXT,
        mode={"enum": [mode.value for mode in Mode]},
        mixed={"enum": [mixed.value for mixed in Mixed]},
        priority={"enum": [priority.name.lower() for priority in Priority]},
    )
) | {"required": ["called"]}
# Published titles; `local` and `device` are the same here, `device` empty for any. `known`: of
# which calling AE titles it is known what the device there takes; `unknown`: of which it could not
# be learned, and why; `refused`: what kinds it has refused at a delivery, by calling AE title;
# `granted`: the services that its owner grants this hospital.
DESTINATION = record(
    **DESTINATION_ENTRY["properties"],
    local=TEXT,
    device=TEXT,
    peer=TEXT_OR_NULL,
    name=TEXT,
    known=listed(TEXT),
    unknown={"type": "object", "additionalProperties": TEXT},
    refused={"type": "object", "additionalProperties": listed(TEXT)},
    granted=listed(TEXT),
)
# `granted`: the services that its owner grants this hospital, as the Bridge says. `signed`: whether
# `peer` has said itself that it publishes this, and not only the Bridge.
TITLE = record(
    ae_title=TEXT,
    services=listed(TEXT),
    granted=listed(TEXT),
    peer=TEXT,
    name=TEXT,
    own=FLAG,
    signed=FLAG,
    connected=FLAG,
    claimed_by=TEXT_OR_NULL,
)
# `hospital`: whose it is, also for our own; `local`: its AE title here, null where it has none;
# `federation`: whether this hospital's asks it. Times are Unix seconds, those of `last_seen` and
# `last_error` when the federation asked it last; `transfer_syntaxes`: those that it is known to
# take.
TITLE_SHOWN = record(
    **TITLE["properties"],
    hospital=TEXT,
    local=TEXT_OR_NULL,
    federation=FLAG,
    state={"enum": [reach.value for reach in Reach]},
    last_seen=_SECONDS_OR_NULL,
    last_error=TEXT_OR_NULL,
    last_error_at=_SECONDS_OR_NULL,
    transfer_syntaxes=listed(TEXT),
)
PEER = record(
    fingerprint=TEXT,
    name=TEXT,
    verified=FLAG,
    state={"enum": [standing.value for standing in Standing]},
    connected=FLAG,
    enrolled=FLAG,
    claims=listed(TEXT),
)
# What a grant and a request for one both say.
_USE: dict[str, Schema] = {
    "ae_title": TEXT,
    "services": listed(TEXT),
    "calling": listed(TEXT),
}
# `ae_title` is the published one, `device` the local one, null without such a device;
# `unpublished`: the services among them that the device does not publish any more.
GRANT = record(
    id=COUNT,
    peer=TEXT,
    name=TEXT,
    **_USE,
    user_identity=FLAG,
    device=TEXT_OR_NULL,
    unpublished=listed(TEXT),
)
# `replaced`: the ids of those that it took the place of.
GRANT_ADDED = record(**GRANT["properties"], replaced=listed(COUNT))
GRANT_ENTRY = options(peer=TEXT, **_USE, user_identity=FLAG)
ASK = record(id=COUNT, peer=TEXT, name=TEXT, **_USE, note=TEXT, received=COUNT)
# What this hospital has asked of others; `waiting`: what of it is not granted.
ASKED = record(
    peer=TEXT, name=TEXT, ae_title=TEXT, services=listed(TEXT), waiting=listed(TEXT), asked=COUNT
)
ASK_ENTRY = options(**_USE, note=TEXT)
APPLY = options(
    devices=listed(DEVICE_ENTRY),
    aliases=listed(ALIAS),
    destinations=listed(DESTINATION_ENTRY),
    grants=listed(GRANT_ENTRY),
    prune=FLAG,
)
# `bytes_outward`: from who calls to who is called; `name` is the peer's.
ASSOCIATION = record(
    id=TEXT,
    side={"enum": [side.value for side in Side]},
    device=TEXT,
    calling=TEXT,
    called=TEXT,
    peer=TEXT,
    seconds=SECONDS,
    work={"enum": [work.value for work in Work]},
    bytes_outward=COUNT,
    bytes_inward=COUNT,
    objects=COUNT,
    name=TEXT,
)
# `how` is null where nobody said how it went: see the log.
FINISHED = record(
    **ASSOCIATION["properties"],
    ended=SECONDS,
    how={"enum": [*(how.value for how in How), None]},
    why=TEXT,
    revoked=FLAG,
)
# Bytes a second, in and out of this hospital; `interval` seconds to a sample, at most `maximum`.
RATES = record(
    interval=SECONDS,
    maximum=COUNT,
    samples=listed(record(time=SECONDS, sent=COUNT, received=COUNT)),
)
REFUSAL = record(
    time=SECONDS,
    calling=TEXT,
    called=TEXT,
    why=TEXT,
    destination=TEXT,
    cause={"enum": [cause.value for cause in Cause]},
)
ECHOED = record(finding=FINDING, milliseconds=_SECONDS_OR_NULL)
# A key of relay.toml: what it holds, or null; `given`: the file says so itself; `words` is what it
# is for. A secret's value is where it is kept.
CONFIGURED = record(
    table=TEXT,
    key=TEXT,
    value=TEXT_OR_NULL,
    default=TEXT_OR_NULL,
    given=FLAG,
    secret=FLAG,
    words=TEXT,
)
OBJECT: Schema = {"type": "object"}
