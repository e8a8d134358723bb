"""AE titles between hospital and network."""

from relay.router import names
from relay.router.devices import Device
from tests.router.fakes import CT, proposal


def test_a_callers_local_title_becomes_its_published_one() -> None:
    request = proposal(CT, calling="WS")
    assert names.to_network(request, Device("WS", "h", published="NORTH_WS")).calling == "NORTH_WS"
    assert names.to_network(request, None) == request


def test_a_called_published_title_becomes_the_devices_own() -> None:
    request = proposal(CT, called="NORTH_PACS")
    changed = names.to_device(request, Device("PACS", "h", published="NORTH_PACS"))
    assert (changed.called, changed.calling) == ("PACS", "WS")
    assert changed.contexts == request.contexts
