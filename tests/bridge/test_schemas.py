"""What is described is what is given: `test_control` holds each answer to its schema."""

from relay.bridge import schemas
from relay.bridge.warnings import Kind, Warned
from relay.providers.settings import Setting


def test_every_schema_says_all_that_is_always_there() -> None:
    for name in dir(schemas):
        schema = getattr(schemas, name)
        if name.isupper() and isinstance(schema, dict) and "properties" in schema:
            assert schema["required"] == list(schema["properties"]), name


def test_rows_that_are_made_elsewhere() -> None:
    warned = Warned(Kind.STORE_FULL, "disk", "words").to_json()
    assert warned.keys() == schemas.WARNING["properties"].keys()
    assert set(schemas.SETTING["properties"]) == set(Setting.__annotations__)
