"""Archives that answer queries, behind real sockets, and do as each test wants.

A `Catalogue` answers each C-FIND with all that it has that matches by UID and Patient ID. What goes
wrong with it, its fields say.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from pydicom.dataset import Dataset

from relay import listener
from relay.association import Association
from relay.dicom import dimse, negotiation
from relay.dicom.dimse import CommandField, CommandReader, CommandSet, Status
from relay.dicom.negotiation import accepted_contexts
from relay.dicom.pdu import (
    PDV,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    ContextResult,
    PresentationContext,
)
from relay.errors import RelayError
from relay.router.devices import Device
from relay.router.federation.federation import Federation
from relay.router.federation.identifiers import Model, Query, parse
from relay.router.federation.settings import FederationSettings
from tests.router.fakes import hospital
from tests.router.federation.datasets import EXPLICIT, dataset, decoded, encoded

_MATCHED = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")


@attrs.define(eq=False)
class Catalogue:
    """`heard` are the identifiers it got; `cancels` counts C-CANCELs, `released` associations that
    ended so, `dropped` others.

    `speaks`: the transfer syntax that it accepts. `gate`: no answer before it is set.
    `silent_after`: so many answers, and it says no more. `gone_after`: ... and the connection is
    lost. `heeds_cancel`: whether a C-CANCEL ends it. `endless`: its last answer again and again.
    `status`, `pending`: its statuses. `accepts`: whether it takes contexts; `models`: whose.
    `frozen`: it takes the connection, and that is all. `raw`: what it sends in place of answers.
    """

    answers: Sequence[Dataset] = ()
    speaks: str = EXPLICIT
    gate: trio.Event | None = None
    silent_after: int | None = None
    gone_after: int | None = None
    heeds_cancel: bool = True
    endless: bool = False
    status: int = Status.SUCCESS
    pending: int = Status.PENDING
    accepts: bool = True
    models: Sequence[Model] = tuple(Model)
    frozen: bool = False
    raw: Sequence[bytes] = ()
    heard: list[Dataset] = attrs.field(factory=list)
    callings: list[str] = attrs.field(factory=list)
    cancels: int = 0
    released: int = 0
    dropped: int = 0
    asked: trio.Event = attrs.field(factory=trio.Event)
    silent: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, association: Association) -> None:
        """One association."""
        request = await association.receive()
        assert isinstance(request, AAssociateRQ)
        self.callings.append(request.calling)
        if self.frozen:
            await trio.sleep_forever()
        ac = negotiation.answer(request, self._accept)
        await association.send(ac)
        contexts = accepted_contexts(request, ac)
        reader, data = CommandReader(contexts), bytearray()
        cancelled = trio.Event()
        async with trio.open_nursery() as nursery:
            while True:
                match await association.receive():
                    case PDV() as pdv:
                        command = reader.feed(pdv) or reader.command
                        assert command is not None
                        data += b"" if pdv.is_command else bytes(pdv.fragment)
                        if reader.message_open:
                            continue
                        if command.command_field == CommandField.C_CANCEL_RQ:
                            self.cancels += 1
                            cancelled.set()
                            continue
                        cancelled = trio.Event()
                        syntax = contexts[pdv.context_id].transfer_syntax
                        self.heard.append(decoded(bytes(data), syntax))
                        self.asked.set()
                        data.clear()
                        nursery.start_soon(
                            self._answer, association, pdv.context_id, command, syntax, cancelled
                        )
                    case AReleaseRQ():
                        self.released += 1
                        await association.send(AReleaseRP())
                        break
                    case _:
                        self.dropped += 1
                        break
            nursery.cancel_scope.cancel()

    def _accept(self, context: PresentationContext) -> str | ContextResult | None:
        if Model.of(context.abstract_syntax) not in self.models or not self.accepts:
            return None
        assert self.speaks in context.transfer_syntaxes
        return self.speaks

    def _found(self) -> list[bytes]:
        if self.raw:
            return list(self.raw)
        asked = self.heard[-1]
        found = []
        for answer in self.answers:
            for keyword in _MATCHED:
                wanted = asked.get(keyword) or answer.get(keyword)
                if answer.get(keyword) not in (
                    [wanted] if isinstance(wanted, str) else wanted or [None]
                ):
                    break
            else:
                found.append(encoded(answer, self.speaks))
        return found

    async def _answer(
        self,
        association: Association,
        context_id: int,
        request: CommandSet,
        syntax: str,
        cancelled: trio.Event,
    ) -> None:
        if self.gate is not None:
            await self.gate.wait()
        found = self._found()
        try:
            count = 0
            while count < len(found) or self.endless:
                await self._misbehave(association, count)
                if cancelled.is_set() and self.heeds_cancel:
                    await self._respond(association, context_id, request, Status.CANCEL)
                    return
                answer = found[min(count, len(found) - 1)]
                await self._respond(association, context_id, request, self.pending, answer)
                count += 1
            await self._misbehave(association, count, cancelled)
            status = Status.CANCEL if cancelled.is_set() and self.heeds_cancel else self.status
            await self._respond(association, context_id, request, status)
        except RelayError:
            self.dropped += 1

    async def _misbehave(
        self, association: Association, count: int, cancelled: trio.Event | None = None
    ) -> None:
        if count == self.silent_after:
            self.silent.set()
            if self.heeds_cancel and cancelled is not None:
                await cancelled.wait()
            else:
                await trio.sleep_forever()
        if count == self.gone_after:
            await association.abort(2)

    async def _respond(
        self,
        association: Association,
        context_id: int,
        request: CommandSet,
        status: int,
        answer: bytes = b"",
    ) -> None:
        response = dimse.response_to(request, status, has_data_set=bool(answer))
        await association.send(PDV(context_id, True, True, response.encode()))
        if answer:
            await association.send(PDV(context_id, False, True, answer))


def study(uid: str, **values: Any) -> Dataset:
    """What an archive has of a study."""
    return dataset(
        SpecificCharacterSet="ISO_IR 100",
        QueryRetrieveLevel="STUDY",
        StudyInstanceUID=uid,
        **values,
    )


def asks(level: str = "STUDY", model: Model = Model.STUDY_ROOT, **keys: Any) -> Query:
    """A query that narrows, unless `keys` say something else."""
    keys = {"PatientID": "7", "StudyInstanceUID": ""} | keys
    return parse(model, encoded(dataset(QueryRetrieveLevel=level, **keys)), EXPLICIT)


@asynccontextmanager
async def federated(
    folder: Path,
    catalogues: Mapping[str, Catalogue],
    *,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Federation, Device]]:
    """The federation of a hospital that has `catalogues`, by AE title, and a workstation WS.

    `fields`: more of each device.
    """
    async with hospital(folder, enrolled=False) as node, trio.open_nursery() as nursery:
        for title, catalogue in catalogues.items():
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(listener.serve, listeners, catalogue.serve)
            port = int(listeners[0].socket.getsockname()[1])
            more = (fields or {}).get(title, {})
            await node.put_device(Device(title, "127.0.0.1", port, federation=True, **more))
        caller = Device("WS", "127.0.0.1", 104)
        await node.put_device(caller)
        yield Federation(node, FederationSettings(**({"site_wait": 10.0} | settings))), caller
        nursery.cancel_scope.cancel()
