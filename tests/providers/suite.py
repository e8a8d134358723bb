"""What any `Provider` must do, over real HTTP: each provider's test module runs all of it.

A module imports everything here and gives a fixture `provider`, and a fixture `client` (an
httpx.AsyncClient that reaches the store).
"""

from collections.abc import Sequence

import attrs
import httpx
import pytest
import trio

from relay.errors import ProviderError
from relay.providers import Provider, SignedRequest

EXISTS = (409, 412)
REFUSED = (400, 401, 403)


async def send(
    client: httpx.AsyncClient, request: SignedRequest, data: bytes | None = None
) -> httpx.Response:
    return await client.request(
        request.method, request.url, headers=list(request.headers), content=data
    )


async def put(provider: Provider, client: httpx.AsyncClient, name: str, data: bytes) -> int:
    signed = await provider.sign_put(name, size_limit=len(data), lifetime=60)
    return (await send(client, signed, data)).status_code


async def get(provider: Provider, client: httpx.AsyncClient, name: str) -> httpx.Response:
    return await send(client, await provider.sign_get(name, lifetime=60))


async def names(provider: Provider, prefix: str = "") -> Sequence[str]:
    return sorted([stored.name async for stored in provider.list(prefix)])


@pytest.mark.parametrize("size", [0, 1, 262144, 262145, 4 * 1024 * 1024 + 40])
async def test_what_is_put_is_got(provider, client, size: int) -> None:
    data = bytes(i * 7 % 251 for i in range(1000)) * (size // 1000 + 1)
    assert await put(provider, client, "ab/one", data[:size]) in (200, 201)
    answer = await get(provider, client, "ab/one")
    assert answer.status_code == 200
    assert answer.content == data[:size]
    assert int(answer.headers["Content-Length"]) == size


async def test_second_put_changes_nothing(provider, client) -> None:
    assert await put(provider, client, "ab/one", b"first") in (200, 201)
    assert await put(provider, client, "ab/one", b"other") in EXISTS
    assert (await get(provider, client, "ab/one")).content == b"first"


async def test_one_of_many_puts_at_once_wins(provider, client) -> None:
    statuses: list[int] = []

    async def race(number: int) -> None:
        statuses.append(await put(provider, client, "ab/race", b"%d" % number * 100_000))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(race, number)
    assert len([status for status in statuses if status in (200, 201)]) == 1
    assert all(status in (200, 201, *EXISTS) for status in statuses)
    content = (await get(provider, client, "ab/race")).content
    assert len(content) == 100_000
    assert len(set(content)) == 1


async def test_size_limit_holds_or_is_declared_not_to(provider, client) -> None:
    """A provider says truly whether a PUT over its size limit is refused."""
    signed = await provider.sign_put("ab/large", size_limit=1000, lifetime=60)
    status = (await send(client, signed, bytes(1001))).status_code
    if provider.enforces_size:
        assert status in (400, 403, 413)
        assert (await get(provider, client, "ab/large")).status_code == 404
    else:
        assert status in (200, 201), "enforces_size is False, and yet it was refused"
        assert len((await get(provider, client, "ab/large")).content) == 1001


async def test_missing_object(provider, client) -> None:
    assert (await get(provider, client, "ab/none")).status_code == 404


async def test_deleted_by_signed_request(provider, client) -> None:
    await put(provider, client, "ab/one", b"data")
    signed = await provider.sign_delete("ab/one", lifetime=60)
    assert (await send(client, signed)).is_success
    assert (await get(provider, client, "ab/one")).status_code == 404
    # A missing object is no error.
    assert (await send(client, signed)).is_success


async def test_deleted_by_the_bridge(provider, client) -> None:
    for number in range(3):
        await put(provider, client, f"ab/{number}", b"data")
    await provider.delete(["ab/0", "ab/2", "ab/never"])
    assert await names(provider) == ["ab/1"]
    await provider.delete([])


async def test_list_by_prefix(provider, client) -> None:
    for name in ("ab/one", "ab/two", "cd/three", "top"):
        await put(provider, client, name, b"data!")
    assert await names(provider) == ["ab/one", "ab/two", "cd/three", "top"]
    assert await names(provider, "ab/") == ["ab/one", "ab/two"]
    assert await names(provider, "zz") == []
    [stored] = [stored async for stored in provider.list("top")]
    assert stored.size == 5
    assert stored.modified > 1_600_000_000


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "POST"])
@pytest.mark.parametrize("signed_for", ["GET", "PUT", "DELETE"])
async def test_signature_is_for_one_method(provider, client, method: str, signed_for: str) -> None:
    if method == signed_for or (method, signed_for) == ("HEAD", "GET"):
        return
    await put(provider, client, "ab/one", b"data")
    sign = {
        "GET": provider.sign_get("ab/one", lifetime=60),
        "PUT": provider.sign_put("ab/one", size_limit=10, lifetime=60),
        "DELETE": provider.sign_delete("ab/one", lifetime=60),
    }
    signed = [await request for name, request in sign.items()][list(sign).index(signed_for)]
    answer = await send(client, attrs.evolve(signed, method=method), b"x")
    assert answer.status_code in (*REFUSED, 405)
    assert (await get(provider, client, "ab/one")).content == b"data"


