"""A probe: everything is asked one by one, and all of it is answered or none."""

from pathlib import Path

import attrs
import pytest
import trio

from relay.dicom import uids
from relay.dicom.negotiation import AsynchronousOperationsWindow, find
from relay.dicom.pdu import AAssociateRJ, AAssociateRQ
from relay.dicom.rejection import (
    CALLING_AE_TITLE_NOT_RECOGNIZED,
    LOCAL_LIMIT_EXCEEDED,
)
from relay.errors import AssociationRejected
from relay.router.devices import Device
from relay.router.node import Node
from relay.router.pairs import Pairs
from relay.router.probe import storage_pairs
from relay.router.queue import probing
from relay.router.queue.operations import MAXIMUM_WINDOW
from relay.router.queue.probing import TRIES, Found, ask_all, basis
from tests.router.fakes import CT, IMPLICIT, JPEG, MR
from tests.router.queue.knowing import ASSOCIATIONS, Knowing, knowing

TAKEN = [(CT, IMPLICIT), (CT, JPEG), (MR, IMPLICIT)]


def pacs_of(node: Node) -> Device:
    device = node.devices.get("PACS")
    assert device is not None
    return device


async def probe(it: Knowing, seen: str = "SEEN") -> Found:
    return await ask_all(it.both.b, pacs_of(it.both.b), seen, "peer")


async def test_each_pair_is_asked_alone(tmp_path: Path) -> None:
    asked: list[AAssociateRQ] = []

    async def note(request: AAssociateRQ) -> None:
        await trio.lowlevel.checkpoint()
        asked.append(request)

    async with knowing(tmp_path, TAKEN) as it:
        it.device.before = note
        found = await probe(it)
        assert (found.pairs, found.commitment, found.window) == (Pairs.of(TAKEN), False, 1)
    contexts = [context for request in asked for context in request.contexts]
    assert all(len(context.transfer_syntaxes) == 1 for context in contexts)
    assert all(len(request.contexts) <= 128 for request in asked)
    pairs = [(context.abstract_syntax, context.transfer_syntaxes) for context in contexts]
    assert set(pairs) == {
        *storage_pairs(),
        (uids.STORAGE_COMMITMENT_PUSH_MODEL, (uids.IMPLICIT_VR_LITTLE_ENDIAN,)),
        (uids.STORAGE_COMMITMENT_PUSH_MODEL, (uids.EXPLICIT_VR_LITTLE_ENDIAN,)),
    }
    assert len(pairs) == len(set(pairs))
    assert {(request.called, request.calling) for request in asked} == {("PACS", "SEEN")}
    windows = [find(request.user_items, AsynchronousOperationsWindow) for request in asked]
    assert set(windows) == {(AsynchronousOperationsWindow(MAXIMUM_WINDOW, 1),)}


@pytest.mark.parametrize(
    ("granted", "window"), [(None, 1), (1, 1), (5, 5), (0, MAXIMUM_WINDOW), (999, MAXIMUM_WINDOW)]
)
async def test_the_window_is_what_the_device_grants(
    tmp_path: Path, granted: int | None, window: int
) -> None:
    """PS3.7 §D.3.3.3: 1 without an answer, 0 for any number."""
    async with knowing(tmp_path, TAKEN) as it:
        it.device.window = granted
        it.device.commitment = True
        found = await probe(it)
        assert (found.window, found.commitment) == (window, True)
        assert found.pairs == Pairs.of(TAKEN)  # commitment is nothing that is stored


async def test_a_device_that_takes_nothing_has_answered(tmp_path: Path) -> None:
    async with knowing(tmp_path, []) as it:
        assert (await probe(it)).pairs == Pairs()


@pytest.mark.parametrize(
    ("rejection", "tries"),
    [(CALLING_AE_TITLE_NOT_RECOGNIZED, 1), (LOCAL_LIMIT_EXCEEDED, TRIES)],
)
async def test_what_may_help_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rejection: AAssociateRJ, tries: int
) -> None:
    async def reject(request: AAssociateRQ) -> AAssociateRJ:
        await trio.lowlevel.checkpoint()
        return rejection

    monkeypatch.setattr(probing, "TRY_PAUSE", 0)
    async with knowing(tmp_path, TAKEN) as it:
        it.device.before = reject
        with pytest.raises(AssociationRejected) as caught:
            await probe(it)
        error = caught.value
        assert AAssociateRJ(error.result, error.source, error.reason) == rejection
        assert len(it.device.calling) == tries
        assert len(it.both.b.places) == 0


async def test_a_device_that_is_changed_meanwhile_is_another(tmp_path: Path) -> None:
    async with knowing(tmp_path, TAKEN) as it:

        async def moved(request: AAssociateRQ) -> None:
            now = pacs_of(it.both.b)
            await it.both.b.put_device(attrs.evolve(now, host="localhost"))

        it.device.before = moved
        with pytest.raises(AssociationRejected, match="changed while it was probed"):
            await probe(it)
        assert len(it.device.calling) == ASSOCIATIONS


async def test_a_probe_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(request: AAssociateRQ) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(probing, "PROBE_DEADLINE", 0.1)
    async with knowing(tmp_path, TAKEN) as it:
        it.device.before = never
        with pytest.raises(AssociationRejected, match=r"longer than 0\.1 s"):
            await probe(it)
        assert len(it.both.b.places) == 0


def test_what_a_probe_rests_on() -> None:
    pacs = Device("PACS", "h", 104)
    same = attrs.evolve(pacs, services=frozenset({"store"}), maximum_associations=2, split=4)
    assert basis(same) == basis(pacs)
    other = [
        Device("PACS", "h", 105),
        Device("PACS", "i", 104),
        attrs.evolve(pacs, tls=True),
        attrs.evolve(pacs, declares=Pairs.of([(CT, JPEG)])),
        attrs.evolve(pacs, declares=Pairs.of([(CT, IMPLICIT)])),
    ]
    assert len({basis(device) for device in (pacs, *other)}) == 6
    # Where what is declared is, nobody asks.
    declared = attrs.evolve(pacs, declares=Pairs.of([(CT, JPEG)]))
    assert basis(attrs.evolve(declared, host="i")) == basis(declared)
