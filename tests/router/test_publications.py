"""What the Bridge is told."""

from pathlib import Path

import pytest

from relay.errors import SignallingError
from relay.identity import KeyStatement, Publication
from relay.router.devices import Device
from relay.router.grants import Grant
from relay.signalling import messages
from tests.router.fakes import NETWORK, hospital


async def test_key_publications_and_grants(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        client = me.joined().client
        await me.devices.put(Device("PACS", "192.0.2.1", services=frozenset({"store", "echo"})))
        await me.devices.put(Device("WS", "192.0.2.2"))
        await me.grants.add(
            Grant(b"n" * 32, "PACS", frozenset({"store"}), frozenset({"CALLING AE"}))
        )
        await me.publish()
        key, publish, grants = client.told
        assert isinstance(key, messages.PublishKey)
        assert KeyStatement.open(key.statement, NETWORK)[0] == me.identity.public
        assert isinstance(publish, messages.Publish)
        (statement,) = publish.statements  # WS is nobody's business
        owner, publication = Publication.open(statement, NETWORK)
        assert owner == me.identity.public
        assert (publication.ae_title, publication.services) == ("PACS", ("echo", "store"))
        assert isinstance(grants, messages.Grants)
        assert grants.rows == ((b"n" * 32, "PACS", ("store",)),)
        told = b"".join(map(messages.encode, client.told))
        assert b"192.0.2" not in told
        assert b"CALLING AE" not in told


async def test_a_change_of_devices_raises_the_serial(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        client = me.joined().client
        await me.put_device(Device("PACS", "192.0.2.1", services=frozenset({"store"})))
        await me.put_device(Device("PACS", "192.0.2.1", services=frozenset({"echo"})))
        first, second = (m for m in client.told if isinstance(m, messages.Publish))
        serials = [Publication.open(m.statements[0], NETWORK)[1].serial for m in (first, second)]
        assert serials[0] < serials[1]


async def test_refusals_of_the_bridge_are_kept_for_people(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        client = me.joined().client
        client.refusals = ("PACS is published by South",)
        await me.publish()
        assert set(me.joined().publisher.refusals) == {"PACS is published by South"}
        client.refusals = ()
        await me.publish()
        assert me.joined().publisher.refusals == ()


async def test_without_a_connection_it_is_said(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        me.joined().client.connected = False
        with pytest.raises(SignallingError):
            await me.publish()
        await me.changed()  # a change meanwhile is told with the next connection
