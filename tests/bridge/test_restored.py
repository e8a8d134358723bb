"""A restoration is told until somebody confirms it, over restarts too."""

from relay.bridge.restored import Restoration, Restored, note

from .conftest import NOW, Rooms


async def test_it_is_told_until_it_is_confirmed(rooms: Rooms, logs) -> None:
    assert (await Restored.load(rooms.database)).unconfirmed is None
    assert logs == []
    for made in (NOW - 7200, NOW - 3600):  # the second one is the newer
        restoration = Restoration(made, NOW)
        await rooms.database.run(lambda db, noted=restoration: note(db, noted))
    for _ in range(2):
        restored = await Restored.load(rooms.database)
        assert restored.unconfirmed == Restoration(NOW - 3600, NOW)
        assert logs[-1]["event"] == "restored from a backup"
    await restored.confirm()
    await restored.confirm()
    assert restored.unconfirmed is None
    assert (await Restored.load(rooms.database)).unconfirmed is None
