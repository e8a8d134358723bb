"""What is said of calls that were refused lately."""

from typing import Any

import pytest

from relay.cli import doctor_calls
from relay.cli.doctor_calls import Known
from relay.providers import Finding
from relay.router.schemas import DESTINATION, DEVICE_SHOWN

NOW = 1_000_000.0
GRANT = "B has granted this Router nothing of PACS: ask with `relay grant ask PACS --services …`"


def device(ae_title: str = "WS", host: str = "10.0.0.1", **more: Any) -> dict[str, Any]:
    """As GET /v1/devices has it, less what nobody here reads."""
    usual = {"services": [], "check_address": True, "refusal": None, "published_as": ae_title}
    assert (usual | more).keys() <= DEVICE_SHOWN["properties"].keys()
    return {"ae_title": ae_title, "host": host} | usual | more


def refusal(why: str, calling: str = "WS", ago: float = 10) -> dict[str, Any]:
    said = {"calling": calling, "called": "PACS", "why": why, "destination": ""}
    return {"time": NOW - ago} | said


def published(granted: tuple[str, ...] = (), *, connected: bool = True) -> dict[str, Any]:
    """A row of GET /v1/directory."""
    return {"ae_title": "PACS", "granted": list(granted), "connected": connected}


async def recent(*refusals: dict[str, Any], **known: Any) -> list[Finding]:
    rows = doctor_calls.recent(refusals, Known(**{"devices": [device()]} | known), NOW)
    return [finding async for finding in rows]


async def test_equal_ones_are_one_and_old_ones_none() -> None:
    (finding,) = await recent(
        refusal(GRANT, ago=130),
        refusal(GRANT, ago=500),
        refusal("older", ago=doctor_calls.RECENT + 1),
        directory=[published()],
    )
    assert finding == Finding("WS called PACS, and was refused 2 times, 2 min ago", False, GRANT)


NOT_KNOWN = "what PACS takes is not known yet: rejected for now: temporary congestion"


def queued(**more: Any) -> dict[str, Any]:
    """A row of GET /v1/destinations, less what nobody here reads."""
    usual = {"local": "PACS", "mode": "queued", "calling": "", "known": ["A_CT"]}
    assert (usual | more).keys() <= DESTINATION["properties"].keys()
    return usual | more


async def test_a_destination_that_accepts_nothing_yet_is_a_fault() -> None:
    ours = [device(published_as="A_WS")]
    (finding,) = await recent(refusal(NOT_KNOWN), devices=ours, destinations=[queued()])
    assert not finding.ok
    assert finding.advice.startswith(f"{NOT_KNOWN}; nothing is accepted from WS until PACS")


@pytest.mark.parametrize(
    "destinations",
    [
        [],
        [queued(known=["A_WS"])],
        [queued(mode="confirmed")],
        [queued(calling="A_CT")],
        [queued(local="OTHER")],
    ],
)
async def test_and_none_once_it_is_known_or_not_queued(destinations: list[dict[str, Any]]) -> None:
    ours = [device(published_as="A_WS")]
    assert await recent(refusal(NOT_KNOWN), devices=ours, destinations=destinations) == []


async def test_move_destinations_are_not_among_them() -> None:
    """A call has come about: relay.cli.doctor_moves."""
    assert await recent(refusal(GRANT) | {"destination": "WS"}, directory=[published()]) == []


async def test_no_more_than_a_person_reads() -> None:
    many = [refusal(f"cause {number}") for number in range(2 * doctor_calls.MOST)]
    assert len(await recent(*many)) == doctor_calls.MOST


async def test_a_caller_that_is_not_set_up() -> None:
    (finding,) = await recent(refusal("'CT 1' is no device of this Router", "CT 1"))
    assert not finding.ok
    assert "relay device add 'CT 1' HOST [PORT]" in finding.advice


