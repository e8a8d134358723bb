"""Which items people mean: read from a query or a request's body, by the titles they know.

Everything that is not understood is refused by name (400), since what is done to a selection cannot
be taken back.
"""

from collections.abc import Mapping
from typing import Any

from relay.dicom.pdu import is_uid
from relay.errors import Refused
from relay.router.entries import Entry, ae_title
from relay.router.queue.state import Queue
from relay.spool.items import Selection, State
from relay.spool.people import PAGE

# SQLite's integers; item numbers rise from 1.
MAXIMUM_NUMBER = 2**63 - 1

FIELDS = ("called", "calling", "study", "state", "numbers", "after", "until")

_FLAGS = {"true": True, "false": False}

STATES = {state.word: state for state in State}


def from_query(parameters: Mapping[str, str]) -> dict[str, Any]:
    """A query's texts as a body has them: numbers as numbers, true and false as such.

    Raises Refused (400) for what is not a number and should be.
    """
    fields: dict[str, Any] = dict(parameters)
    for name in ("after", "until", "limit"):
        if name in fields:
            fields[name] = _number(name, fields[name])
    if fields.get("latest") in _FLAGS:
        fields["latest"] = _FLAGS[fields["latest"]]
    if "numbers" in fields:
        fields["numbers"] = [_number("numbers", text) for text in fields["numbers"].split(",")]
    return fields


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MAXIMUM_NUMBER)):
        raise Refused(400, f"{name}: {text[:40]!r} is no whole number")
    return int(text)


async def selection(queue: Queue, fields: Mapping[str, Any], *others: str) -> Selection:
    """The selection that `fields` describe; `others` are fields with another use.

    Titles are those that people here know, or published ones. Raises Refused: 400 naming the field
    that does not hold, 404 for a destination that there is not.
    """
    entry = Entry(fields)
    entry.only((*FIELDS, *others))
    called, calling = entry.title("called"), entry.title("calling")
    study = _text(fields, "study")
    if study and not is_uid(study):
        raise Refused(400, "study is a Study Instance UID")
    state = _text(fields, "state")
    if state and state not in STATES:
        raise Refused(400, f"state is {' or '.join(STATES)}")
    return Selection(
        called=await destination(queue, called) if called else None,
        calling=published_caller(queue, calling) if calling else None,
        study=study or None,
        state=STATES[state] if state else None,
        numbers=_numbers(fields["numbers"]) if "numbers" in fields else None,
        after=entry.whole("after", 0, 0, MAXIMUM_NUMBER),
        until=entry.whole("until", 0, 0, MAXIMUM_NUMBER) if "until" in fields else None,
    )


def picks(selected: Selection) -> bool:
    """Whether it names anything at all, beside from which number to which."""
    return any(
        part is not None
        for part in (
            selected.called,
            selected.calling,
            selected.study,
            selected.state,
            selected.numbers,
        )
    )


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise Refused(400, f"{name} is a text")
    return value


def _numbers(value: object) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or not value
        or len(value) > PAGE
        or not all(type(number) is int and 0 < number <= MAXIMUM_NUMBER for number in value)
    ):
        raise Refused(400, f"numbers is a list of 1 to {PAGE} item numbers")
    return tuple(value)


async def destination(queue: Queue, title: str) -> str:
    """The published title of a destination, by whatever title people know it.

    Also of one that only its items are left of. Raises Refused (404).
    """
    items = queue.spool.items
    known = {row.called for row in queue.destinations}
    known |= {tally.called for tally in await items.counts()}
    known |= {pause.called for pause in await items.pauses()}
    title = ae_title(title)
    # What people here call it goes before what the network does.
    for published in (queue.node.names.published(title), title):
        if published in known:
            return published
    raise Refused(404, f"no destination {title!r}; `relay queue list` shows them all")


def published_caller(queue: Queue, title: str) -> str:
    """The published title of one that sends from here; any other stays as it is."""
    device = queue.node.devices.get(title)
    return device.published if device is not None else title
