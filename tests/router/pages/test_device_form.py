"""A device as a form: nothing is lost on the way to the REST and back."""

import pytest

from relay.errors import Refused
from relay.pages.forms import Form
from relay.router.devices import Device, MoveVia
from relay.router.pages import device_form

DEVICE = Device(
    "A/B C",
    "192.0.2.1",
    11112,
    services=frozenset({"echo", "store", "private:1.2.3"}),
    maximum_associations=3,
    answer_wait=2.5,
    resume_window=30,
    check_address=False,
    user_identity=True,
    published="NORTH",
    tls=True,
    tls_name="pacs.example",
    move_via=MoveVia.ROUTER,
    present_as="US",
    place_wait=1.5,
    linger=5,
    split=2,
    federation=True,
    issuer="North",
    character_set="ISO_IR 192",
    get_via_move=True,
)


def form(values: dict[str, object]) -> Form:
    """What a browser sends of these: of flags those that are ticked, and lists as they are."""
    fields: dict[str, list[str]] = {}
    for name, value in values.items():
        if isinstance(value, list):
            fields[name] = value
        elif value is not False:
            fields[name] = ["1" if value is True else str(value)]
    return Form(fields)


@pytest.mark.parametrize("device", [DEVICE, Device("PLAIN", "192.0.2.2")])
def test_what_a_form_shows_it_sends_back(device: Device) -> None:
    shown = device_form.of_device(device.to_json())
    assert Device.from_json(device_form.entry(form(shown))) == device


def test_a_new_form_has_the_routers_defaults() -> None:
    typed = dict(device_form.NEW) | {"ae_title": "PLAIN", "host": "192.0.2.2"}
    assert Device.from_json(device_form.entry(form(typed))) == Device("PLAIN", "192.0.2.2")


def test_every_field_of_a_device_is_in_the_form_or_kept() -> None:
    assert device_form.of_device(DEVICE.to_json()).keys() == device_form.NEW.keys()
    assert DEVICE.to_json().keys() - device_form.NEW.keys() == {"declares"}


def test_what_was_typed_is_shown_again_and_no_number_is_refused() -> None:
    typed = form(dict(device_form.NEW) | {"port": "many"})
    assert device_form.of_form(typed)["port"] == "many"
    with pytest.raises(Refused, match="port is a whole number, not 'many'"):
        device_form.entry(typed)
