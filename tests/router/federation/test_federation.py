from pathlib import Path

from relay.router.federation.federation import Federation
from relay.router.federation.settings import FederationSettings
from tests.router.fakes import hospital


async def test_its_parts_have_its_settings(tmp_path: Path) -> None:
    settings = FederationSettings(queries=1, retrieves=2)
    async with hospital(tmp_path / "me") as me:
        one, other = Federation(me, settings), Federation(me)
        assert one.sources.of(None) == other.sources.of(None)
        assert (one.lines._maximum, one.transfer_lines._maximum) == (1, 2)
        assert other.settings == FederationSettings()
        assert one.states is not other.states
