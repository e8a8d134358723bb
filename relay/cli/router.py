"""What a hospital does with its Router: enrol, devices, peers, grants."""

from typing import Any

import click
from pydicom.uid import UID

from relay.cli.context import Command, Failure, Group, Invocation, json_option
from relay.cli.control import Control
from relay.cli.output import print_findings, print_json, print_table, quoted, say
from relay.errors import Refused
from relay.providers import Finding

SERVICES = "echo, store, query, retrieve, worklist, mpps, commit, private:<UID>"

# As the Router itself has it (relay.router.peers): what nobody grinds an identity for.
SHORTEST_FINGERPRINT = 12


def control(invocation: Invocation) -> Control:
    """The running Router. Raises ConfigurationError."""
    return Control(invocation.router(), invocation.file)


def words(text: str) -> list[str]:
    """What stands between the commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


@click.command(cls=Command)
@click.argument("invitation")
@click.pass_obj
def enroll(invocation: Invocation, invitation: str) -> None:
    """Join the network that INVITATION (from `relay invite` at the Bridge) is for."""
    answer = control(invocation).post("/v1/enrolment", {"invitation": invitation})
    enrolled = "already enrolled" if answer.get("already") else "enrolled"
    say(f"{enrolled} at {answer['bridge']} as {answer['name']}")
    say("your contact string, for other hospitals to verify you by:")
    say(f"  {answer['contact']}")


# --- devices ------------------------------------------------------------------------------------


@click.group(cls=Group)
def device() -> None:
    """The DICOM devices of this hospital."""


@device.command("add")
@click.argument("ae_title")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535), required=False)
@click.option(
    "--publish",
    "services",
    metavar="SERVICES",
    help=f"Publish it with these services, by commas: {SERVICES}. `none`: it calls out, and nobody"
    " sees it.",
)
@click.option("--maximum-associations", type=int, help="How many it may have open at once.")
@click.option("--answer-wait", type=float, help="Seconds to wait for a far association.")
@click.option("--resume-window", type=float, help="Seconds to wait for a lost tunnel.")
@click.option(
    "--any-address/--own-address",
    default=None,
    help="Let its name come from any address, or from its host's only.",
)
@click.option(
    "--user-identity/--no-user-identity",
    default=None,
    help="Let its user identity leave the hospital.",
)
@click.pass_obj
def device_add(
    invocation: Invocation,
    ae_title: str,
    host: str,
    port: int | None,
    services: str | None,
    maximum_associations: int | None,
    answer_wait: float | None,
    resume_window: float | None,
    any_address: bool | None,
    user_identity: bool | None,
) -> None:
    """Add the device AE_TITLE at HOST (PORT 104 unless given), or change it: what is not given
    stays as it was, or as usual."""
    given: dict[str, Any] = {
        "ae_title": ae_title,
        "host": host,
        "port": port,
        "services": _published(services),
        "maximum_associations": maximum_associations,
        "answer_wait": answer_wait,
        "resume_window": resume_window,
        "check_address": None if any_address is None else not any_address,
        "user_identity": user_identity,
    }
    process = control(invocation)
    known = [d for d in process.get("/v1/devices") if d["ae_title"] == ae_title.strip()]
    before = {name: value for d in known for name, value in d.items() if name != "refusal"}
    entry = before | {name: value for name, value in given.items() if value is not None}
    answer = process.post("/v1/devices", entry)
    if answer.get("refusal"):
        raise Failure(_taken(ae_title, answer["refusal"]), 1)
    if answer["services"]:
        advice = f"published with {_listed(answer['services'])}; try `relay device test {ae_title}`"
    else:
        advice = "not published: it may call out, and nobody sees it"
    say(f"{ae_title} at {answer['host']}:{answer['port']}, {advice}")
    if before:
        say(f"changed: {_changes(before, answer) or 'nothing'}")


def _published(services: str | None) -> list[str] | None:
    """What `--publish` says; None if it was not given."""
    if services is None:
        return None
    return [] if services.strip().lower() == "none" else words(services)


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> str:
    return "; ".join(
        f"{name.replace('_', ' ')}: {_listed(before[name])} -> {_listed(after[name])}"
        for name in before
        if name in after and before[name] != after[name]
    )


def _taken(ae_title: str, refusal: str) -> str:
    return (
        f"{ae_title} is set, but not published: {refusal.rstrip('.')}; add the device under that"
        f" AE title, then `relay device remove {ae_title}`"
    )


@device.command("list")
@json_option
@click.pass_obj
def device_list(invocation: Invocation, as_json: bool) -> None:
    """Show all devices."""
    devices = control(invocation).get("/v1/devices")
    if as_json:
        print_json(devices)
        return
    print_table(
        ("AE title", "host", "port", "published services", "associations at most"),
        (
            (
                d["ae_title"],
                d["host"],
                d["port"],
                "not published: taken" if d.get("refusal") else d["services"],
                d["maximum_associations"],
            )
            for d in devices
        ),
        empty="no devices; add one with `relay device add AE_TITLE HOST PORT`",
    )


@device.command("test")
@click.argument("ae_title")
@click.option("--all", "everything", is_flag=True, help="List all that it takes.")
@json_option
@click.pass_context
def device_test(ctx: click.Context, ae_title: str, everything: bool, as_json: bool) -> None:
    """C-ECHO the device AE_TITLE and probe what it takes."""
    answer = control(ctx.obj).post(f"/v1/devices/{quoted(ae_title)}/test")
    if as_json:
        print_json(answer)
    else:
        print_findings(Finding(**finding) for finding in answer["findings"])
        if everything:
            print_table(
                ("it stores", "in"),
                (
                    (UID(sop_class).name, [UID(syntax).name for syntax in syntaxes])
                    for sop_class, syntaxes in answer["accepted"].items()
                ),
                empty="it stores nothing that this Router proposed",
            )
    if not all(finding["ok"] for finding in answer["findings"]):
        ctx.exit(1)


@device.command("remove")
@click.argument("ae_title")
@click.pass_obj
def device_remove(invocation: Invocation, ae_title: str) -> None:
    """Forget the device AE_TITLE and what is granted of it; its associations end."""
    answer = control(invocation).delete(f"/v1/devices/{quoted(ae_title)}")
    say(f"{ae_title} removed")
    for g in answer["grants_removed"]:
        say(f"grant {g['id']} removed: {_listed(g['services'])} to {_whom(g)}")


def _whom(granted: dict[str, Any]) -> str:
    """The peer of a grant or an ask: its name is its own word, its fingerprint is not."""
    return f"{granted['name'] or 'unknown'} ({granted['peer']})"


# --- peers --------------------------------------------------------------------------------------


@click.group(cls=Group)
def peer() -> None:
    """The other hospitals."""


@peer.command("list")
@json_option
@click.pass_obj
def peer_list(invocation: Invocation, as_json: bool) -> None:
    """Show the other hospitals, and which of them have been verified."""
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
                p["publishes"],
                p["claims"],
            )
            for p in peers
        ),
        empty="no other hospital has enrolled yet",
    )
    states = [_state(p) for p in peers]
    if any("unverified" in state for state in states):
        say("unverified: ask for their contact string by other means, then `relay peer verify`")
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


def with_titles(process: Control) -> list[dict[str, Any]]:
    """All peers, each with the AE titles that it publishes."""
    peers, directory = process.get("/v1/peers"), process.get("/v1/directory")
    for p in peers:
        rows = [row for row in directory if row["peer"] == p["fingerprint"]]
        p["publishes"] = [row["ae_title"] for row in rows]
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
    """Enter the CONTACT string that the other hospital gave you by other means."""
    answer = control(invocation).post("/v1/peers", {"contact": contact})
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


# --- grants -------------------------------------------------------------------------------------


@click.group(cls=Group)
def grant() -> None:
    """What other hospitals may do with your devices."""


_services = click.option(
    "--services", required=True, metavar="SERVICES", help=f"By commas: {SERVICES}."
)
_calling = click.option(
    "--calling",
    default="",
    metavar="AE_TITLES",
    help="Only for these calling AE titles, by commas. Without: for any.",
)


@grant.command("add")
@click.argument("peer")
@click.argument("ae_title")
@_services
@_calling
@click.option("--user-identity", is_flag=True, help="Let its users' identities reach the device.")
@click.pass_obj
def grant_add(
    invocation: Invocation,
    peer: str,
    ae_title: str,
    services: str,
    calling: str,
    user_identity: bool,
) -> None:
    """Let PEER (a name or a fingerprint from `relay peer list`) use your device AE_TITLE."""
    process = control(invocation)
    grantee = resolve(process, peer)
    answer = process.post(
        "/v1/grants",
        {
            "peer": grantee["fingerprint"],
            "ae_title": ae_title,
            "services": words(services),
            "calling": words(calling),
            "user_identity": user_identity,
        },
    )
    say(
        f"grant {answer['id']}: {grantee['name']} ({grantee['state']}, {answer['peer']}) may use"
        f" {', '.join(answer['services'])} of {ae_title}"
    )


@grant.command("ask")
@click.argument("ae_title")
@_services
@_calling
@click.option("--note", default="", help="A word to the people there; it travels sealed.")
@click.pass_obj
def grant_ask(
    invocation: Invocation,
    ae_title: str,
    services: str,
    calling: str,
    note: str,
) -> None:
    """Ask the hospital that publishes AE_TITLE for SERVICES."""
    control(invocation).post(
        "/v1/asks",
        {
            "ae_title": ae_title,
            "services": words(services),
            "calling": words(calling),
            "note": note,
        },
    )
    say(f"asked for {services} of {ae_title}; the people there decide")


@grant.command("list")
@json_option
@click.pass_obj
def grant_list(invocation: Invocation, as_json: bool) -> None:
    """Show what is granted, and what other hospitals have asked for."""
    process = control(invocation)
    grants, asks = process.get("/v1/grants"), process.get("/v1/asks")
    if as_json:
        print_json({"grants": grants, "asks": asks})
        return
    print_table(
        ("grant", "peer", "fingerprint", "device", "services", "calling"),
        ((g["id"], g["name"], g["peer"], g["ae_title"], _granted(g), g["calling"]) for g in grants),
        empty="nothing is granted to anybody;"
        " `relay grant add PEER AE_TITLE --services SERVICES` does",
    )
    if asks:
        say("asked for:")
        print_table(
            ("ask", "peer", "fingerprint", "device", "services", "calling", "note"),
            (
                (
                    a["id"],
                    a["name"],
                    a["peer"],
                    a["ae_title"],
                    a["services"],
                    a["calling"],
                    a["note"],
                )
                for a in asks
            ),
            empty="",
        )


def _granted(g: dict[str, Any]) -> list[str]:
    """The services of a grant; those that are no longer published hold for nothing."""
    return [
        f"{word} (not published)" if word in g["unpublished"] else word for word in g["services"]
    ]


@grant.command("accept")
@click.argument("number", type=int)
@click.pass_obj
def grant_accept(invocation: Invocation, number: int) -> None:
    """Grant what ask NUMBER (see `grant list`) asks for."""
    answer = control(invocation).post(f"/v1/asks/{number}/accept")
    say(
        f"grant {answer['id']}: {_whom(answer)} may use {_listed(answer['services'])} of"
        f" {answer['ae_title']}"
    )


@grant.command("decline")
@click.argument("number", type=int)
@click.pass_obj
def grant_decline(invocation: Invocation, number: int) -> None:
    """Throw ask NUMBER away."""
    control(invocation).delete(f"/v1/asks/{number}")
    say(f"ask {number} declined")


@grant.command("remove")
@click.argument("number", type=int)
@click.pass_obj
def grant_remove(invocation: Invocation, number: int) -> None:
    """Take back the grant NUMBER; associations that rest on it end."""
    control(invocation).delete(f"/v1/grants/{number}")
    say(f"grant {number} removed")
