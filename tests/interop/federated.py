"""Three hospitals whose archives the federation of hospital A asks: dcmqrscp, Orthanc, pynetdicom.

    async with federated(tmp_path, archives.make(60)) as world:
        asked = await world.find("STUDY", {"PatientID": "P1"}, ["StudyInstanceUID"])

Everything is as a person would set it up, with real processes. VIEWER is a device of A that may
see all; INTERN is one that SOUTH's hospital has not granted anything; WS is a workstation that
stores.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pydicom
import trio
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)

from tests.interop import peers
from tests.interop.archives import ARCHIVES, EAST, NORTH, SOUTH, Holdings
from tests.network import Network, network
from tests.tap import Tap, messages, tap

FEDERATION = "FEDERATION"
VIEWER, INTERN, WS = "VIEWER", "INTERN", "WS"

# Seconds for which the federation waits for an archive: short, so that a frozen one is soon told.
SITE_WAIT = 4

SETTINGS: Mapping[str, object] = {"federation.site_wait": SITE_WAIT}

# For one query; a frozen archive takes SITE_WAIT of it.
PATIENCE = 60.0


@attrs.frozen(slots=True)
class Asked:
    """What a C-FIND brought: the answers, the final status and its Error Comment."""

    answers: Sequence[Dataset]
    status: int
    comment: str = ""

    def rows(
        self, level_key: str, returned: Sequence[str], *, issuer: bool = False
    ) -> dict[tuple[str, str], dict[str, str]]:
        """The answers as `Holdings.find` has them; fails where there are two of one entity."""
        found = {}
        for answer in self.answers:
            issued = str(answer.get("IssuerOfPatientID", "")) if issuer else ""
            key = (issued, str(answer.get(level_key)))
            assert key not in found, f"two answers of {key}"
            found[key] = {name: text_of(answer, name) for name in returned}
        return found


def text_of(answer: Dataset, name: str) -> str:
    """An attribute's values, with backslashes between; "" for none."""
    value: Any = answer.get(name)
    if value is None:
        return ""
    if isinstance(value, pydicom.multival.MultiValue):
        return "\\".join(sorted(map(str, value)))
    return str(value)


@attrs.frozen(slots=True)
class World:
    """The hospitals, their archives by title, and WS, which stores what comes."""

    net: Network
    holdings: Holdings
    archives: dict[str, peers.Peer]
    orthanc: peers.OrthancPeer
    workstation: peers.Peer
    workstation_tap: Tap
    refuse: Path
    """While this file exists EAST rejects all."""

    @property
    def federation(self) -> peers.Address:
        return self.net.address("A", FEDERATION)

    async def find(
        self,
        level: str,
        keys: Mapping[str, str],
        returned: Sequence[str] = (),
        *,
        calling: str = VIEWER,
        cancel_after: int = 0,
        on_first: Callable[[], None] = lambda: None,
    ) -> Asked:
        """C-FIND by pynetdicom, in UTF-8; PATIENT level is asked by Patient Root.

        C-CANCEL follows after so many answers; `on_first` is called, in a thread, with the first.
        """
        ask = partial(
            find_by_pynetdicom,
            *(self.federation, level, keys, returned, calling, cancel_after, on_first),
        )
        with trio.fail_after(PATIENCE):
            return await trio.to_thread.run_sync(ask)

    async def find_by_dcmtk(
        self, level: str, keys: Mapping[str, str], returned: Sequence[str], directory: Path
    ) -> Asked:
        """The same by findscu, and what its socket saw of the final status."""
        directory.mkdir()
        asked = {
            "SpecificCharacterSet": "ISO_IR 192",
            "QueryRetrieveLevel": level,
            **dict.fromkeys(returned, ""),
            **keys,
        }
        async with tap(self.federation) as near:
            result = await peers.findscu(
                near.address,
                *(f"{name}={value}" if value else name for name, value in asked.items()),
                options=["-P" if level == "PATIENT" else "-S", "-X", "-od", str(directory)],
                calling=VIEWER,
            )
        assert result.status == 0, result.output[-2000:]
        answers = [pydicom.dcmread(path, force=True) for path in sorted(directory.iterdir())]
        return Asked(answers, final_status(near))

    async def restart_a(self, settings: Mapping[str, object]) -> None:
        """Hospital A's Router anew, with these keys of its table changed."""
        site = self.net.routers["A"]
        await site.stop()
        kept = [
            line
            for line in site.configuration.read_text().splitlines()
            if line.partition(" = ")[0] not in settings
        ]
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        site.configuration.write_text("\n".join([*kept, *lines]) + "\n")
        await site.start()

    async def settled(self) -> None:
        """Wait until the federation of A has heard all archives, and what each is like."""
        with trio.fail_after(PATIENCE):
            while True:
                # A Router answers commands a moment before it listens for devices.
                with suppress(peers.PeerError):
                    if (await self.find("STUDY", {"PatientID": "NOBODY"})).status == 0:
                        return
                await trio.sleep(0.1)


