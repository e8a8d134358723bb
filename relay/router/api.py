"""The Router's REST, for people and scripts: what the command line speaks over the Unix socket.

One table: method, path, what it is for, what goes in, what comes out, and which refusals there are.
The document at /v1/openapi.json is made from it. What is refused is answered with {"error": "..."}
and the status that the refusal carries.
"""

from collections.abc import Sequence

from starlette.applications import Starlette

import relay
from relay.audit.changes import audited
from relay.people.roles import Role
from relay.router.dicomweb.overview import Overview
from relay.router.federation.federation import Federation
from relay.router.node import Node
from relay.router.peer_routes import PeerRoutes
from relay.router.queue.api import queue_operations
from relay.router.queue.state import Queue
from relay.router.routes import Enrol, Routes
from relay.router.schemas import (
    ALIAS,
    ALIAS_SHOWN,
    APPLY,
    ASK,
    ASK_ENTRY,
    ASKED,
    ASSOCIATION,
    CONFIGURED,
    DESTINATION,
    DESTINATION_ENTRY,
    DEVICE_ENTRY,
    DEVICE_SHOWN,
    ECHOED,
    FINDINGS,
    FINISHED,
    GRANT,
    GRANT_ADDED,
    GRANT_ENTRY,
    OBJECT,
    PEER,
    RATES,
    REFUSAL,
    TITLE_SHOWN,
)
from relay.web.operations import (
    FLAG,
    TEXT,
    Operation,
    listed,
    options,
    record,
    rest_app,
    with_document,
)


