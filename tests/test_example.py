"""A configuration as Relay writes it: complete, explained, and read again as it was meant."""

import re
import tomllib
from pathlib import Path

import pytest

from relay import config, config_file, example
from relay.config import Mode, RouterConfig

EXAMPLE = Path(__file__).parent.parent / "relay.toml.example"


def written(folder: Path, text: str) -> Path:
    path = folder / "relay.toml"
    path.write_text(text)
    return path


def test_the_example_is_what_the_schema_says() -> None:
    assert EXAMPLE.read_text() == example.text(), (
        "write it anew: python -c 'from relay import example; print(example.text(), end=str())'"
        " > relay.toml.example"
    )


@pytest.mark.parametrize("mode", Mode)
def test_the_example_documents_every_key_and_parses_uncommented(tmp_path: Path, mode: Mode) -> None:
    text = EXAMPLE.read_text()
    table = re.split(r"(?m)^(?=\[)", text[text.index(f"[{mode.value}]") :])[1]
    for name, key in config.keys(mode).items():
        assert len(re.findall(rf"(?m)^#?{name} = ", table)) == 1, f"{name} is not in the example"
        assert key.words.endswith("."), f"{name} is not explained in sentences"
    for name in (
        *("fullchain.pem", "privkey.pem", "ca.pem"),
        *(
            "router.pem",
            "router-key.pem",
            "devices.pem",
            "spool.key",
            "dicomweb.pem",
            "dicomweb-key.pem",
            "pages.pem",
            "pages-key.pem",
            "collector.pem",
            "audit.pem",
            "audit-key.pem",
        ),
    ):
        (tmp_path / name).touch()
    for below, schema in config.tables(mode).items():
        assert f"[{mode.value}.{below}]" in text
        known = config.keys_of(schema)
        lines = text[text.index(f"\n[{mode.value}.{below}]") :]
        assert re.findall(r"(?m)^#?(\w+) = ", lines)[: len(known)] == list(known)
        assert all(key.words.endswith(".") for key in known.values())
    uncommented = re.sub(r"(?m)^#(\w+ = )", r"\1", table).replace("/etc/relay", str(tmp_path))
    assert re.findall(r"(?m)^(\w+) = ", uncommented) == list(config.keys(mode))
    loaded = config_file.load(written(tmp_path, uncommented))
    assert loaded.mode is mode


@pytest.mark.parametrize("text", ['North "A"\\', "a\nb\x7f\x00", "São João", "'"])
def test_quoting_survives_the_parser(text: str) -> None:
    assert tomllib.loads(f"value = {example.quote(text)}") == {"value": text}


def test_rendering_sets_the_values_given(tmp_path: Path) -> None:
    text = example.table(
        Mode.ROUTER, {"ae_title": example.quote("MARY"), "data_dir": example.quote(str(tmp_path))}
    )
    loaded = config_file.load(written(tmp_path, text))
    assert isinstance(loaded, RouterConfig)
    assert (loaded.ae_title, loaded.data_dir) == ("MARY", tmp_path)
    assert "#listen" in text
