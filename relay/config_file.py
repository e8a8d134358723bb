"""Reading `relay.toml`: where it lies, which table of it, and what is wrong with it in one line."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relay.config import (
    SCHEMA,
    BridgeConfig,
    Config,
    DeviceCertificates,
    Mode,
    RouterConfig,
    keys_of,
    tables,
)
from relay.config_tables import BridgePagesConfig, DicomwebConfig, RouterPagesConfig
from relay.errors import ConfigurationError
from relay.values import Expectation, reason

# Where the command line looks when neither --config nor RELAY_CONFIG says.
DEFAULT_PATHS = (Path("relay.toml"), Path("/etc/relay/relay.toml"))

# A configuration is a page of text: a larger file is something else given by mistake, and not read
# into memory to find that out.
MAXIMUM_FILE = 1024 * 1024


def find(given: Path | None) -> Path:
    """The configuration to use: the one given, or the first of DEFAULT_PATHS that exists.

    Raises ConfigurationError if there is none.
    """
    if given is not None:
        return given
    for path in DEFAULT_PATHS:
        if path.exists():
            return path
    places = " or ".join(str(path) for path in DEFAULT_PATHS)
    raise ConfigurationError(
        "relay.toml", "", f"not found as {places}: give --config, or write one with `relay init`"
    )


def load(path: Path, mode: Mode | None = None) -> Config:
    """Read `mode`'s table of the file; without a mode, the only table that it has.

    Raises ConfigurationError: one line with the file, the key and what was expected.
    """
    try:
        with path.open("rb") as file:
            source = file.read(MAXIMUM_FILE + 1)
    except OSError as error:
        raise ConfigurationError(str(path), "", f"cannot be read: {reason(error)}") from error
    return read(source, path, mode)


def read(source: bytes, path: Path, mode: Mode | None = None) -> Config:
    """Like `load`, of what the file at `path` holds, or is going to."""
    document = _parse(source, path)
    names = [m.value for m in Mode]
    for name, value in document.items():
        if name not in names:
            raise ConfigurationError(str(path), name, f"unknown table{_did_you_mean(name, names)}")
        if not isinstance(value, dict):
            raise ConfigurationError(str(path), name, f"expected a table: [{name}]")
    if mode is None:
        if len(document) != 1:
            found = "both [bridge] and [router]" if document else "neither [bridge] nor [router]"
            raise ConfigurationError(str(path), "", f"has {found}: say which with --mode")
        mode = Mode(next(iter(document)))
    if mode.value not in document:
        if not document:
            raise ConfigurationError(str(path), "", f"expected a [{mode.value}] table")
        [other] = document
        raise ConfigurationError(
            str(path),
            "",
            f"this is a {other.capitalize()}'s configuration; this command is for a"
            f" {mode.value.capitalize()}'s",
        )
    return _table(path, mode, document[mode.value])


def _parse(source: bytes, path: Path) -> dict[str, Any]:
    if len(source) > MAXIMUM_FILE:
        raise ConfigurationError(str(path), "", f"larger than {MAXIMUM_FILE} bytes")
    try:
        return tomllib.loads(source.decode())
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), "", "expected TOML in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(str(path), "", f"not valid TOML: {error}") from error


def _table(path: Path, mode: Mode, table: Mapping[str, Any]) -> Config:
    below = tables(mode)
    values = _values(path, mode.value, SCHEMA[mode], table, list(below))
    for name, schema in below.items():
        given = table.get(name, {})
        if not isinstance(given, dict):
            raise ConfigurationError(
                str(path), f"{mode.value}.{name}", f"expected a table: [{mode.value}.{name}]"
            )
        values[name] = schema(**_values(path, f"{mode.value}.{name}", schema, given))
    config = SCHEMA[mode](**values)
    if isinstance(config, BridgeConfig):
        _check_tls(path, config)
    else:
        _check_device_tls(path, config)
        _check_federation(path, config)
        _check_dicomweb(path, config.dicomweb)
    _check_pages(path, f"{mode.value}.pages", config.pages)
    return config


def _values(
    path: Path, where: str, schema: type, table: Mapping[str, Any], below: Sequence[str] = ()
) -> dict[str, Any]:
    """What `table`, which is at `where`, says for the keys of `schema`; `below` are not its own."""
    known = keys_of(schema)
    names = [*known, *below]
    for name in table:
        if name not in names:
            raise ConfigurationError(
                str(path), f"{where}.{name}", f"unknown key{_did_you_mean(name, names)}"
            )
    folder = path.absolute().parent
    values: dict[str, Any] = {}
    for name, key in known.items():
        if name in table:
            value = table[name]
        elif key.default is not None:
            value = tomllib.loads(f"value = {key.default}")["value"]
        elif key.required:
            raise ConfigurationError(str(path), f"{where}.{name}", key.kind.expected)
        else:
            values[name] = None
            continue
        try:
            values[name] = key.kind.read(value, folder)
        except ValueError as error:
            expected = str(error) if isinstance(error, Expectation) else key.kind.expected
            raise ConfigurationError(str(path), f"{where}.{name}", expected) from error
    return values


def _check_tls(path: Path, config: BridgeConfig) -> None:
    """TLS from files, or plain HTTP because the configuration says who does the TLS instead."""
    for name in ("certificate", "private_key"):
        given = getattr(config, name) is not None
        if config.behind_proxy and given:
            raise ConfigurationError(
                str(path), f"bridge.{name}", "not used with behind_proxy = true: remove one of them"
            )
        if not config.behind_proxy and not given:
            raise ConfigurationError(
                str(path), f"bridge.{name}", "expected a PEM file, or behind_proxy = true"
            )


def _check_device_tls(path: Path, config: RouterConfig) -> None:
    """What TLS towards devices cannot do without."""
    pair = {"certificate": config.certificate, "private_key": config.private_key}
    missing = [name for name, file in pair.items() if file is None]
    for name in missing:
        [other] = pair.keys() - {name}
        reason = other if len(missing) == 1 else "tls_listen" if config.tls_listen else ""
        if reason:
            raise ConfigurationError(
                str(path), f"router.{name}", f"expected a PEM file, because {reason} is given"
            )
    if config.device_certificates is DeviceCertificates.REQUIRED and config.device_ca_file is None:
        raise ConfigurationError(
            str(path),
            "router.device_ca_file",
            'expected a PEM file, because device_certificates is "required"',
        )


def _check_federation(path: Path, config: RouterConfig) -> None:
    """That what is called by one AE title is one thing."""
    title, store_to = config.federation.ae_title, config.federation.store_to
    if title == config.ae_title:
        raise ConfigurationError(
            str(path),
            "router.federation.ae_title",
            "expected another AE title than the Router's own, `ae_title` of [router]",
        )
    if store_to and store_to in (title, config.ae_title):
        raise ConfigurationError(
            str(path), "router.federation.store_to", "expected the AE title of a device"
        )


def _check_dicomweb(path: Path, said: DicomwebConfig) -> None:
    """What TLS cannot do without, and what must not be without a token."""
    _check_pair(path, "router.dicomweb", said)
    if said.open and not all(address.is_loopback for address in said.listen):
        raise ConfigurationError(
            str(path),
            "router.dicomweb.open",
            "expected false, because others than this machine reach what `listen` names",
        )


def _check_pages(path: Path, table: str, said: RouterPagesConfig | BridgePagesConfig) -> None:
    """That no password goes over a network as it is."""
    _check_pair(path, table, said)
    if said.certificate is None and not all(address.is_loopback for address in said.listen):
        raise ConfigurationError(
            str(path),
            f"{table}.certificate",
            "expected a PEM file, because others than this machine reach what `listen` names",
        )


def _check_pair(
    path: Path, table: str, said: DicomwebConfig | RouterPagesConfig | BridgePagesConfig
) -> None:
    """A certificate and its key: both, or neither."""
    pair = {"certificate": said.certificate, "private_key": said.private_key}
    for name, file in pair.items():
        [other] = pair.keys() - {name}
        if file is None and pair[other] is not None:
            raise ConfigurationError(
                str(path), f"{table}.{name}", f"expected a PEM file, because {other} is given"
            )


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(known)}"
