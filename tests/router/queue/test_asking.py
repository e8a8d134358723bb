"""The near end of a knowledge session: what is asked in whose name, and what is no answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from relay.dicom import pdu, uids
from relay.dicom.pdu import AAbort, AAssociateRQ, AReleaseRP
from relay.dicom.rejection import LOCAL_LIMIT_EXCEEDED
from relay.errors import AssociationAborted, AssociationRejected, RelayError, RemoteProtocolError
from relay.router.devices import Device
from relay.router.pairs import Pairs
from relay.router.queue import telling
from relay.router.queue.asking import ask, describe
from relay.tunnel import notes
from relay.tunnel.handshake import Purpose
from relay.tunnel.notes import Forget, Knowledge
from relay.tunnel.records import Note, Record
from tests.router.fakes import CT, IMPLICIT, acceptance, proposal
from tests.router.queue.knowing import knowing

SAID = Knowledge(7, 60, 1, 1, False, Pairs.of([(CT, IMPLICIT)]).groups())


async def test_it_asks_in_the_name_of_the_caller(tmp_path: Path, monkeypatch: Any) -> None:
    calls = []

    async def say(near: Any, node: Any, call: Any, outcome: object) -> None:
        calls.append((call.received.purpose, call.request))
        await near.send(notes.encode(SAID))
        await near.send(AReleaseRP())

    monkeypatch.setattr(telling, "_say", say)
    async with knowing(tmp_path, [(CT, IMPLICIT)]) as it:
        a, b = it.both.a, it.both.b
        await a.put_device(Device("CT1", "127.0.0.1", published="NORTH_CT1"))
        assert await ask(a, "PACS", "NORTH_CT1", 10) == (b.identity.public, SAID)
        assert await ask(a, "PACS", "RELAY_A", 10) == (b.identity.public, SAID)
    assert [purpose for purpose, _ in calls] == [Purpose.KNOWLEDGE] * 2
    assert [(r.called, r.calling) for _, r in calls] == [("PACS", "NORTH_CT1"), ("PACS", "RELAY_A")]
    assert all(isinstance(r, AAssociateRQ) and len(r.contexts) == 1 for _, r in calls)
    assert len(pdu.encode(calls[0][1])) < 1024


async def test_a_description_is_asked_for_by_what_is_proposed(
    tmp_path: Path, monkeypatch: Any
) -> None:
    calls = []
    said = attrs.evolve(SAID, issuer="SOUTH", character_set="ISO_IR 192")

    async def say(near: Any, node: Any, call: Any, outcome: object) -> None:
        calls.append(call)
        await near.send(notes.encode(said))
        await near.send(AReleaseRP())

    monkeypatch.setattr(telling, "_say", say)
    async with knowing(tmp_path, [(CT, IMPLICIT)], "query") as it:
        await it.both.a.put_device(Device("CT1", "127.0.0.1", published="NORTH_CT1"))
        assert await describe(it.both.a, "PACS", "NORTH_CT1", 10) == said
        assert await describe(it.both.a, "PACS", "RELAY_A", 10) == said
    assert [call.request.calling for call in calls] == ["NORTH_CT1", "RELAY_A"]
    assert [call.received.purpose for call in calls] == [Purpose.KNOWLEDGE] * 2
    assert [context.abstract_syntax for call in calls for context in call.request.contexts] == [
        uids.STUDY_ROOT_FIND
    ] * 2


async def test_a_character_set_that_is_not_known_is_not_said(
    tmp_path: Path, monkeypatch: Any
) -> None:
    async def say(near: Any, node: Any, call: Any, outcome: object) -> None:
        await near.send(notes.encode(attrs.evolve(SAID, issuer="SOUTH", character_set="ISO_IR 9")))
        await near.send(AReleaseRP())

    monkeypatch.setattr(telling, "_say", say)
    async with knowing(tmp_path, [(CT, IMPLICIT)]) as it:
        assert await describe(it.both.a, "PACS", "WS", 10) == attrs.evolve(SAID, issuer="SOUTH")


async def test_who_is_granted_nothing_to_be_described(tmp_path: Path) -> None:
    async with knowing(tmp_path, [(CT, IMPLICIT)], "echo") as it:
        with pytest.raises(AssociationRejected, match="ask PACS --services query,retrieve`"):
            await describe(it.both.a, "PACS", "WS", 10)


@pytest.mark.parametrize(
    ("records", "error", "words"),
    [
        ([LOCAL_LIMIT_EXCEEDED], AssociationRejected, "local limit exceeded"),
        ([AAbort(2, 0)], AssociationAborted, None),
        ([AReleaseRP()], RemoteProtocolError, "AReleaseRP in a knowledge session"),
        ([acceptance(proposal(CT))], RemoteProtocolError, "AAssociateAC in a knowledge session"),
        ([notes.encode(Forget(()))], RemoteProtocolError, "Forget in a knowledge session"),
        ([Note(b"\x91\x63")], RemoteProtocolError, "not known"),
        ([notes.encode(SAID)] * 2, RemoteProtocolError, "goes on"),
    ],
)
async def test_what_is_no_answer(
    tmp_path: Path,
    monkeypatch: Any,
    records: Sequence[Record],
    error: type[RelayError],
    words: str | None,
) -> None:
    async def say(near: Any, node: Any, call: Any, outcome: object) -> None:
        for record in records:
            await near.send(record)
        await trio.sleep(0.05)

    monkeypatch.setattr(telling, "_say", say)
    async with knowing(tmp_path, [(CT, IMPLICIT)]) as it:
        with pytest.raises(error, match=words):
            await ask(it.both.a, "PACS", "WS", 10)


async def test_who_cannot_be_asked(tmp_path: Path) -> None:
    async with knowing(tmp_path, [(CT, IMPLICIT)], "query", published=["store"]) as it:
        a = it.both.a
        with pytest.raises(AssociationRejected, match="'GONE' is no device"):
            await ask(a, "PACS", "GONE", 10)
        with pytest.raises(AssociationRejected, match="'NOBODY' is not published"):
            await ask(a, "NOBODY", "WS", 10)
        assert not it.sessions
        with pytest.raises(AssociationRejected, match="relay grant ask PACS --services store"):
            await ask(a, "PACS", "WS", 10)
        assert len(it.sessions) == 1


async def test_the_first_word_has_a_deadline(tmp_path: Path) -> None:
    async def silent(request: AAssociateRQ) -> None:
        await trio.sleep_forever()

    async with knowing(tmp_path, [(CT, IMPLICIT)]) as it:
        it.device.before = silent
        with pytest.raises(AssociationRejected, match=r"no answer within 0\.2 s"):
            await ask(it.both.a, "PACS", "WS", 0.2)
