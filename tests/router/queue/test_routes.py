"""The queue's REST, route by route: what people see, and what they do to it."""

from collections.abc import Collection, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import apsw
import pytest
import structlog
import trio
from structlog.testing import capture_logs

from relay.router.aliases import Alias
from relay.router.devices import Device
from relay.router.queue import routes
from relay.router.queue.destinations import Destination, Mode
from relay.router.queue.warnings import Kind
from relay.spool import custody, people
from relay.spool.index import Study
from relay.spool.items import Hold, Item, Pause, State
from relay.spool.segments import SEGMENT
from tests.router.fakes import hospital, listing, publication
from tests.router.queue.queues import NOW, FakeCouriers, batch_of, becomes, couriers_of, keep
from tests.router.rest import Client, client
from tests.spool import stock

STUDY, INSTANCE = "1.2.840.77", "1.2.840.99"


async def fill(call: Client) -> Sequence[Item]:
    """PACS has a waiting one, a failed one, a held one and a delivered one of CT; OTHER a waiting
    one of MR."""
    batch = batch_of("PACS", "CT_N", "CT")
    items = [await keep(call.queue, batch, study=STUDY, instance=f"{INSTANCE}.{n}") for n in "1234"]
    await becomes(call.queue, items[1], State.FAILED, "A900, does not match")
    await becomes(call.queue, items[2], State.HELD, "not any more", Hold.NOT_ACCEPTED)
    await becomes(call.queue, items[3], State.DELIVERED)
    return [*items, await keep(call.queue, batch_of("OTHER", "MR", "MR"), study="1.2.9")]


def numbers(answer: dict[str, Any]) -> list[int]:
    return [item["number"] for item in answer["items"]]


# --- looking --------------------------------------------------------------------------------------


async def test_the_overview_has_both_names_of_a_destination_and_its_hospital(
    tmp_path: Path,
) -> None:
    async with client(tmp_path) as call, hospital(tmp_path / "south", "SOUTH") as south:
        shown = listing(south, publications=[publication(south, "PACS", "store")])
        await call.node.joined().directory.take(shown)
        await call.node.put_alias(Alias("PACS_S", "PACS"))
        await call.queue.destinations.put(Destination("PACS"))
        await fill(call)
        answer = await call("GET", "/queue")
    other, pacs = answer["destinations"]
    assert (pacs["called"], pacs["local"], pacs["name"]) == ("PACS", "PACS_S", south.contact.name)
    assert pacs["peer"] == south.identity.fingerprint
    assert pacs["failed"] == 1
    assert (other["called"], other["local"], other["peer"], other["name"]) == (
        "OTHER",
        "OTHER",
        None,
        "",
    )
    assert answer["room"]["used"] == 4 * 26


