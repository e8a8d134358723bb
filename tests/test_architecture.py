"""The code is held to the plan: who may import whom, a test for each module, what must be there."""

import ast
import fnmatch
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "relay").rglob("*.py"))


@attrs.frozen(slots=True)
class Room:
    """The modules that `names` matches, what of Relay they may import, and which libraries.

    `libraries` None: not restricted, but for what `never` names. Every room may import the
    standard library, attrs, errors and itself.
    """

    names: tuple[str, ...]
    relay: tuple[str, ...]
    libraries: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()


_ROUTER_MAY_IMPORT = (
    "relay.association",
    "relay.bandwidth",
    "relay.digest",
    "relay.listener",
    "relay.patience",
    "relay.tls",
    "relay.tls_words",
    "relay.transport",
    "relay.scu",
    "relay.dicom",
    "relay.dicom.*",
    "relay.tunnel",
    "relay.tunnel.*",
    "relay.signalling",
    "relay.signalling.*",
    "relay.backup",
    "relay.backup.*",
    "relay.identity",
    "relay.invitation",
    "relay.audit",
    "relay.audit.*",
    "relay.database",
    "relay.spool",
    "relay.spool.*",
    "relay.web",
    "relay.web.*",
    "relay.people",
    "relay.people.*",
    "relay.pages",
    "relay.pages.*",
    "relay.metrics",
    "relay.metrics.*",
    "relay.tracing",
)

# What a view of either mode needs of Relay, and of libraries.
_OF_A_PAGE = ("relay.pages.*", "relay.people.roles")
_FOR_A_PAGE = ("markupsafe", "starlette", "trio")

# What an audit's REST needs; the rest of it knows no HTTP.
_AUDIT_REST = ("relay.web.operations", "relay.people.roles")

