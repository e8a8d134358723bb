"""Orthanc, the archive: its DICOM side, and its REST to look inside and to have it call others."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx

from tests.interop.processes import (
    LOOPBACK,
    RUN_DEADLINE,
    Address,
    Peer,
    PeerError,
    acceptor,
    free_port,
)


@attrs.frozen(slots=True)
class OrthancPeer:
    """A running Orthanc: its DICOM side, and its REST at `http`."""

    peer: Peer
    http: str

    @property
    def port(self) -> int:
        return self.peer.port

    @property
    def ae_title(self) -> str:
        return self.peer.ae_title

    @property
    def host(self) -> str:
        return self.peer.host

    async def upload(self, file: Path) -> str:
        """Give it a Part 10 file; its own identifier of the instance."""
        async with httpx.AsyncClient(base_url=self.http, trust_env=False) as client:
            answer = await client.post("/instances", content=file.read_bytes())
            answer.raise_for_status()
            identifier: str = answer.json()["ID"]
            return identifier

    async def call(self, modality: str, action: str, body: object) -> Any:
        """Have it act as requestor: `echo`, `store` or `query` of one of its modalities.

        Raises `PeerError` with its answer if that did not work.
        """
        async with httpx.AsyncClient(
            base_url=self.http, trust_env=False, timeout=RUN_DEADLINE
        ) as client:
            answer = await client.post(f"/modalities/{modality}/{action}", json=body)
            if answer.is_error:
                raise PeerError(f"{self.ae_title} {action} {modality}: {answer.text}")
            return answer.json()

    async def instances(self) -> dict[str, bytes]:
        """SOP Instance UID to Part 10 file, of everything that it holds."""
        async with httpx.AsyncClient(base_url=self.http, trust_env=False) as client:
            found = {}
            for row in (await client.get("/instances", params={"expand": ""})).json():
                uid = row["MainDicomTags"]["SOPInstanceUID"]
                found[uid] = (await client.get(f"/instances/{row['ID']}/file")).content
            return found


@asynccontextmanager
async def orthanc(
    directory: Path,
    *,
    ae_title: str = "ORTHANC",
    modalities: Sequence[Address] = (),
    settings: Mapping[str, object] | None = None,
) -> AsyncIterator[OrthancPeer]:
    """Orthanc with empty storage; `modalities` are whom it knows (for C-MOVE and its own sends).

    Orthanc parses what it stores: compare its objects by UID and attributes, not byte for byte.
    """
    directory.mkdir(parents=True, exist_ok=True)
    http_port = free_port()
    configuration = directory / "orthanc.json"

    def command(port: int) -> list[str]:
        values: dict[str, object] = {
            "Name": ae_title,
            "StorageDirectory": str(directory / "storage"),
            "IndexDirectory": str(directory / "storage"),
            "Plugins": [],
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": ae_title,
            "DicomPort": port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "UnknownSopClassAccepted": True,
            "TranscodeDicomProtocol": False,
            "DicomModalities": {
                address.ae_title: [address.ae_title, address.host, address.port]
                for address in modalities
            },
            **(settings or {}),
        }
        configuration.write_text(json.dumps(values))
        return ["Orthanc", "--verbose", str(configuration)]

    async with acceptor(command, ae_title, directory, further_ports=[http_port]) as peer:
        yield OrthancPeer(peer, f"http://{LOOPBACK}:{http_port}")
