"""The REST of tokens, and that a token is shown once."""

from pathlib import Path

import httpx

from relay.router.devices import Device
from relay.router.dicomweb.api import token_operations
from relay.router.dicomweb.tokens import TokenTable
from relay.web.operations import rest_app
from tests.router.fakes import hospital


async def test_tokens_are_made_shown_and_removed(tmp_path: Path) -> None:
    async with hospital(tmp_path, enrolled=False) as node:
        await node.put_device(Device("WS", "192.0.2.1", 104))
        tokens = await TokenTable.load(node.database)
        transport = httpx.ASGITransport(rest_app(token_operations(node, tokens)))
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as http:
            made = await http.post("/v1/tokens", json={"name": "viewer", "device": "WS"})
            assert made.status_code == 201
            answer = made.json()
            assert (answer["name"], answer["device"]) == ("viewer", "WS")
            assert tokens.find(f"Bearer {answer['token']}") is not None
            [shown] = (await http.get("/v1/tokens")).json()
            assert shown.keys() == {"name", "device", "created"}
            again = await http.post("/v1/tokens", json={"name": "viewer"})
            assert again.status_code == 409
            unknown = await http.post("/v1/tokens", json={"name": "a", "device": "NOBODY"})
            assert (unknown.status_code, "no device" in unknown.text) == (404, True)
            wrong = await http.post("/v1/tokens", json={"name": "a", "devise": "WS"})
            assert (wrong.status_code, "did you mean device" in wrong.text) == (400, True)
            script = await http.post("/v1/tokens", json={"name": "a/b"})
            assert script.json()["device"] is None
            assert (await http.delete("/v1/tokens/a/b")).status_code == 200
            assert (await http.delete("/v1/tokens/a/b")).status_code == 404
            assert [token.name for token in tokens] == ["viewer"]