# DESIGN §8, with the rooms that building has added. The first that matches a module is its room.
ROOMS = {
    "dicom": Room(("relay.dicom", "relay.dicom.*"), (), ()),
    "packed": Room(("relay.packed",), (), ("msgpack",)),
    "identity": Room(
        ("relay.identity", "relay.invitation"),
        ("relay.packed", "relay.identity"),
        ("msgpack", "cryptography"),
    ),
    "digest": Room(("relay.digest",), ("relay.dicom.pdu",), ("blake3",)),
    "errors": Room(("relay.errors", "relay"), (), ()),
    "tunnel, the pure half": Room(
        (
            "relay.tunnel",
            "relay.tunnel.records",
            "relay.tunnel.chunks",
            "relay.tunnel.compression",
            "relay.tunnel.seal",
            "relay.tunnel.keys",
            "relay.tunnel.handshake",
            "relay.tunnel.ask",
            "relay.tunnel.notes",
        ),
        ("relay.dicom.pdu", "relay.digest", "relay.identity", "relay.packed"),
        ("msgpack", "cryptography", "numpy", "zstandard"),
    ),
    "tunnel, the other half": Room(
        ("relay.tunnel.*",),
        (
            "relay.tunnel",
            "relay.tunnel.*",
            "relay.signalling",
            "relay.signalling.client",
            "relay.signalling.messages",
            "relay.association",
            "relay.dicom",
            "relay.dicom.*",
            "relay.identity",
            "relay.invitation",
            "relay.providers",
            "relay.byte_stream",
            "relay.tracing",
            "relay.workers",
        ),
        ("trio", "httpx", "h11", "structlog"),
    ),
    "signalling": Room(
        ("relay.signalling", "relay.signalling.*"),
        ("relay.identity", "relay.byte_stream", "relay.tracing", "relay.websocket"),
        ("trio", "wsproto", "msgpack", "structlog"),
    ),
    "association": Room(
        (
            "relay.association",
            "relay.listener",
            "relay.patience",
            "relay.reading",
            "relay.tls",
            "relay.tls_words",
            "relay.transport",
            "relay.writing",
        ),
        ("relay.dicom", "relay.dicom.*", "relay.tracing"),
        ("trio", "structlog"),
    ),
    "scu": Room(
        ("relay.scu",), ("relay.dicom", "relay.dicom.*", "relay.association"), ("trio", "structlog")
    ),
    # A provider's settings are read as the configuration's values are.
    "providers": Room(("relay.providers", "relay.providers.*"), ("relay.values", "relay.workers")),
    "database": Room(("relay.database",), ("relay.workers",), ("apsw", "trio", "structlog")),
    "workers": Room(("relay.workers",), (), ("trio", "outcome")),
    "memory": Room(("relay.memory",), (), ("trio",)),
    "systemd": Room(("relay.systemd",), (), ("structlog", "trio")),
    "tracing": Room(("relay.tracing",), (), ("structlog",)),
    "metrics": Room(
        ("relay.metrics", "relay.metrics.*"), (), ("prometheus_client", "starlette", "trio")
    ),
    "byte stream": Room(("relay.byte_stream",), (), ("trio",)),
    "websocket": Room(("relay.websocket",), (), ("trio", "wsproto")),
    "spool": Room(
        ("relay.spool", "relay.spool.*"),
        ("relay.database", "relay.dicom", "relay.dicom.*", "relay.digest", "relay.workers"),
        ("trio", "apsw", "cryptography", "msgpack", "structlog"),
    ),
    "audit, its REST": Room(
        ("relay.audit.operations", "relay.audit.changes"),
        ("relay.audit.*", *_AUDIT_REST),
        ("starlette", "structlog"),
    ),
    "audit": Room(
        ("relay.audit", "relay.audit.*"),
        ("relay.database", "relay.dicom.uids", "relay.web.tls"),
        ("apsw", "trio", "structlog"),
    ),
    # A backup's folder, of either mode.
    "backup": Room(("relay.backup", "relay.backup.*"), ("relay.identity", "relay.spool.files"), ()),
    "web": Room(
        ("relay.web", "relay.web.*"),
        ("relay.database", "relay.byte_stream", "relay.websocket", "relay.people.roles"),
    ),
    # Who may come in; nothing of HTTP.
    "people": Room(
        ("relay.people", "relay.people.*"),
        ("relay.database", "relay.workers"),
        ("apsw", "argon2", "trio", "structlog"),
    ),
    "pages": Room(
        ("relay.pages", "relay.pages.*"),
        ("relay.people", "relay.people.*", "relay.web", "relay.web.*"),
        ("httpx", "jinja2", "markupsafe", "starlette", "structlog", "trio"),
    ),
    # They have what they show from the REST alone (DESIGN §10).
    "pages, the Bridge's": Room(
        ("relay.bridge.pages", "relay.bridge.pages.*"), _OF_A_PAGE, _FOR_A_PAGE
    ),
    "pages, the Router's": Room(
        ("relay.router.pages", "relay.router.pages.*"), _OF_A_PAGE, _FOR_A_PAGE
    ),
    "bridge": Room(
        ("relay.bridge", "relay.bridge.*"),
        (
            "relay.signalling",
            "relay.signalling.*",
            "relay.providers",
            "relay.providers.*",
            "relay.backup",
            "relay.backup.*",
            "relay.identity",
            "relay.invitation",
            "relay.database",
            "relay.audit",
            "relay.audit.*",
            "relay.metrics",
            "relay.metrics.*",
            "relay.tracing",
            "relay.people",
            "relay.people.*",
            "relay.pages",
            "relay.pages.*",
            "relay.web",
            "relay.web.*",
        ),
        never=("pydicom",),
    ),
    # Where a data set must be understood, with pydicom (DESIGN §8).
    "router, of data sets": Room(
        (
            "relay.router.federation",
            "relay.router.federation.*",
            "relay.router.dicomweb",
            "relay.router.dicomweb.*",
        ),
        ("relay.router", "relay.router.*", *_ROUTER_MAY_IMPORT),
    ),
    "router": Room(
        ("relay.router", "relay.router.*"),
        _ROUTER_MAY_IMPORT,
        # The confirmed path carries data sets and never understands one (DESIGN §8).
        never=("pydicom",),
    ),
    # Rules that a person writes into the configuration, and the Router keeps to.
    "bandwidth": Room(("relay.bandwidth",), (), ()),
    "config": Room(
        (
            "relay.config",
            "relay.config_file",
            "relay.config_tables",
            "relay.example",
            "relay.values",
        ),
        ("relay.bandwidth",),
        (),
    ),
    "log": Room(("relay.log",), (), ("structlog",)),
    "cli": Room(("relay.cli", "relay.cli.*", "relay.__main__"), ("relay.*",)),
}