async def test_signature_is_for_one_name(provider, client) -> None:
    await put(provider, client, "ab/one", b"data")
    await put(provider, client, "ab/two", b"secret")
    signed = await provider.sign_get("ab/one", lifetime=60)
    stolen = attrs.evolve(signed, url=signed.url.replace("ab/one", "ab/two"))
    assert stolen.url != signed.url
    assert (await send(client, stolen)).status_code in REFUSED


async def test_unsigned_request_is_refused(provider, client) -> None:
    await put(provider, client, "ab/one", b"data")
    signed = await provider.sign_get("ab/one", lifetime=60)
    bare = attrs.evolve(signed, url=signed.url.split("?")[0])
    assert (await send(client, bare)).status_code in REFUSED


@pytest.mark.parametrize("verb", ["sign_put", "sign_get", "sign_delete"])
async def test_expired_signature_is_refused(provider, client, verb: str) -> None:
    await put(provider, client, "ab/one", b"data")
    limit = {"size_limit": 10} if verb == "sign_put" else {}
    signed = await getattr(provider, verb)("ab/one", lifetime=1, **limit)
    # Stores count whole seconds.
    await trio.sleep(2.1)
    assert (await send(client, signed, b"x" if limit else None)).status_code in REFUSED
    assert (await get(provider, client, "ab/one")).content == b"data"


async def test_ready_is_silent_and_leaves_nothing(provider) -> None:
    await provider.ready()
    assert await names(provider) == []


async def test_expiry_is_told(provider) -> None:
    signed = await provider.sign_get("ab/one", lifetime=60)
    longer = await provider.sign_get("ab/one", lifetime=3600)
    assert 3500 < longer.expires - signed.expires < 3600


@pytest.mark.parametrize(
    "name",
    ["", "../etc", "ab/../cd", "/ab", "ab/", "ab//cd", "Ab", "a b", "ab/.hidden", "a\n", "é"],
)
async def test_names_outside_of_the_alphabet(provider, name: str) -> None:
    with pytest.raises(ProviderError, match="name"):
        await provider.sign_get(name, lifetime=60)
    with pytest.raises(ProviderError, match="name"):
        await provider.sign_put(name, size_limit=1, lifetime=60)
    with pytest.raises(ProviderError, match="name"):
        await provider.delete([name])


async def test_check_finds_nothing_wrong_and_leaves_nothing(provider) -> None:
    findings = await provider.check()
    assert findings
    assert [finding for finding in findings if not finding.ok] == []
    assert await names(provider) == []