def control_operations(
    node: Node,
    enrol: Enrol,
    queue: Queue,
    more: Sequence[Operation] = (),
    federation: Federation | None = None,
    web: Overview | None = None,
) -> list[Operation]:
    """All operations on `node` and `queue`; `enrol` is what an invitation is given to.

    `more` are those of what else this Router serves. Without a `federation`, or DICOMweb (`web`),
    it is turned off.
    """
    do, peers = Routes(node, enrol, queue, federation, web), PeerRoutes(node)
    rows = [
        Operation("GET", "/v1/status", do.status, "Who this Router is, how it fares.", OBJECT),
        Operation(
            "POST",
            "/v1/enrolment",
            do.enrolment,
            "Join the network of an invitation.",
            record(bridge=TEXT, name=TEXT, contact=TEXT, already=FLAG),
            body=record(invitation=TEXT),
            refusals=(400, 403, 409, 502),
        ),
        Operation("GET", "/v1/devices", do.devices, "All devices.", listed(DEVICE_SHOWN)),
        Operation(
            "POST",
            "/v1/devices",
            do.put_device,
            "Add a device, or change it.",
            DEVICE_SHOWN,
            body=DEVICE_ENTRY,
            refusals=(400, 409),
        ),
        # As paths, since an AE title may hold a slash.
        Operation(
            "POST",
            "/v1/devices/{ae_title:path}/test",
            do.test_device,
            "C-ECHO a device, and probe what it takes.",
            FINDINGS,
            role=Role.OPERATOR,
            refusals=(404,),
        ),
        Operation(
            "DELETE",
            "/v1/devices/{ae_title:path}",
            do.remove_device,
            "Forget a device and what is granted of it; its associations end.",
            record(grants_removed=listed(GRANT)),
            refusals=(404,),
        ),
        Operation(
            "GET",
            "/v1/aliases",
            do.aliases,
            "By which local AE titles others' devices are known here.",
            listed(ALIAS_SHOWN),
        ),
        Operation(
            "POST",
            "/v1/aliases",
            do.put_alias,
            "Give another hospital's published AE title a local one.",
            ALIAS_SHOWN,
            body=ALIAS,
            refusals=(400, 409),
        ),
        Operation(
            "DELETE",
            "/v1/aliases/{local:path}",
            do.remove_alias,
            "Forget an alias.",
            ALIAS_SHOWN,
            refusals=(404,),
        ),
        Operation(
            "GET",
            "/v1/destinations",
            do.destinations,
            "What goes to other hospitals by way of the queue.",
            listed(DESTINATION),
        ),
        Operation(
            "POST",
            "/v1/destinations",
            do.put_destination,
            "How what is sent to another hospital's device goes there, from one device or any.",
            DESTINATION,
            body=DESTINATION_ENTRY,
            refusals=(400, 409),
        ),
        Operation(
            "DELETE",
            "/v1/destinations/{called:path}",
            do.remove_destination,
            "Forget a destination; `?calling=` names the device if it is for one.",
            DESTINATION,
            refusals=(404, 409),
        ),
        Operation(
            "GET",
            "/v1/directory",
            do.directory,
            "All AE titles that are published, and how those that the federation asks have fared.",
            listed(TITLE_SHOWN),
            refusals=(409,),
        ),
        Operation(
            "POST",
            "/v1/directory/{ae_title:path}/echo",
            do.echo,
            "C-ECHO another hospital's device through the network, as this Router.",
            ECHOED,
            role=Role.OPERATOR,
            refusals=(400,),
        ),
        Operation(
            "GET", "/v1/peers", peers.peers, "All other hospitals.", listed(PEER), refusals=(409,)
        ),
        Operation(
            "POST",
            "/v1/peers",
            peers.verify_peer,
            "A person has compared this contact.",
            record(name=TEXT, fingerprint=TEXT),
            body=record(contact=TEXT),
            refusals=(400, 409),
        ),
        Operation(
            "POST",
            "/v1/peers/{fingerprint}/verify",
            peers.confirm_peer,
            "A person has compared this fingerprint, by telephone or on paper, as `name`'s.",
            record(name=TEXT, fingerprint=TEXT),
            body=options(name=TEXT),
            refusals=(400, 404, 409),
        ),
        Operation(
            "POST",
            "/v1/peers/{fingerprint}/accept",
            peers.accept_peer,
            "AE titles that were another hospital's are this peer's now.",
            record(name=TEXT, fingerprint=TEXT, ae_titles=listed(TEXT)),
            refusals=(400, 404, 409),
        ),
        Operation("GET", "/v1/grants", peers.grants, "What this hospital grants.", listed(GRANT)),
        Operation(
            "POST",
            "/v1/grants",
            peers.add_grant,
            "Let a peer use services of a device, in place of a grant for the same callers.",
            GRANT_ADDED,
            status=201,
            body=GRANT_ENTRY,
            refusals=(400, 404, 409),
        ),
        Operation(
            "DELETE",
            "/v1/grants/{number:whole}",
            peers.remove_grant,
            "Take a grant back; what rests on it ends.",
            OBJECT,
            refusals=(404,),
        ),
        Operation("GET", "/v1/asks", peers.asks, "What others have asked for.", listed(ASK)),
        Operation(
            "POST",
            "/v1/asks",
            peers.ask,
            "Ask the hospital that publishes a device for a grant; travels sealed.",
            OBJECT,
            status=202,
            body=ASK_ENTRY,
            refusals=(400, 409, 502),
        ),
        Operation(
            "DELETE",
            "/v1/asks/{number:whole}",
            peers.remove_ask,
            "No; the asker is not told.",
            OBJECT,
            refusals=(404,),
        ),
        Operation(
            "POST",
            "/v1/asks/{number:whole}/accept",
            peers.accept_ask,
            "Grant what was asked for.",
            GRANT,
            status=201,
            refusals=(404, 409),
        ),
        Operation(
            "GET",
            "/v1/asked",
            peers.asked,
            "What this hospital has asked of others and is not granted yet, the last first.",
            listed(ASKED),
        ),
        Operation(
            "DELETE",
            "/v1/asked/{ae_title:path}",
            peers.remove_asked,
            "Wait for it no more; the other hospital is not told.",
            OBJECT,
            refusals=(404,),
        ),
        Operation(
            "POST",
            "/v1/apply",
            do.apply,
            "Bring devices, aliases, destinations and grants to what a document says; repeatable.",
            record(changes=listed(TEXT), refusals=listed(TEXT)),
            body=APPLY,
            refusals=(400, 404, 409, 413),
        ),
        Operation("GET", "/v1/associations", do.associations, "What runs.", listed(ASSOCIATION)),
        Operation(
            "GET",
            "/v1/associations/recent",
            do.recent_associations,
            "What ended last, the newest first.",
            listed(FINISHED),
        ),
        Operation(
            "GET",
            "/v1/rates",
            do.rates,
            "How fast data went to other hospitals and came from them, of the last 15 minutes.",
            RATES,
        ),
        Operation(
            "GET",
            "/v1/configuration",
            do.configuration,
            "The keys of relay.toml, and what this process runs with.",
            listed(CONFIGURED),
        ),
        Operation(
            "GET",
            "/v1/refusals",
            do.refusals,
            "Why calls of this hospital were refused, the newest first.",
            listed(REFUSAL),
        ),
        *queue_operations(queue),
        *more,
    ]
    auditing = node.auditing
    rows = audited(rows, auditing.record, lambda: auditing.router)
    return with_document("Relay Router", relay.__version__, rows)


def make_app(
    node: Node,
    enrol: Enrol,
    queue: Queue,
    more: Sequence[Operation] = (),
    federation: Federation | None = None,
    web: Overview | None = None,
) -> Starlette:
    """The ASGI app of the Unix socket."""
    return rest_app(control_operations(node, enrol, queue, more, federation, web))
