"""What a hospital does with its Router: enrol, devices, peers, grants."""

from typing import Any

import click
from pydicom.uid import UID

from relay.cli.context import Command, Group, Invocation, json_option
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
    say(f"enrolled at {answer['bridge']}")
    say("your contact string, for other hospitals to verify you by:")
    say(f"  {answer['contact']}")


# --- devices ------------------------------------------------------------------------------------


@click.group(cls=Group)
def device() -> None:
    """The DICOM devices of this hospital."""


@device.command("add")
@click.argument("ae_title")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535), default=104)
@click.option(
    "--publish",
    "services",
    metavar="SERVICES",
    default="",
    help=f"Publish it with these services, by commas: {SERVICES}. Without: it calls out, and"
    " nobody sees it.",
)
@click.option("--maximum-associations", type=int, help="How many it may have open at once.")
@click.option("--answer-wait", type=float, help="Seconds to wait for a far association.")
@click.option("--resume-window", type=float, help="Seconds to wait for a lost tunnel.")
@click.option("--any-address", is_flag=True, help="Let its name come from any address.")
@click.option("--user-identity", is_flag=True, help="Let its user identity leave the hospital.")
@click.pass_obj
def device_add(
    invocation: Invocation,
    ae_title: str,
    host: str,
    port: int,
    services: str,
    maximum_associations: int | None,
    answer_wait: float | None,
    resume_window: float | None,
    any_address: bool,
    user_identity: bool,
) -> None:
    """Add the device AE_TITLE at HOST (PORT 104 unless given), or change it."""
    entry: dict[str, Any] = {
        "ae_title": ae_title,
        "host": host,
        "port": port,
        "services": words(services),
        "maximum_associations": maximum_associations,
        "answer_wait": answer_wait,
        "resume_window": resume_window,
        "check_address": not any_address,
        "user_identity": user_identity,
    }
    entry = {name: value for name, value in entry.items() if value is not None}
    control(invocation).post("/v1/devices", entry)
    published = f"published with {services}" if services else "not published"
    say(f"{ae_title} at {host}:{port}, {published}; try `relay device test {ae_title}`")


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
            (d["ae_title"], d["host"], d["port"], d["services"], d["maximum_associations"])
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
    """Forget the device AE_TITLE; its associations end."""
    control(invocation).delete(f"/v1/devices/{quoted(ae_title)}")
    say(f"{ae_title} removed")


# --- peers --------------------------------------------------------------------------------------


@click.group(cls=Group)
def peer() -> None:
    """The other hospitals."""


@peer.command("list")
@json_option
@click.pass_obj
def peer_list(invocation: Invocation, as_json: bool) -> None:
    """Show the other hospitals, and which of them have been verified."""
    peers = with_titles(control(invocation))
    if as_json:
        print_json(peers)
        return
    print_table(
        ("name", "state", "connected", "fingerprint", "publishes", "claims"),
        (
            (p["name"], p["state"], p["connected"], p["fingerprint"], p["publishes"], p["claims"])
            for p in peers
        ),
        empty="no other hospital has enrolled yet",
    )
    if any(p["state"] == "unverified" for p in peers):
        say("unverified: ask for their contact string by other means, then `relay peer verify`")


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
    fingerprint = resolve(process, peer)["fingerprint"]
    answer = process.post(f"/v1/peers/{quoted(fingerprint)}/accept")
    say(f"accepted: {', '.join(answer['ae_titles'])}")


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
        ("grant", "peer", "device", "services", "calling"),
        ((g["id"], g["peer"], g["ae_title"], g["services"], g["calling"]) for g in grants),
        empty="nothing is granted to anybody; `relay grant add PEER AE_TITLE SERVICE…` does",
    )
    if asks:
        say("asked for:")
        print_table(
            ("ask", "peer", "device", "services", "calling", "note"),
            (
                (a["id"], a["peer"], a["ae_title"], a["services"], a["calling"], a["note"])
                for a in asks
            ),
            empty="",
        )


@grant.command("accept")
@click.argument("number", type=int)
@click.pass_obj
def grant_accept(invocation: Invocation, number: int) -> None:
    """Grant what ask NUMBER (see `grant list`) asks for."""
    answer = control(invocation).post(f"/v1/asks/{number}/accept")
    say(f"grant {answer['id']}: {', '.join(answer['services'])} of {answer['ae_title']}")


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
