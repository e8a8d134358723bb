import socket
from pathlib import Path

from relay.router.dicomweb.overview import Overview
from relay.router.dicomweb.settings import DicomwebSettings
from relay.router.dicomweb.tokens import TokenTable
from tests.router.fakes import hospital


async def test_where_it_is_and_who_may_use_it(tmp_path: Path) -> None:
    async with hospital(tmp_path, enrolled=False) as node:
        tokens = await TokenTable.load(node.database)
        await tokens.add("viewer", "", 0)
        origins = ["https://viewer.example.org"]
        settings = DicomwebSettings(origins=origins, open=True)
        where = [("127.0.0.1", 8080), ("::1", 8080), ("localhost", 80), ("0.0.0.0", 81)]
        shown = Overview(settings, tokens, where, "FEDERATION").to_json()
        assert shown == {
            "urls": [
                "http://127.0.0.1:8080/aets/FEDERATION/rs",
                "http://[::1]:8080/aets/FEDERATION/rs",
                "http://localhost:80/aets/FEDERATION/rs",
                f"http://{socket.gethostname()}:81/aets/FEDERATION/rs",
            ],
            "tokens": 1,
            "open": True,
            "origins": origins,
        }
        settings = DicomwebSettings(certificate=Path("c"), private_key=Path("k"))
        shown = Overview(settings, tokens, [("127.0.0.1", 443)]).to_json()
        assert shown is not None
        assert shown["urls"] == ["https://127.0.0.1:443/aets/AE_TITLE/rs"]
        await tokens.add("script", "", 0)
        assert (Overview(settings, tokens, [("127.0.0.1", 443)]).to_json() or {})["tokens"] == 2
        assert Overview(settings, tokens, []).to_json() is None