def find_by_pynetdicom(
    target: peers.Address,
    level: str,
    keys: Mapping[str, str],
    returned: Sequence[str],
    calling: str,
    cancel_after: int = 0,
    on_first: Callable[[], None] = lambda: None,
) -> Asked:
    """Blocks: for a thread of its own."""
    model = (
        PatientRootQueryRetrieveInformationModelFind
        if level == "PATIENT"
        else StudyRootQueryRetrieveInformationModelFind
    )
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = level
    for name in returned:
        setattr(identifier, name, "")
    for name, value in keys.items():
        setattr(identifier, name, value)
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = PATIENCE
    entity.add_requested_context(model)
    association = entity.associate(target.host, target.port, ae_title=target.ae_title)
    if not association.is_established:
        raise peers.PeerError(f"{target.ae_title} took no association of {calling}")
    answers: list[Dataset] = []
    try:
        for status, answer in association.send_c_find(identifier, model, msg_id=7):
            if not status:
                raise peers.PeerError(f"{target.ae_title} went away")
            if answer is None:
                return Asked(answers, status.Status, status.get("ErrorComment", ""))
            answers.append(answer)
            if len(answers) == 1:
                on_first()
            if len(answers) == cancel_after:
                association.send_c_cancel(7, query_model=model)
    finally:
        association.release()
    raise peers.PeerError("no final response")


def final_status(near: Tap) -> int:
    """Of the last response on the last association."""
    *_, last = messages(bytes(near.associations[-1].answered))
    assert last.status is not None
    return last.status


@asynccontextmanager
async def federated(
    directory: Path,
    holdings: Holdings,
    *,
    slow: float = 0.0,
    search: float = 0.0,
    settings: Mapping[str, object] = SETTINGS,
) -> AsyncIterator[World]:
    """Start all; EAST waits `search` seconds before its first answer, and `slow` before each."""
    made = directory / "made"
    holdings.write(made)
    refuse = directory / "refuse"
    async with (
        network(directory / "net", "A", "B", "C", router=dict(settings)) as net,
        peers.storescp(directory / WS, "+xe", ae_title=WS) as workstation,
        tap(peers.Address(workstation.port, WS)) as tapped,
        peers.dcmqrscp(
            directory / "north",
            ae_title=NORTH.title,
            move_destinations=[peers.Address(tapped.address.port, WS)],
        ) as north,
        peers.orthanc(
            directory / "south",
            ae_title=SOUTH.title,
            modalities=[net.address("B", WS)],
            settings={"DefaultEncoding": "Utf8", "OverwriteInstances": True},
        ) as south,
        peers.pynetdicom_archive(
            directory / "east",
            *("--serve", str(made / EAST.title), "--refuse", str(refuse)),
            *("--slow", str(slow), "--search", str(search)),
            *("--destination", f"{WS}={net.routers['C'].port}"),
            ae_title=EAST.title,
        ) as east,
    ):
        for peer, archive in ((north, NORTH), (south.peer, SOUTH)):
            result = await peers.storescu(
                peer, made / archive.title, calling="FILLER", deadline=600
            )
            assert result.status == 0, result.output[-2000:]
        found = {NORTH.title: north, SOUTH.title: south.peer, EAST.title: east}
        await net.publish("A", WS, tapped.address.port, "store")
        for caller in (VIEWER, INTERN):
            await net.device("A", caller)
        for archive in ARCHIVES:
            options = ["--issuer", archive.issuer, "--character-set", archive.character_set]
            if archive is NORTH:
                options.append("--federation")
            await net.publish(
                archive.hospital,
                archive.title,
                found[archive.title].port,
                "query,retrieve",
                *options,
            )
            if archive is not NORTH:
                await net.grant(
                    owner=archive.hospital,
                    grantee="A",
                    ae_title=archive.title,
                    services="query,retrieve",
                    options=["--calling", f"{VIEWER},{WS}"] if archive is SOUTH else [],
                )
                await net.seen(archive.hospital, WS)
        world = World(net, holdings, found, south, workstation, tapped, refuse)
        await world.settled()
        yield world
