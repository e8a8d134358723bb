"""What people are shown of the queue: tables by destination, object and study; one object whole.

Times are as people here read them, reasons are in words.
"""

from typing import Any

from pydicom.uid import UID

from relay.cli.output import local_time, print_facts, print_table, say, size
from relay.cli.router import both_titles
from relay.spool.items import KEPT, State

# States that each have a column; what was discarded is nobody's concern any more.
_COUNTED = (State.WAITING, State.HELD, State.FAILED, State.DELIVERED)


def show_destinations(answer: dict[str, Any]) -> None:
    """What GET /v1/queue says: a line for each destination, and whether there is room."""
    print_table(
        ("to", "of", *(s.word for s in _COUNTED), "size", "oldest", "how it stands"),
        (
            (
                to_whom(place),
                place["name"] or "nobody now",
                *(place[state.word] for state in _COUNTED),
                size(sum(place["bytes"].get(state.word, 0) for state in KEPT)),
                local_time(place["oldest"]) if place["oldest"] is not None else None,
                _how_it_stands(place),
            )
            for place in answer["destinations"]
        ),
        empty="nothing is queued: senders are answered by the far devices themselves;"
        " `relay destination add AE_TITLE` changes that for one",
    )
    room = answer["room"]
    if room["refusing"]:
        say(f"no more objects are accepted: {room['refusing']}")


def to_whom(row: dict[str, Any]) -> str:
    """A destination by its title here, and its published one if that is another."""
    return both_titles(row["local"], row["called"])


def _how_it_stands(place: dict[str, Any]) -> str:
    words = []
    if place["paused"] is not None:
        words.append(paused(place["paused"]))
    elif place["sessions"]:
        words.append("sending")
    if place["trouble"]:
        words.append(place["trouble"])
    if place["again"]:
        words.append(f"tried again at {local_time(place['again'])}")
    words += [state.word for state in (State.HELD, State.FAILED) if place[state.word]]
    if not place["queued"]:
        words.append("no destination any more")
    return "; ".join(words)


def paused(pause: dict[str, Any]) -> str:
    """By whom, since when and why nothing goes out."""
    whose = "by a person" if pause["by"] == "person" else "by its own answer"
    words = f"paused {whose} since {local_time(pause['since'])}"
    return f"{words}: {pause['reason']}" if pause["reason"] else words


def show_items(answer: dict[str, Any]) -> None:
    """A page of GET /v1/queue/items, the latest first."""
    print_table(
        ("number", "to", "from", "state", "accepted", "size", "tries", "why"),
        (
            (
                item["number"],
                item["local"],
                item["device"],
                item["state"],
                local_time(item["accepted"]),
                size(item["length"]),
                item["attempts"],
                _why(item),
            )
            for item in answer["items"]
        ),
        empty="no such objects",
    )
    if answer["next"] is not None:
        say(f"there are more: `--until {answer['next']}` shows them")


def _why(item: dict[str, Any]) -> str:
    """Why it is not delivered, and when it is tried again."""
    words = [str(item["reason"])]
    if item["paused"] is not None:
        words.append(paused(item["paused"]))
    elif item["trouble"] and item["trouble"] != item["reason"]:
        words.append(item["trouble"])
    if item["again"]:
        words.append(f"again at {local_time(item['again'])}")
    return "; ".join(filter(None, words))


def show_studies(rows: list[dict[str, Any]]) -> None:
    """What GET /v1/queue/studies says."""
    print_table(
        (
            "study",
            "to",
            "accepted",
            "delivered",
            "failed",
            "waiting",
            "discarded",
            "since",
            "until",
        ),
        (
            (
                row["study"] or "not known",
                row["local"],
                row["accepted"],
                row["delivered"],
                row["failed"],
                row["waiting"],
                row["discarded"],
                local_time(row["since"]),
                local_time(row["until"]) if row["until"] is not None else None,
            )
            for row in rows
        ),
        empty="no such studies",
    )


def show_item(item: dict[str, Any]) -> None:
    """All that GET /v1/queue/items/NUMBER says."""
    rows = [
        ("number", item["number"]),
        ("to", f"{to_whom(item)} of {item['name'] or 'nobody now'}"),
        ("from", both_titles(item["device"], item["calling"])),
        ("state", item["state"]),
        ("why", _why(item) or "-"),
        ("tries", item["attempts"]),
        ("device's last answer", f"{item['status']}H" if item["status"] else "-"),
        ("kind", _named(item["sop_class"])),
        ("transfer syntax", _named(item["transfer_syntax"])),
        ("study", item["study"] or "not known"),
        ("SOP instance", item["sop_instance"]),
        ("size", size(item["length"])),
        ("accepted", local_time(item["accepted"])),
        ("ended", local_time(item["ended"]) if item["ended"] is not None else "-"),
        ("came with", f"association {item['batch']}, priority {item['priority']}"),
    ]
    print_facts((name, str(value)) for name, value in rows)


def _named(uid: str) -> str:
    name = UID(uid).name
    return uid if name == uid else f"{name} ({uid})"
