"""Services as people choose them."""

from relay.pages.forms import Form
from relay.router.pages.services import NAMED, of_form, private_of
from relay.router.services import Service


def test_the_services_are_those_that_the_router_knows() -> None:
    assert list(NAMED) == list(Service)


def test_a_form_says_services_and_sop_classes() -> None:
    form = Form({"services": ["echo", "store"], "private": ["1.2.3, private:1.2.4\n1.2.5"]})
    services = ["echo", "store", "private:1.2.3", "private:1.2.4", "private:1.2.5"]
    assert of_form(form) == services
    assert private_of(services) == "1.2.3 1.2.4 1.2.5"
    assert of_form(Form({})) == []
