"""A Router in which everything is there that its pages show, and every foreign text is nasty."""

import attrs
import trio

from relay.router.aliases import Alias
from relay.router.asks import Ask
from relay.router.devices import Device
from relay.router.grants import Grant
from relay.router.live import LiveAssociation, Side, Work, log_ending
from relay.router.node import Node
from relay.router.passthrough import Ending, How
from relay.router.queue.destinations import Destination
from relay.router.queue.warnings import Kind
from relay.signalling import messages
from relay.spool.index import Study
from relay.spool.items import Hold, Item, Pause, Selection, State
from relay.tunnel.ask import GrantRequest
from tests.router.fakes import publication, router_row
from tests.router.pages.site import NASTY, Browser
from tests.router.queue.queues import NOW, batch_of, becomes, keep

# AE titles hold all of printable ASCII but the backslash (PS3.5 §6.2).
OWN = "<i>\"'&OWN"
PUBLISHED = "<u>\"'&PUB"
FAR = "<s>\"'&FAR"
LOCAL = "<q>\"'&LOC"
STUDY = "1.2.840.77"


@attrs.frozen
class World:
    """What was made: the other hospital, and objects by their states."""

    far: Node
    items: dict[State, Item]


async def fill(browser: Browser, far: Node) -> World:
    """Another hospital with a nasty name; a device of each; a queue with one object in each state;
    calls that were refused, that run, and that are over."""
    node, queue = browser.node, browser.queue
    identity, _, key, _ = router_row(far)
    shown = messages.Directory(
        True,
        ((identity, NASTY[:60], key, True),),
        (publication(far, FAR, "echo", "store", "query"),),
        (),
        (),
    )
    await node.joined().directory.take(shown)
    device = Device(
        OWN, "192.0.2.1", published=PUBLISHED, services=frozenset({"echo", "store"}), issuer="<H>"
    )
    await node.put_device(device)
    await node.put_alias(Alias(LOCAL, FAR))
    await node.add_grant(Grant(identity, PUBLISHED, frozenset({"echo"}), frozenset({"<x>"})))
    request = GrantRequest(PUBLISHED, ("store",), ("<c>",), NASTY)
    await node.asks.keep(attrs.evolve(Ask.from_request(identity, request), note=NASTY), b"s", 1)
    await queue.destinations.put(Destination(FAR))
    items = await _objects(browser)
    await queue.pause(Pause(FAR, True, NASTY, NOW - 60))
    node.refusals.note("<call>", FAR, f"'<call>' is no device of this Router {NASTY}")
    node.refusals.note("<call>", FAR, f"'<call>' is no device of this Router {NASTY}")
    queue.warnings.begin(Kind.FAILED, FAR, f"objects for {FAR} {NASTY}", destination=FAR)
    _associations(browser, far)
    node.configuration = [
        {
            "table": "router",
            "key": "spool_space",
            "value": NASTY,
            "default": "50 GiB",
            "given": True,
            "secret": False,
            "words": "The most that may wait.",
        }
    ]
    return World(far, items)


async def _objects(browser: Browser) -> dict[State, Item]:
    queue = browser.queue
    batch = batch_of(FAR, PUBLISHED, OWN)
    items = {
        state: await keep(queue, batch, study=STUDY, instance=f"1.2.{state.value}")
        for state in State
    }
    await becomes(queue, items[State.FAILED], State.FAILED, NASTY)
    await becomes(queue, items[State.HELD], State.HELD, NASTY, Hold.NOT_ACCEPTED)
    await becomes(queue, items[State.DELIVERED], State.DELIVERED)
    number = items[State.DISCARDED].number
    await queue.spool.items.discard(Selection(numbers=(number,)), "discarded by a person", NOW)
    study = Study(
        uid=STUDY,
        patient_id="<id>4711",
        patient_name=NASTY,
        accession="A<1>",
        date="20261128",
        modality="CT",
        description=NASTY,
    )
    queue.spool.index.note(STUDY, lambda: study)
    return items


def _associations(browser: Browser, far: Node) -> None:
    live = browser.node.live
    over = _association(far)
    with live.hold(over):
        over.traffic.count(5 * 2**20)
        log_ending(over, Ending(How.ABORTED, "router", NASTY))
    running = _association(far)
    running.work = Work.DELIVERY
    running.traffic.count(2**20)
    live._entries.append(running)


def _association(far: Node) -> LiveAssociation:
    return LiveAssociation(
        number="abc",
        side=Side.CALLER,
        device=OWN,
        calling="<calling>",
        called=FAR,
        peer=far.identity.fingerprint,
        still_permitted=lambda: True,
        started=trio.current_time(),
    )