# For all of relay/: pynetdicom is a peer in tests, asyncio is not our event loop.
NEVER = ("pynetdicom", "asyncio", "tests")


def name_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    for name, room in ROOMS.items():
        if any(fnmatch.fnmatchcase(module, pattern) for pattern in room.names):
            return name
    raise AssertionError(f"{module} is in no room: give it a row here, and in the design")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(what is imported, line). `from relay.a import b` is relay.a.b where that is a module."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = ROOT / node.module.replace(".", "/") / alias.name
                is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                yield (f"{node.module}.{alias.name}" if is_module else node.module), node.lineno


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_keep_to_the_table(path: Path) -> None:
    module = name_of(path)
    room = ROOMS[room_of(module)]
    free = (*room.names, *room.relay, "relay", "relay.errors")
    wrong = []
    for imported, line in imports(path):
        top = imported.partition(".")[0]
        if top in NEVER or top in room.never:
            wrong.append(f"{path}:{line}: {imported} is never imported here")
        elif top == "relay":
            if not any(fnmatch.fnmatchcase(imported, pattern) for pattern in free):
                wrong.append(f"{path}:{line}: {room_of(module)} may not import {imported}")
        elif top in sys.stdlib_module_names or top == "attrs" or room.libraries is None:
            continue
        elif top not in room.libraries:
            wrong.append(f"{path}:{line}: {room_of(module)} may not use the library {top}")
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_knows_the_configuration() -> None:
    wrong = [
        f"{path}:{line}"
        for path in MODULES
        for imported, line in imports(path)
        if imported in (*ROOMS["config"].names, "relay.log")
        and room_of(name_of(path)) not in ("cli", "config")
        and imported not in ROOMS[room_of(name_of(path))].relay
    ]
    assert not wrong, "constructors take what they need: " + ", ".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_a_test_of_its_name(path: Path) -> None:
    if path.name in ("__init__.py", "__main__.py") and not has_code(path):
        return
    inside = path.relative_to("relay")
    name = inside.parent.name if path.name == "__init__.py" else inside.stem.strip("_")
    expected = Path("tests") / inside.parent / f"test_{name}.py"
    assert (ROOT / expected).exists(), f"{path} has no {expected}"


def has_code(path: Path) -> bool:
    """Whether the module defines anything beside imports and a docstring."""
    return any(
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        for node in ast.parse((ROOT / path).read_text()).body
    )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    source = (ROOT / path).read_text()
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), f"{path} has no docstring"


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "common", "misc"}
    assert not [path for path in MODULES if path.stem in drawers]


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "Justfile",
        "relay.toml.example",
        "relay/tunnel/PROTOCOL.md",
        "docs/guide.md",
        "docs/configuration.md",
        "docs/threat-model.md",
        "docs/performance.md",
        "scripts/demo",
        "scripts/test",
        "scripts/lint",
        ".ci/run",
    ],
)
def test_what_belongs_to_the_project_is_there(name: str) -> None:
    path = ROOT / name
    assert path.stat().st_size > 0
    if name.startswith(("scripts/", ".ci/")):
        assert path.stat().st_mode & 0o111, f"{name} cannot be run"


def test_the_configuration_reference_names_every_key() -> None:
    from relay import config

    reference = (ROOT / "docs/configuration.md").read_text()
    tables = {mode.value: config.keys(mode) for mode in config.Mode} | {
        f"{mode.value}.{below}": config.keys_of(schema)
        for mode in config.Mode
        for below, schema in config.tables(mode).items()
    }
    missing = []
    for table, keys in tables.items():
        section = reference.partition(f"`[{table}]`\n")[2].partition("\n#")[0]
        missing += [f"{table}.{name}" for name in keys if f"| `{name}` |" not in section]
    assert not missing
