"""What is said of calls that were refused lately."""

from typing import Any

import pytest

from relay.cli import doctor_calls
from relay.providers import Finding

NOW = 1_000_000.0
GRANT = "B has granted this Router nothing of PACS: ask with `relay grant ask PACS --services …`"


def device(ae_title: str = "WS", host: str = "10.0.0.1", **more: Any) -> dict[str, Any]:
    usual = {"services": [], "check_address": True, "refusal": None}
    return {"ae_title": ae_title, "host": host} | usual | more


def refusal(why: str, calling: str = "WS", ago: float = 10) -> dict[str, Any]:
    return {"time": NOW - ago, "calling": calling, "called": "PACS", "why": why}


async def recent(*refusals: dict[str, Any], devices: tuple[Any, ...] = ()) -> list[Finding]:
    rows = doctor_calls.recent(refusals, devices, "RELAY", NOW)
    return [finding async for finding in rows]


async def test_equal_ones_are_one_and_old_ones_none() -> None:
    (finding,) = await recent(
        refusal(GRANT, ago=130),
        refusal(GRANT, ago=500),
        refusal("older", ago=doctor_calls.RECENT + 1),
        devices=(device(),),
    )
    assert finding == Finding("WS called PACS, and was refused 2 times, 2 min ago", False, GRANT)


async def test_no_more_than_a_person_reads() -> None:
    many = [refusal(f"cause {number}") for number in range(2 * doctor_calls.MOST)]
    assert len(await recent(*many, devices=(device(),))) == doctor_calls.MOST


async def test_a_caller_that_is_not_set_up() -> None:
    (finding,) = await recent(refusal("'CT 1' is no device of this Router", "CT 1"))
    assert "relay device add 'CT 1' HOST [PORT]" in finding.advice


async def test_a_caller_that_was_set_up_since_is_not_named() -> None:
    assert await recent(refusal("'WS' is no device of this Router"), devices=(device(),)) == []


async def test_the_command_line_is_no_device_to_add() -> None:
    (finding,) = await recent(refusal(GRANT, "RELAY"))
    assert "device add" not in finding.advice


@pytest.mark.parametrize("address", ["10.0.0.9", "fd00::9"])
async def test_a_caller_from_another_address(address: str) -> None:
    why = f"'WS' calls from {address}, which is not its host"
    (finding,) = await recent(refusal(why), devices=(device(),))
    assert f"relay device add WS {address}" in finding.advice
    assert "relay device add WS 10.0.0.1 --any-address" in finding.advice
    for mended in (device(host=address), device(check_address=False)):
        assert await recent(refusal(why), devices=(mended,)) == []


def test_a_title_that_another_hospital_has() -> None:
    rows = [device(), device("PACS", refusal="PACS is published by B.")]
    (finding,) = doctor_calls.titles(rows)
    assert not finding.ok
    assert finding.advice.startswith("PACS is published by B; ")
    assert "relay device add PACS 10.0.0.1 --as OTHER_AE_TITLE" in finding.advice


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


def test_an_alias_is_granted_by_its_published_name() -> None:
    devices = [device("PACS", services=["store"], published="PACS_NORTH")]
    assert list(doctor_calls.unused(devices, [{"ae_title": "PACS_NORTH"}], [])) == []
