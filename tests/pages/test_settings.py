"""Without anything said, nothing is served."""

from relay.pages.settings import PagesSettings


def test_nothing_said() -> None:
    settings = PagesSettings()
    assert (list(settings.listen), settings.certificate, settings.on_network_port) == (
        [],
        None,
        False,
    )
