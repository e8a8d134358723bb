"""`relay peer`: the other hospitals."""

from typing import Any

import click

from relay.cli.context import Group, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import print_json, print_table, quoted, say
from relay.cli.router import control
from relay.errors import Refused
from relay.log import escape
from relay.router.peers import (
    SHORTEST_FINGERPRINT,
    letters_of,
    nobody_has_it,
    whole_fingerprint,
)


@click.group(cls=Group)
def peer() -> None:
    """The other hospitals."""


@peer.command("list")
@json_option
@click.pass_obj
def peer_list(invocation: Invocation, as_json: bool) -> None:
    """Show the other hospitals, what they publish and grant you, and who has been verified."""
    process = control(invocation)
    peers = with_titles(process)
    if as_json:
        print_json(peers)
        return
    print_table(
        ("name", "state", "connected", "fingerprint", "publishes", "claims"),
        (
            (
                p["name"],
                _state(p),
                p["connected"],
                p["fingerprint"],
                "; ".join(map(_published, p["publishes"])),
                p["claims"],
            )
            for p in peers
        ),
        empty="no other hospital has enrolled yet",
    )
    if any(not title["granted"] for p in peers for title in p["publishes"]):
        say("nothing granted: ask with `relay grant ask AE_TITLE --services SERVICES`")
    if any(not title["signed"] for p in peers for title in p["publishes"]):
        say(
            "not signed: the Bridge alone says whose it is; the hospital's own word comes with an"
            " ask"
        )
    states = [_state(p) for p in peers]
    if any("unverified" in state for state in states):
        say(
            "unverified: have their fingerprint read out by telephone, compare it with the one"
            " here, then `relay peer verify FINGERPRINT`; `relay status` has yours"
        )
    if any("changed" in state for state in states):
        say(
            "changed: it claims AE titles that were another hospital's, to which no call goes until"
            " you have compared fingerprints and `relay peer accept` it"
        )
    if any("gone" in state for state in states):
        say("gone: not in the network now: revoked, or not enrolled yet")
    if peers and not process.get("/v1/status")["connected"]:
        say("no connection to the Bridge: the states are as last known")


def _state(p: dict[str, Any]) -> str:
    """Verified or not, and what else is to be known of the peer."""
    words = ["verified" if p["verified"] else "unverified"]
    if p["state"] == "changed":
        words.append("changed")
    if not p["enrolled"]:
        words.append("gone")
    return ", ".join(words)


def _published(title: dict[str, Any]) -> str:
    """One AE title, and what of its services is granted."""
    if not title["signed"]:
        return (
            f"{title['ae_title']} (not signed): nothing granted of {', '.join(title['services'])}"
        )
    granted = ", ".join(title["granted"]) or "nothing"
    return f"{title['ae_title']}: {granted} granted of {', '.join(title['services'])}"


def with_titles(process: Control) -> list[dict[str, Any]]:
    """All peers, each with the AE titles that it publishes and what it grants of them."""
    peers, directory = process.get("/v1/peers"), process.get("/v1/directory")
    for p in peers:
        p["publishes"] = [
            {name: row[name] for name in ("ae_title", "services", "granted", "signed")}
            for row in directory
            if row["peer"] == p["fingerprint"]
        ]
    return list(peers)


def resolve(process: Control, words: str) -> dict[str, Any]:
    """The peer of this name, fingerprint, or long beginning of a fingerprint.

    Raises Refused if there is none; a name is the peer's own word, so two of one name are refused,
    and so are two whose fingerprints begin alike.
    """
    peers = process.get("/v1/peers")
    named = [p for p in peers if p["name"].casefold() == words.casefold()]
    if len(named) > 1:
        raise Refused(409, f"{len(named)} peers call themselves {words!r}: give a fingerprint")
    if named:
        return dict(named[0])
    found = _beginning(peers, words)
    if not found:
        raise Refused(404, f"no peer {words!r}; `relay peer list` shows them all")
    if len(found) > 1:
        raise Refused(409, "several peers' fingerprints begin so; give more of it")
    return dict(found[0])


def _beginning(peers: list[dict[str, Any]], words: str) -> list[dict[str, Any]]:
    """Those whose fingerprints begin so; none if that is no fingerprint, or too little of one."""
    try:
        wanted = letters_of(words)
    except Refused:
        return []
    if len(wanted) < SHORTEST_FINGERPRINT:
        return []
    return [p for p in peers if letters_of(p["fingerprint"]).startswith(wanted)]


@peer.command("verify")
@click.argument("contact")
@click.option("--yes", is_flag=True, help="Do not ask whose fingerprint it is meant to be.")
@click.pass_obj
def peer_verify(invocation: Invocation, contact: str, yes: bool) -> None:
    """Say that the other hospital is who it says, by what it gave you by other means.

    CONTACT is its contact string, on paper or by signed mail, or its whole fingerprint, as it was
    read out to you by telephone: then it says whose that is here, and asks whether you mean them.
    """
    process = control(invocation)
    if ":" in contact:  # as every contact string has, and no fingerprint
        answer = process.post("/v1/peers", {"contact": contact})
    else:
        chosen = _heard(process, contact)
        name, fingerprint = chosen["name"], chosen["fingerprint"]
        if not yes:
            click.confirm(f"Verify {escape(name)} (fingerprint {fingerprint})?", abort=True)
        # By the name that was shown: the Bridge may call it otherwise by now.
        answer = process.post(f"/v1/peers/{quoted(fingerprint)}/verify", {"name": name})
    say(f"{answer['name']} is verified ({answer['fingerprint']})")


def _heard(process: Control, words: str) -> dict[str, Any]:
    """The peer whose whole fingerprint was read out. Raises Refused, with a warning if none has
    it."""
    wanted = whole_fingerprint(words)
    for p in process.get("/v1/peers"):
        if p["fingerprint"] == wanted:
            return dict(p)
    raise nobody_has_it()


@peer.command("accept")
@click.argument("peer")
@click.pass_obj
def peer_accept(invocation: Invocation, peer: str) -> None:
    """Accept that AE titles which were another hospital's now belong to PEER."""
    process = control(invocation)
    chosen = resolve(process, peer)
    fingerprint = chosen["fingerprint"]
    claims = [row for row in process.get("/v1/directory") if row["claimed_by"] == fingerprint]
    former = {row["ae_title"]: f"{row['name'] or 'unknown'} ({row['peer']})" for row in claims}
    answer = process.post(f"/v1/peers/{quoted(fingerprint)}/accept")
    trust = "verified" if chosen["verified"] else "unverified"
    say(f"accepted of {chosen['name']} ({trust}, {fingerprint}):")
    for title in answer["ae_titles"]:
        say(f"  {title}, formerly of {former.get(title, 'another hospital')}")
