"""`relay peer`: the other hospitals."""

import re
from typing import Any

import click

from relay.cli.context import Group, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import print_json, print_table, quoted, say
from relay.cli.router import control
from relay.errors import Refused
from relay.router.peers import SHORTEST_FINGERPRINT

# Eight groups of four letters, or a part of them, however they were written down
# (relay.identity.fingerprint). A contact string has a colon.
_FINGERPRINT = re.compile(r"[A-Za-z2-7][A-Za-z2-7 -]*")


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

    Raises Refused if there is none; a name is the peer's own word, so two of one name are refused.
    """
    peers = process.get("/v1/peers")
    named = [p for p in peers if p["name"].casefold() == words.casefold()]
    if len(named) > 1:
        raise Refused(409, f"{len(named)} peers call themselves {words!r}: give a fingerprint")
    if named:
        return dict(named[0])
    found = [
        p
        for p in peers
        if len(words) >= SHORTEST_FINGERPRINT and p["fingerprint"].startswith(words.lower())
    ]
    if len(found) != 1:
        raise Refused(404, f"no peer {words!r}; `relay peer list` shows them all")
    return dict(found[0])


@peer.command("verify")
@click.argument("contact")
@click.pass_obj
def peer_verify(invocation: Invocation, contact: str) -> None:
    """Say that the other hospital is who it says, by what it gave you by other means.

    CONTACT is its contact string, on paper or by signed mail, or its whole fingerprint, as it was
    read out to you by telephone.
    """
    process = control(invocation)
    if _FINGERPRINT.fullmatch(contact.strip()):
        answer = process.post(f"/v1/peers/{quoted(contact.strip())}/verify")
    else:
        answer = process.post("/v1/peers", {"contact": contact})
    say(f"{answer['name']} is verified")


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
