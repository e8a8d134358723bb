"""The queue's settings; that they are those of relay.toml is in tests/cli/test_run.py."""

from relay.bandwidth import UNLIMITED
from relay.router.queue.settings import QueueSettings


def test_nothing_needs_to_be_said() -> None:
    settings = QueueSettings()
    assert settings.space == 50 * 2**30
    assert settings.reserve == 2**30
    assert settings.warn_after == 3600
    assert (settings.key, settings.bandwidth, settings.webhook) == (None, UNLIMITED, None)


def test_the_webhook_does_not_show_itself() -> None:
    """Its path or query is often all that protects it."""
    assert "hunter2" not in repr(QueueSettings(webhook="https://example.org/hook/hunter2"))
