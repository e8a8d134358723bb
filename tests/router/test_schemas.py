"""What is described is what is given: the properties of each answer are those of its schema."""

from pathlib import Path
from typing import Any

from relay.router import schemas
from relay.router.aliases import Alias
from relay.router.asks import Ask
from relay.router.devices import Device
from relay.router.far_echo import Echo
from relay.router.federation.overview import overview
from relay.router.grants import Grant
from relay.router.live import LiveAssociation, Side
from relay.router.probe import Finding, Report
from relay.router.rates import Rates
from relay.router.refusals import Refusal
from tests.router.fakes import hospital, listing, publication
from tests.router.queue.parts import parts_of


def same(answer: dict[str, Any], schema: Any) -> bool:
    return answer.keys() == schema["properties"].keys()


async def test_answers_are_as_described(tmp_path: Path) -> None:
    assert same(Device("PACS", "h").to_json(), schemas.DEVICE)
    assert same(Alias("PACS_A", "PACS").to_json(), schemas.ALIAS)
    assert same(
        Grant(bytes(32), "PACS", frozenset({"echo"})).to_json()
        | {"name": "", "device": None, "unpublished": []},
        schemas.GRANT,
    )
    assert same(Ask(bytes(32), "PACS", frozenset({"echo"})).to_json() | {"name": ""}, schemas.ASK)
    assert same(Refusal(0, "WS", "PACS", "why").to_json() | {"cause": ""}, schemas.REFUSAL)
    assert same(Report([Finding("it answers", True)]).to_json(), schemas.FINDINGS)
    live = LiveAssociation("1", Side.CALLER, "WS", "WS", "PACS", "peer", lambda: True)
    assert same(live.to_json() | {"name": ""}, schemas.ASSOCIATION)
    assert same(live.finished() | {"name": ""}, schemas.FINISHED)
    assert same(Rates(lambda: (0, 0)).to_json(), schemas.RATES)
    assert same(Echo(Finding("it answers", True)).to_json(), schemas.ECHOED)
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        directory = me.joined().directory
        await directory.take(listing(north, publications=[publication(north, "PACS", "echo")]))
        (peer,), (title,) = directory.peers_json(), directory.to_json()
        (shown,) = await overview(me, await parts_of(me), None)
        assert same(peer, schemas.PEER)
        assert same(title, schemas.TITLE)
        assert same(shown, schemas.TITLE_SHOWN)


def test_what_is_taken_is_read() -> None:
    entry = {"ae_title": "PACS", "host": "h"}
    assert schemas.DEVICE_ENTRY["required"] == list(entry)
    assert Device.from_json(entry).to_json().keys() == schemas.DEVICE_ENTRY["properties"].keys()
