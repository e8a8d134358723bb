"""What the Bridge's REST takes and gives, as JSON Schema: a row for each kind of thing."""

from relay.web.operations import (
    COUNT,
    FINDING,
    FLAG,
    TEXT,
    TEXT_OR_NULL,
    Schema,
    listed,
    record,
)

COUNT_OR_NULL: Schema = {"type": ["integer", "null"]}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}

INVITATION = record(invitation=TEXT, id=TEXT, name=TEXT, expires=COUNT)
INVITATION_OPEN = record(name=TEXT, expires=COUNT)
INVITATION_ROW = record(
    id=TEXT, name=TEXT, created=COUNT, expires=COUNT, state=TEXT, router=TEXT_OR_NULL
)
# `last_seen` is null where it was never connected; `stored` are bytes in the Bridge's own store;
# `version` is of a connected Router's Relay, as it says.
ROUTER = record(
    fingerprint=TEXT,
    name=TEXT,
    enrolled=COUNT,
    revoked=FLAG,
    connected=FLAG,
    last_seen=COUNT_OR_NULL,
    stored=COUNT,
    version=TEXT_OR_NULL,
    ae_titles=listed(TEXT),
)
PUBLICATION = record(ae_title=TEXT, router=TEXT, name=TEXT, services=listed(TEXT), serial=COUNT)
GRANT = record(owner=TEXT, grantee=TEXT, ae_title=TEXT, services=listed(TEXT))
SESSION = record(
    session=TEXT,
    caller=TEXT,
    callee=TEXT,
    called=TEXT,
    provider=TEXT,
    created=COUNT,
    answered=FLAG,
    slots=listed(COUNT),
)
PROVIDER = record(
    name=TEXT,
    kind=TEXT,
    in_use=FLAG,
    place=COUNT,
    origin=TEXT_OR_NULL,
    leaving=FLAG,
    failing=FLAG,
    worked=FLAG,
    last_failure=TEXT_OR_NULL,
    failed_at=COUNT_OR_NULL,
    sessions=COUNT,
)
# What stays of a store that is removed: the sessions that rest on it, after which it goes.
REMOVED = record(sessions=COUNT)
FINDINGS = record(findings=listed(FINDING))
# `form` is how it is entered: text, secret, flag, choice or path. `settings` null: the kind's
# package does not say which settings it takes.
SETTING = record(
    name=TEXT,
    form=TEXT,
    words=TEXT,
    default=TEXT_OR_NULL,
    required=FLAG,
    choices=listed(TEXT),
    seldom=FLAG,
    label=TEXT,
)
KIND = record(
    kind=TEXT,
    settings={**listed(SETTING), "type": ["array", "null"]},
    available=FLAG,
    words=TEXT,
)
# What passed in each interval of so many seconds, the oldest first.
RATES = record(interval=COUNT, until=COUNT, messages=listed(COUNT), bytes=listed(COUNT))
WARNING = record(warning=TEXT, key=TEXT, words=TEXT, since=COUNT_OR_NULL)
# `space` is how much the Bridge's own store may hold, null where it is not set up; `moved` are
# sealed bytes that Routers have announced or sent in line; `warnings` are those of /v1/warnings in
# words.
STATUS = record(
    mode=TEXT,
    version=TEXT,
    url=TEXT,
    network=TEXT,
    fingerprint=TEXT,
    started=COUNT,
    routers=COUNT,
    connected=COUNT,
    publications=COUNT,
    sessions=COUNT,
    messages=COUNT,
    moved=COUNT,
    stored=COUNT,
    space=COUNT_OR_NULL,
    store=TEXT_OR_NULL,
    failing_stores=listed(TEXT),
    warnings=listed(TEXT),
)