async def test_items_are_selected(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await call.node.put_device(Device("CT", "192.0.2.1", published="CT_N"))
        await fill(call)
        for query, found in {
            "": [1, 2, 3, 4, 5],
            "?called=PACS": [1, 2, 3, 4],
            "?calling=CT": [1, 2, 3, 4],
            "?calling=MR": [5],
            "?study=1.2.9": [5],
            "?state=failed": [2],
            "?numbers=5,3": [3, 5],
            "?after=3": [4, 5],
            "?after=1&until=3": [2, 3],
            "?called=PACS&state=held&after=3": [],
        }.items():
            assert numbers(await call("GET", f"/queue/items{query}")) == found, query


async def test_an_item_says_everything_but_what_is_in_it(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await fill(call)
        item = await call("GET", "/queue/items/2")
        assert item == (await call("GET", "/queue/items?numbers=2"))["items"][0]
        assert "no object 6" in (await call("GET", "/queue/items/6", status=404))["error"]
        await call("GET", f"/queue/items/{2**70}", status=404)
    assert {name: item[name] for name in ("called", "calling", "device", "state", "reason")} == {
        "called": "PACS",
        "calling": "CT_N",
        "device": "CT",
        "state": "failed",
        "reason": "A900, does not match",
    }
    assert (item["study"], item["sop_instance"]) == (STUDY, f"{INSTANCE}.2")
    assert not item.keys() & {"key", "digest", "command"}


async def test_what_waits_says_what_is_in_its_way(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        *_, other = await fill(call)
        await call("POST", "/queue/pause", {"called": "PACS", "reason": "it moves"})
        couriers_of(call.queue).troubles["OTHER"] = "nobody listens"
        couriers_of(call.queue).tried_again["OTHER"] = NOW + 30
        shown = {i["number"]: i for i in (await call("GET", "/queue/items"))["items"]}
        one = await call("GET", f"/queue/items/{other.number}")
    assert shown[1]["paused"] == {"by": "person", "reason": "it moves", "since": NOW}
    assert (one["trouble"], one["again"], one["paused"]) == ("nobody listens", NOW + 30, None)
    for settled in (2, 3, 4):
        assert {shown[settled][name] for name in ("paused", "trouble", "again")} == {None}


async def test_items_come_in_pages(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await fill(call)
        seen: list[int] = []
        after: int | None = 0
        while after is not None:
            page = await call("GET", f"/queue/items?limit=2&after={after}")
            seen += numbers(page)
            after = page["next"]
        assert seen == [1, 2, 3, 4, 5]
        seen, until = [], 9
        while until is not None:
            page = await call("GET", f"/queue/items?limit=2&latest=true&until={until}")
            seen += numbers(page)
            until = page["next"]
        assert seen == [5, 4, 3, 2, 1]
        assert (await call("GET", "/queue/items?limit=5"))["next"] is None  # there is no more
        for wrong in ("limit=0", "limit=1001", "limit=many", "latest=yes"):
            await call("GET", f"/queue/items?{wrong}", status=400)


async def test_studies_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client(tmp_path) as call:
        await fill(call)
        other, study = await call("GET", "/queue/studies")
        assert (other["study"], other["called"], other["waiting"]) == ("1.2.9", "OTHER", 1)
        counts = [
            study[name] for name in ("accepted", "delivered", "failed", "waiting", "discarded")
        ]
        assert (study["study"], counts) == (STUDY, [4, 1, 1, 2, 0])
        await call("POST", "/queue/discard", {"numbers": [1]})
        _, study = await call("GET", "/queue/studies")
        assert (study["waiting"], study["discarded"]) == (1, 1)
        (failed,) = await call("GET", "/queue/studies?state=failed")
        assert failed["accepted"] == 1
        # Among the last so many objects, unless somebody asks for more.
        monkeypatch.setattr(routes, "STUDIED", 2)
        assert [s["accepted"] for s in await call("GET", "/queue/studies")] == [1, 1]
        (whole,) = await call("GET", f"/queue/studies?study={STUDY}")
        assert whole["accepted"] == 4
        assert len(await call("GET", "/queue/studies?limit=1")) == 1


async def test_a_count_says_what_was_last(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        empty = await call("GET", "/queue/count")
        assert set(empty.values()) == {0}
        await fill(call)
        counts = await call("GET", "/queue/count?called=PACS&after=1")
        assert counts == {
            "waiting": 0,
            "held": 1,
            "failed": 1,
            "delivered": 1,
            "discarded": 0,
            "last": 5,
        }


async def test_whether_it_is_queued(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await call.node.put_device(Device("CT", "192.0.2.1", published="CT_N"))
        await call.node.put_alias(Alias("PACS_S", "PACS"))
        await call.queue.destinations.put(Destination("PACS", "CT_N"))
        await call.queue.destinations.put(Destination("LIVE", mode=Mode.CONFIRMED))
        answer = await call("GET", "/queue/mode?called=PACS_S")
        assert (answer["called"], answer["local"]) == ("PACS", "PACS_S")
        assert (answer["calling"], answer["queued"]) == (call.node.ae_title, False)
        answer = await call("GET", "/queue/mode?called=PACS_S&calling=CT")
        assert (answer["calling"], answer["queued"]) == ("CT_N", True)
        for query in ("called=LIVE", "called=NEVER", "called=CT", f"called={call.node.ae_title}"):
            assert (await call("GET", f"/queue/mode?{query}"))["queued"] is False
        await call("GET", "/queue/mode", status=400)
        await call("GET", "/queue/mode?called=PACS&caling=CT", status=400)


async def test_without_a_network_nothing_is_queued(tmp_path: Path) -> None:
    async with client(tmp_path, enrolled=False) as call:
        await call.queue.destinations.put(Destination("PACS"))
        assert (await call("GET", "/queue/mode?called=PACS"))["queued"] is False
        assert (await call("GET", "/queue"))["destinations"][0]["name"] == ""


async def test_warnings_are_listed(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        assert await call("GET", "/warnings") == []
        call.queue.warnings.begin(Kind.FAILED, "PACS", "objects for PACS have failed", count=3)
        (warned,) = await call("GET", "/warnings")
        assert (warned["warning"], warned["count"], warned["since"]) == ("failed", 3, NOW)
        status = await call("GET", "/status")
    assert status["warnings"] == ["objects for PACS have failed"]
    assert status["queue"]["waiting"] == 0


# --- retry ----------------------------------------------------------------------------------------


async def test_what_failed_or_is_held_is_tried_again_and_its_couriers_know(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await fill(call)
        answer = await call("POST", "/queue/retry", {"called": "PACS", "state": "failed"})
        before = {"waiting": 0, "held": 0, "failed": 1, "delivered": 0, "discarded": 0}
        assert answer == {"items": 1, "before": before, "paused": []}
        assert couriers_of(call.queue).told[-1:] == [("wake", "PACS")]
        assert await call("POST", "/queue/retry", {"all": True}) == {
            "items": 2,
            "before": {"waiting": 3, "held": 1, "failed": 0, "delivered": 1, "discarded": 0},
            "paused": [],
        }
        assert {("wake", "OTHER"), ("wake", "PACS")} <= set(couriers_of(call.queue).told[1:])
        waiting = await call("GET", "/queue/items?state=waiting")
        assert numbers(waiting) == [1, 2, 3, 5]


async def test_a_retry_says_which_pauses_are_in_its_way(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await fill(call)
        await call("POST", "/queue/pause", {"called": "PACS", "reason": "it moves"})
        for body in ({"called": "PACS"}, {"numbers": [1]}, {"all": True}):
            (paused,) = (await call("POST", "/queue/retry", body))["paused"]
            assert (paused["local"], paused["paused"]["reason"]) == ("PACS", "it moves")
        for body in ({"called": "OTHER"}, {"numbers": [4, 5]}):
            assert (await call("POST", "/queue/retry", body))["paused"] == []


async def test_a_retry_has_the_device_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    async with client(tmp_path) as call:
        await fill(call)
        monkeypatch.setattr(call.queue.acceptance, "ask_soon", asked.append)
        await call("POST", "/queue/retry", {"called": "PACS", "state": "held"})
        await call("POST", "/queue/retry", {"all": True})
    assert asked == ["PACS", None]


@pytest.mark.parametrize("action", ["retry", "discard"])
async def test_everything_is_never_meant_without_a_word(tmp_path: Path, action: str) -> None:
    async with client(tmp_path) as call:
        await fill(call)
        before = await call("GET", "/queue/items")
        empty: list[dict[str, Any]] = [{}, {"all": False}, {"after": 0, "until": 9}, {"called": ""}]
        for body in empty:
            answer = await call("POST", f"/queue/{action}", body, status=400)
            assert '{"all": true}' in answer["error"]
        for wrong in ({"all": 1}, {"all": True, "caled": "PACS"}, {"limit": 5, "all": True}):
            await call("POST", f"/queue/{action}", wrong, status=400)
        await call("POST", f"/queue/{action}", {"called": "NEVER"}, status=404)
        assert await call("GET", "/queue/items") == before


# --- discard --------------------------------------------------------------------------------------


def files(tmp_path: Path) -> int:
    """How many objects there are on the disk; empty files are ready for others."""
    return len([path for path in (tmp_path / "me/spool").glob("*/*") if path.stat().st_size])


async def test_what_is_discarded_is_erased_and_gives_its_space_back(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await fill(call)
        assert files(tmp_path) == 4
        assert await call("POST", "/queue/discard", {"called": "PACS"}) == {"items": 3}
        assert files(tmp_path) == 1
        assert call.queue.spool.objects.space.used == 26
        item = await call("GET", "/queue/items/1")
        assert (item["state"], item["reason"], item["ended"]) == (
            "discarded",
            "discarded by a person",
            NOW,
        )
        assert (await call("GET", "/queue/items/4"))["state"] == "delivered"
        assert await call("POST", "/queue/discard", {"called": "PACS"}) == {"items": 0}


async def test_couriers_let_go_of_what_is_discarded_before_its_file_is_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client(tmp_path) as call:
        await fill(call)
        left: list[int] = []
        discarded = couriers_of(call.queue).discarded

        def noted(items: Collection[bytes]) -> None:
            left.append(files(tmp_path))
            discarded(items)

        monkeypatch.setattr(FakeCouriers, "discarded", lambda _, items: noted(items))
        assert await call("POST", "/queue/discard", {"called": "PACS"}) == {"items": 3}
        assert left == [4]
        assert ("discarded", "3") in couriers_of(call.queue).told


async def test_more_than_a_page_is_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (people, routes):
        monkeypatch.setattr(module, "PAGE", 2)
    async with client(tmp_path) as call:
        batch = batch_of("PACS")
        for _ in range(5):
            await keep(call.queue, batch)
        assert await call("POST", "/queue/discard", {"all": True}) == {"items": 5}
        assert files(tmp_path) == 0
        assert call.queue.spool.objects.space.used == 0


async def test_what_came_after_the_question_is_not_meant(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        batch = batch_of("PACS")
        await keep(call.queue, batch)
        last = (await call("GET", "/queue/count"))["last"]
        await keep(call.queue, batch)
        body = {"called": "PACS", "until": last}
        assert await call("POST", "/queue/discard", body) == {"items": 1}
        assert numbers(await call("GET", "/queue/items?state=waiting")) == [2]


@pytest.mark.parametrize("fault", [apsw.FullError("is full"), apsw.IOError("does not answer")])
async def test_nothing_is_discarded_while_there_may_be_more_than_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """It was answered for, has no row yet, and would be sent later."""

    def failing(*_: object) -> int:
        raise fault

    async with client(tmp_path) as call:
        batch = batch_of("PACS")
        await keep(call.queue, batch)
        with monkeypatch.context() as patch:
            patch.setattr(custody, "insert_item", failing)
            await stock.accept(call.queue.spool, batch, b"a data set")
            await call.queue.spool.custody.flush()
            answer = await call("POST", "/queue/discard", {"called": "PACS"}, status=503)
            why = f"the spool cannot be written: {fault}"
            assert answer["error"] == f"nothing can be discarded now: {why}"
            assert files(tmp_path) == 2
            assert numbers(await call("GET", "/queue/items?state=waiting")) == [1]
        if isinstance(fault, apsw.FullError):
            assert await call("POST", "/queue/discard", {"called": "PACS"}) == {"items": 2}
            assert files(tmp_path) == 0
        else:  # until the next start
            await call("POST", "/queue/discard", {"called": "PACS"}, status=503)
            assert files(tmp_path) == 2


async def test_an_object_under_way_is_delivered_all_the_same_and_counted_once(
    tmp_path: Path,
) -> None:
    """What is delivered is; but its file is given back once."""
    async with client(tmp_path) as call:
        item = await keep(call.queue, batch_of("PACS"), data=bytes(SEGMENT + 1))
        async with (
            call.queue.spool.objects.reading(item.stored) as reader,
            aclosing(reader.segments()) as segments,
        ):
            assert await anext(segments) == bytes(SEGMENT)
            await call("POST", "/queue/discard", {"numbers": [item.number]})
            assert [segment async for segment in segments] == [bytes(1)]
        await becomes(call.queue, item, State.DELIVERED)
        assert call.queue.spool.objects.space.used == 0
        assert (await call("GET", "/queue/items/1"))["state"] == "delivered"


async def test_a_discard_whose_asker_goes_leaves_no_page_half_done(tmp_path: Path) -> None:
    """Cancelled at whichever point: a row is discarded and its file gone, or neither."""
    async with client(tmp_path) as call:
        batch = batch_of("PACS")
        for turn in range(3):
            await keep(call.queue, batch)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call, "POST", "/queue/discard", {"all": True})
                    for _ in range(turn * 4):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            waiting = (await call("GET", "/queue/count"))["waiting"]
            assert files(tmp_path) == waiting
            assert call.queue.spool.objects.space.used == waiting * 26


# --- pause and resume -----------------------------------------------------------------------------


async def test_a_destination_is_paused_and_resumed(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await call.node.put_alias(Alias("PACS_S", "PACS"))
        await call.queue.destinations.put(Destination("PACS"))
        body = {"called": "PACS_S", "reason": "moves house"}
        answer = await call("POST", "/queue/pause", body)
        assert (answer["called"], answer["local"]) == ("PACS", "PACS_S")
        assert answer["paused"] == {"by": "person", "reason": "moves house", "since": NOW}
        (place,) = (await call("GET", "/queue"))["destinations"]
        assert place["paused"] == answer["paused"]
        answer = await call("POST", "/queue/resume", {"called": "PACS"})
        assert answer["was_paused"] is True
        assert couriers_of(call.queue).told == [("stop", "PACS"), ("resume", "PACS")]
        answer = await call("POST", "/queue/resume", {"called": "PACS_S"})
        assert answer["was_paused"] is False


async def test_a_person_ends_what_the_devices_own_answer_began(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await call.queue.pause(Pause("PACS", False, "0124, not authorized", NOW))
        assert [w["warning"] for w in await call("GET", "/warnings")] == ["paused"]
        (place,) = (await call("GET", "/queue"))["destinations"]
        assert (place["paused"]["by"], place["queued"]) == ("device", False)
        assert (await call("POST", "/queue/resume", {"called": "PACS"}))["was_paused"] is True
        assert await call("GET", "/warnings") == []


async def test_a_pause_is_asked_for_wrongly(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        await call.queue.destinations.put(Destination("PACS"))
        for body in (
            {},
            {"called": "PACS", "reason": 7},
            {"called": "PACS", "reason": "x" * 201},
            {"called": "PACS", "reasn": "x"},
        ):
            await call("POST", "/queue/pause", body, status=400)
        await call("POST", "/queue/pause", {"called": "PACZ"}, status=404)
        await call("POST", "/queue/resume", {"called": "PACZ"}, status=404)
        await call("POST", "/queue/resume", {"called": "PACS", "reason": "x"}, status=400)


# --- what is not told -----------------------------------------------------------------------------


async def test_no_log_names_an_object_or_a_study(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        structlog.reset_defaults()
        await fill(call)
        with capture_logs() as lines:
            await call("GET", f"/queue/items?study={STUDY}")
            await call("POST", "/queue/retry", {"study": STUDY})
            await call("POST", "/queue/discard", {"study": STUDY})
            await call("POST", "/queue/pause", {"called": "PACS", "reason": "a person's word"})
    assert [line["event"] for line in lines] == [
        "objects to be tried again",
        "objects discarded",
        "destination paused by a person",
    ]
    assert "1.2.840" not in str(lines)
    assert "a person's word" not in str(lines)


async def test_whose_a_study_is(tmp_path: Path) -> None:
    async with client(tmp_path) as call:
        jane = Study(uid=STUDY, patient_id="4711", patient_name="DOE JANE", accession="A1")
        call.queue.spool.index.note(STUDY, lambda: jane)
        path = "/queue/patients"
        for body in ({"patient_id": "4711"}, {"accession": "a1"}, {"studies": [STUDY, "1.2"]}):
            (found,) = await call("POST", path, body)
            assert found == jane.to_json()
        assert await call("POST", path, {"patient_id": "4712"}) == []
        for wrong in (
            {},
            {"patient_id": " "},
            {"patient_id": 4711},
            {"accession": "x" * 65},
            {"studies": [1]},
            {"studies": [STUDY] * 201},
            {"name": "DOE"},
        ):
            await call("POST", path, wrong, status=400)
