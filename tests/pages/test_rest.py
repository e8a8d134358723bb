"""A page asks the REST in its reader's name, and is refused in the REST's words."""

import pytest
from starlette.requests import Request

from relay.errors import Refused
from relay.pages.rest import Rest, path_of
from relay.people.roles import Role
from relay.people.who import Who
from tests.pages.conftest import World

BOB = Who("bob", Role.OPERATOR)


def of(world: World, who: Who | None = BOB) -> Rest:
    scope = {"type": "http", "relay.who": who, "relay.address": "10.0.0.7"}
    return world.site.rest.of(Request(scope))


async def test_it_asks_in_the_readers_name(world: World) -> None:
    rest = of(world)
    answer = await rest.get("/v1/things", text="a b&c", number=3, nothing=None)
    assert answer["who"] == "bob"
    assert answer["query"] == {"text": "a b&c", "number": "3"}
    await rest.post("/v1/things", {"a": 1})
    assert world.asked == [("GET", "bob", "10.0.0.7"), ("POST", "bob", "10.0.0.7")]


async def test_refusals_have_the_rests_status_and_words(world: World) -> None:
    for call, status, words in (
        (of(world).post("/v1/refuse"), 409, "no room for <b"),
        (of(world).get("/v1/people"), 403, "administrator"),
        (of(world).get("/v1/nothing"), 404, "Not Found"),
        (of(world).delete("/v1/things"), 405, "Method Not Allowed"),
        (of(world, None).get("/v1/things"), 401, "sign in"),
    ):
        with pytest.raises(Refused, match=words) as refused:
            await call
        assert refused.value.status == status


async def test_a_mistake_of_ours_is_not_taken_for_a_refusal(world: World) -> None:
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        await of(world).post("/v1/fail")


def test_parts_of_a_path_are_escaped() -> None:
    assert path_of("v1", "devices", "A/B ?#ä") == "/v1/devices/A%2FB%20%3F%23%C3%A4"
