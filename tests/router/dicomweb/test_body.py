"""The parts of a request's body, in whatever pieces it comes."""

from typing import Any

import pytest
from starlette.requests import Request

from relay.errors import Refused
from relay.router.dicomweb import body
from relay.router.dicomweb.body import Body
from relay.router.dicomweb.multipart import Writer

WRITER = Writer("application/dicom")
PARTS = [b"first", b"", b"third" * 100]
CONTENT = b"".join(WRITER.begin("application/dicom") + part for part in PARTS) + WRITER.end()


def request(content: bytes, size: int, kind: str = WRITER.content_type, **more: str) -> Request:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    headers = {"content-type": kind} | {key.replace("_", "-"): more[key] for key in more}

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    rows = [(key.encode(), value.encode()) for key, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": rows}, receive)


async def read(parts: Body) -> list[bytes]:
    found = []
    async for part in parts:
        assert part.content_type == "application/dicom"
        found.append(b"".join([piece async for piece in part]))
    return found


@pytest.mark.parametrize("size", [1, 10, 100_000])
async def test_parts_are_read_one_after_the_other(size: int) -> None:
    assert await read(Body(request(CONTENT, size))) == PARTS


@pytest.mark.parametrize("size", [1, 100_000])
async def test_what_is_not_read_of_a_part_is_passed_over(size: int) -> None:
    count = 0
    async for _ in Body(request(CONTENT, size)):
        count += 1
    assert count == len(PARTS)


@pytest.mark.parametrize("cut", [1, 20, len(CONTENT) // 2])
async def test_a_body_that_is_cut_short(cut: int) -> None:
    content = CONTENT[: -cut - len(b"--\r\n")]
    with pytest.raises(Refused, match="before its last boundary"):
        await read(Body(request(content, 50)))


async def test_no_more_than_so_much_is_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "MAXIMUM_DRAINED", 100)
    made = request(CONTENT, 10)
    drained = Body(made)
    await drained.drain()
    left = await made.body()
    assert len(CONTENT) - 110 <= len(left) <= len(CONTENT) - 100


def test_it_is_not_inflated() -> None:
    with pytest.raises(Refused) as refused:
        Body(request(b"", 1, content_encoding="gzip"))
    assert refused.value.status == 415