async def test_a_caller_that_was_set_up_since_is_not_named() -> None:
    assert await recent(refusal("'WS' is no device of this Router")) == []


@pytest.mark.parametrize("calling", ["RELAY", "WS", "NORTH_WS", "FAR_WS"])
async def test_who_was_refused_for_another_cause_is_no_device_to_add(calling: str) -> None:
    (finding,) = await recent(refusal(GRANT, calling), directory=[published()])
    assert "device add" not in finding.advice


@pytest.mark.parametrize("address", ["10.0.0.9", "fd00::9"])
async def test_a_caller_from_another_address(address: str) -> None:
    why = f"'WS' calls from {address}, which is not its host"
    (finding,) = await recent(refusal(why))
    assert not finding.ok
    assert f"relay device add WS {address}" in finding.advice
    assert "relay device add WS 10.0.0.1 --any-address" in finding.advice
    for mended in (device(host=address), device(check_address=False)):
        assert await recent(refusal(why), devices=[mended]) == []


NOBODY = "called AE title 'PACS' is not published; `relay peer list` shows what there is"
OFFLINE = "B's Router is not connected to the Bridge: is it switched on?"


@pytest.mark.parametrize(
    ("why", "then", "now"),
    [
        (NOBODY, [], [published()]),
        (OFFLINE, [published(connected=False)], [published()]),
    ],
)
async def test_what_is_visibly_mended_is_not_named(
    why: str, then: list[dict[str, Any]], now: list[dict[str, Any]]
) -> None:
    aliases = [{"local": "B_PACS", "published": "PACS"}]
    said = refusal(why) | {"called": "B_PACS"}
    (finding,) = await recent(said, directory=then, aliases=aliases)
    assert finding == Finding("WS called B_PACS, and was refused, just now", False, why)
    assert await recent(said, directory=now, aliases=aliases) == []


async def test_what_is_said_of_the_router_itself_is_not_said_again() -> None:
    causes = "no connection to the Bridge: x", "this Router is not enrolled: `relay enroll`"
    assert await recent(*map(refusal, causes)) == []


async def test_what_befell_a_call_that_had_come_about() -> None:
    (finding,) = await recent(refusal("the association was aborted: by PACS of B"))
    assert (finding.what, finding.ok) == ("WS called PACS, and was aborted, just now", True)


async def test_what_may_be_mended_out_of_sight_is_history() -> None:
    """A device that was switched off there, and a grant that is perhaps for another caller."""
    busy = "PACS of B is busy or does not answer its Router: try again later"
    rows = await recent(refusal(busy), refusal(GRANT), directory=[published(("store",))])
    assert [finding.ok for finding in rows] == [True, True]
    assert all(why in row.advice for why, row in zip((busy, GRANT), rows, strict=True))
    assert "the next call shows" in rows[0].advice


def test_a_title_that_another_hospital_has() -> None:
    why = "PACS is published by B already: publish it under another title"
    rows = [device(), device("PACS", refusal=why)]
    assert list(doctor_calls.titles(rows)) == [Finding("device PACS is published", False, why)]


def test_what_is_granted_to_nobody_and_who_asks_are_no_faults() -> None:
    devices = [device(), device("PACS", services=["store"]), device("MR", services=["store"])]
    grants = [{"ae_title": "MR"}]
    asks = [{"id": 3, "name": "B", "services": ["store", "echo"], "ae_title": "PACS"}]
    nobody, asked = doctor_calls.unused(devices, grants, asks)
    assert nobody.what == "device PACS is published, and granted to nobody"
    assert asked.what == "B asks for store, echo of PACS"
    assert "relay grant accept 3" in asked.advice
    assert nobody.ok
    assert asked.ok


def test_a_device_is_granted_by_its_published_title() -> None:
    devices = [device("PACS", services=["store"], published_as="PACS_NORTH")]
    assert list(doctor_calls.unused(devices, [{"ae_title": "PACS_NORTH"}], [])) == []
