"""What `relay.toml` may say: every key, its type, its default and its reason, once.

One file holds a `[bridge]` table or a `[router]` table (or both, on a machine that tries things
out), and what is below that ([router.federation], [bridge.pages] ..., relay.config_tables). Their
classes are the schema: reading here, `relay init` and `relay.toml.example` (relay.example) are all
made from their fields, so a key cannot exist in one of them only.

Devices, grants, peers and providers are not here: they live in the database, and change while the
process runs.
"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_type_hints

import attrs

from relay.bandwidth import BandwidthLimit
from relay.config_tables import (
    BridgePagesConfig,
    DicomwebConfig,
    FederationConfig,
    RouterPagesConfig,
)
from relay.values import (
    ADDRESS,
    ADDRESSES,
    ADDRESSES_OR_NONE,
    AE_TITLE,
    BANDWIDTH,
    FILE,
    FLAG,
    ORIGINS,
    PATH,
    PROXY,
    URL,
    WEBHOOK,
    Address,
    Key,
    Secret,
    count,
    number,
    one_of,
    size,
)


class Mode(Enum):
    """What this process is; also the name of its table in `relay.toml`."""

    BRIDGE = "bridge"
    ROUTER = "router"


class Trust(Enum):
    """What a Router does with a peer whose contact nobody has compared yet."""

    FIRST_USE = "first-use"
    CONTACTS = "contacts"


class DeviceCertificates(Enum):
    """Whether devices that call over TLS must show a certificate of their own."""

    NONE = "none"
    ASKED = "asked"
    REQUIRED = "required"


class TLSProfile(Enum):
    """The TLS profiles of PS3.15 §B.12, §B.13 and §B.10."""

    BCP_195 = "bcp195"
    MODIFIED_BCP_195 = "modified-bcp195"
    NON_DOWNGRADING_BCP_195 = "non-downgrading-bcp195"


class AuditQueries(Enum):
    """What the audit keeps of a query."""

    NONE = "none"
    KEYS = "keys"
    WHOLE = "whole"


class LogFormat(Enum):
    """How log lines look: `auto` is text on a terminal and JSON elsewhere."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class LogLevel(Enum):
    """The least severe lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_DATA_DIR = Key(
    PATH,
    "Where the database, the keys and the control socket live. Made with mode 0700.",
    default='"/var/lib/relay"',
)
_GRACE_PERIOD = Key(
    number(0, 3600, "seconds"),
    "On SIGTERM: how long running associations may go on, in seconds, before they are aborted."
    " A second signal ends the process at once.",
    default="30",
)
_AUDIT_SYSLOG = Key(
    ADDRESS,
    "Where each entry of the audit is sent as a DICOM Audit Message: a syslog collector over TLS"
    " (RFC 5425), whose registered port is 6514. Without it the audit is kept here alone.",
    example='"collector.example.org:6514"',
)
_AUDIT_CA_FILE = Key(
    FILE,
    "Whom to trust for audit_syslog, PEM: the collector's authority, or its own certificate. No"
    " other is trusted then. Without it: the system's authorities.",
    example='"/etc/relay/collector.pem"',
)
_AUDIT_CERTIFICATE = Key(
    FILE,
    "A certificate chain for a collector that asks who sends, PEM; needs audit_private_key.",
    example='"/etc/relay/audit.pem"',
)
_AUDIT_PRIVATE_KEY = Key(
    FILE,
    "The key of audit_certificate, PEM, readable by this process alone.",
    example='"/etc/relay/audit-key.pem"',
)
_AUDIT_DAYS = Key(
    count(1, 36500),
    "For how many days entries of the audit are kept: seven years, which most rules ask for.",
    default="2557",
)
_AUDIT_SPACE = Key(
    size(16 * 2**20),
    "The most that the audit may take on the disk; beyond it the oldest entries go, whatever"
    " audit_days says. An entry takes about 1 KiB.",
    default='"16 GiB"',
)
_LOG_LEVEL = Key(one_of(LogLevel), "The least severe log lines that are written.", default='"info"')
_LOG_FORMAT = Key(
    one_of(LogFormat),
    "auto: text for people on a terminal, JSON (one object a line) elsewhere.",
    default='"auto"',
)


@attrs.frozen(slots=True)
class BridgeConfig:
    """The `[bridge]` table."""

    mode: ClassVar[Mode] = Mode.BRIDGE

    url: Annotated[
        str,
        Key(
            URL,
            "Where Routers reach this Bridge. It goes into invitations and signed URLs.",
            example='"https://relay.example.org"',
            required=True,
        ),
    ]
    data_dir: Annotated[Path, _DATA_DIR]
    listen: Annotated[
        tuple[Address, ...],
        Key(
            ADDRESSES,
            "Where to listen for Routers: one address, or a list. IPv6 as [ADDRESS]:PORT.",
            default='"0.0.0.0:443"',
        ),
    ]
    certificate: Annotated[
        Path | None,
        Key(
            FILE,
            "The TLS certificate chain for `url`, PEM. Needed unless behind_proxy is true.",
            example='"/etc/relay/fullchain.pem"',
        ),
    ]
    private_key: Annotated[
        Path | None,
        Key(
            FILE,
            "The certificate's private key, PEM, readable by this process alone.",
            example='"/etc/relay/privkey.pem"',
        ),
    ]
    behind_proxy: Annotated[
        bool,
        Key(
            FLAG,
            "true: serve plain HTTP, because a reverse proxy before it does the TLS of `url`.",
            default="false",
        ),
    ]
    blob_space: Annotated[
        int,
        Key(
            size(64 * 2**20),
            "How much of the disk the Bridge's own object store may use for sealed chunks, which"
            " live for minutes.",
            default='"20 GiB"',
        ),
    ]
    maximum_connections: Annotated[
        int,
        Key(
            count(16, 65536),
            "How many connections Routers may have at once: each has one, and several more while it"
            " sends or fetches by the Bridge's own object store. Needs twice as many open files,"
            " which the system must allow (LimitNOFILE).",
            default="4096",
        ),
    ]
    audit_syslog: Annotated[Address | None, _AUDIT_SYSLOG]
    audit_ca_file: Annotated[Path | None, _AUDIT_CA_FILE]
    audit_certificate: Annotated[Path | None, _AUDIT_CERTIFICATE]
    audit_private_key: Annotated[Path | None, _AUDIT_PRIVATE_KEY]
    audit_days: Annotated[int, _AUDIT_DAYS]
    audit_space: Annotated[int, _AUDIT_SPACE]
    grace_period: Annotated[float, _GRACE_PERIOD]
    log_level: Annotated[LogLevel, _LOG_LEVEL]
    log_format: Annotated[LogFormat, _LOG_FORMAT]
    pages: BridgePagesConfig


@attrs.frozen(slots=True)
class RouterConfig:
    """The `[router]` table."""

    mode: ClassVar[Mode] = Mode.ROUTER

    ae_title: Annotated[
        str,
        Key(
            AE_TITLE,
            "The Router's own AE title. It answers a C-ECHO itself, to test the line.",
            default='"RELAY"',
        ),
    ]
    data_dir: Annotated[Path, _DATA_DIR]
    listen: Annotated[
        tuple[Address, ...],
        Key(
            ADDRESSES,
            "Where to listen for local DICOM devices: one address, or a list. IPv6 as"
            " [ADDRESS]:PORT.",
            default='"0.0.0.0:11112"',
        ),
    ]
    tls_listen: Annotated[
        tuple[Address, ...],
        Key(
            ADDRESSES_OR_NONE,
            "Where to listen for local devices that speak DICOM over TLS, beside `listen`: one"
            " address, or a list. The registered port is 2762.",
            default="[]",
            example='"0.0.0.0:2762"',
        ),
    ]
    certificate: Annotated[
        Path | None,
        Key(
            FILE,
            "The Router's own TLS certificate chain, PEM: for devices that call at tls_listen, and"
            " for those that ask for one when called. Needed with tls_listen.",
            example='"/etc/relay/router.pem"',
        ),
    ]
    private_key: Annotated[
        Path | None,
        Key(
            FILE,
            "The certificate's private key, PEM, readable by this process alone, without a"
            " passphrase.",
            example='"/etc/relay/router-key.pem"',
        ),
    ]
    device_ca_file: Annotated[
        Path | None,
        Key(
            FILE,
            "The authorities that are trusted for devices over TLS, or the devices' certificates"
            " themselves, PEM. Without it: the system's authorities for devices that are called,"
            " and none for those that call.",
            example='"/etc/relay/devices.pem"',
        ),
    ]
    device_certificates: Annotated[
        DeviceCertificates,
        Key(
            one_of(DeviceCertificates),
            "Certificates of devices that call at tls_listen. none: not asked for. asked: a device"
            " that shows one must show one that device_ca_file vouches for. required: a device"
            " without one is refused.",
            default='"asked"',
        ),
    ]
    tls_profile: Annotated[
        TLSProfile,
        Key(
            one_of(TLSProfile),
            "The TLS profile towards devices, of DICOM PS3.15: bcp195 is B.12, modified-bcp195 is"
            " B.13, non-downgrading-bcp195 is B.10 (retired, for older devices). All: TLS 1.2 and"
            " 1.3, nothing older.",
            default='"bcp195"',
        ),
    ]
    proxy: Annotated[
        Secret | None,
        Key(
            PROXY,
            "The hospital's outbound HTTP proxy (CONNECT). With a user and password it is a"
            " secret: give it as env:NAME or file:PATH.",
            example='"http://proxy.example.org:3128"',
        ),
    ]
    ca_file: Annotated[
        Path | None,
        Key(
            FILE,
            "More certificate authorities to trust, PEM: the proxy's own, or the Bridge's.",
            example='"/etc/relay/ca.pem"',
        ),
    ]
    allowed_origins: Annotated[
        tuple[str, ...],
        Key(
            ORIGINS,
            "Object stores on private addresses that this Router may use. The Bridge's own origin"
            " is always allowed; public addresses need no entry.",
            default="[]",
            example='["https://store.example.org"]',
        ),
    ]
    trust: Annotated[
        Trust,
        Key(
            one_of(Trust),
            "first-use: a new peer may be used, and shows as unverified until its contact is"
            " compared. contacts: a peer is refused until then.",
            default='"first-use"',
        ),
    ]
    maximum_associations: Annotated[
        int,
        Key(
            count(1, 10000),
            "How many associations with local devices may be open at once.",
            default="256",
        ),
    ]
    spool_space: Annotated[
        int,
        Key(
            size(2**20),
            "The most that objects waiting for delivery may take on the disk. From there on no more"
            " are accepted: senders are told so, and nothing that waits is lost.",
            default='"50 GiB"',
        ),
    ]
    spool_reserve: Annotated[
        int,
        Key(
            size(2**20),
            "What stays free on that disk, whatever waits: objects are accepted only above it.",
            default='"1 GiB"',
        ),
    ]
    spool_key: Annotated[
        Path | None,
        Key(
            FILE,
            "The path of a file with 32 random bytes (head -c 32 /dev/urandom > FILE) that the"
            " waiting objects are locked with, for example a systemd credential. Without it the"
            " Router makes spool.key in its data_dir. Whoever loses it loses what waits.",
            example='"/etc/relay/spool.key"',
        ),
    ]
    bandwidth: Annotated[
        BandwidthLimit,
        Key(
            BANDWIDTH,
            "How fast waiting objects may leave, by day and local time: the first rule that matches"
            " holds, without one there is no limit. What is not queued is never slowed down.",
            default="[]",
            example='["mon-fri 07:00-18:00 20 Mbit/s", "sat,sun unlimited"]',
        ),
    ]
    warn_after: Annotated[
        float,
        Key(
            number(1, 30 * 86400, "seconds"),
            "An object that waits for longer than this, in seconds, is warned of.",
            default="3600",
        ),
    ]
    webhook: Annotated[
        Secret | None,
        Key(
            WEBHOOK,
            "A URL that is sent each warning as JSON, when it begins and when it is over. One with"
            " a key in it is a secret: give it as env:NAME or file:PATH.",
            example='"https://alerts.example.org/relay"',
        ),
    ]
    audit_syslog: Annotated[Address | None, _AUDIT_SYSLOG]
    audit_ca_file: Annotated[Path | None, _AUDIT_CA_FILE]
    audit_certificate: Annotated[Path | None, _AUDIT_CERTIFICATE]
    audit_private_key: Annotated[Path | None, _AUDIT_PRIVATE_KEY]
    audit_days: Annotated[int, _AUDIT_DAYS]
    audit_space: Annotated[int, _AUDIT_SPACE]
    audit_queries: Annotated[
        AuditQueries,
        Key(
            one_of(AuditQueries),
            "What the audit keeps of what a query asked for. keys: by which keys, and no values,"
            " which may name patients. whole: all of it, as DICOM PS3.15 A.5.3.10 has it, encrypted"
            " on the disk with the spool key. none: only that it was asked.",
            default='"keys"',
        ),
    ]
    grace_period: Annotated[float, _GRACE_PERIOD]
    log_level: Annotated[LogLevel, _LOG_LEVEL]
    log_format: Annotated[LogFormat, _LOG_FORMAT]
    federation: FederationConfig
    dicomweb: DicomwebConfig
    pages: RouterPagesConfig


Config = BridgeConfig | RouterConfig
SCHEMA: Mapping[Mode, type[Config]] = {Mode.BRIDGE: BridgeConfig, Mode.ROUTER: RouterConfig}


def keys(mode: Mode) -> dict[str, Key]:
    """Every key of `mode`'s own table, in the order in which the example shows them."""
    return keys_of(SCHEMA[mode])


def keys_of(schema: type) -> dict[str, Key]:
    """The same of any table's class."""
    return {
        name: hint.__metadata__[0]
        for name, hint in _hints(schema).items()
        if hasattr(hint, "__metadata__")
    }


def tables(mode: Mode) -> dict[str, type]:
    """The classes of the tables below `mode`'s, by their names."""
    return {
        name: hint
        for name, hint in _hints(SCHEMA[mode]).items()
        if not hasattr(hint, "__metadata__")
    }


def _hints(schema: type) -> dict[str, Any]:
    hints = get_type_hints(schema, include_extras=True)
    return {field.name: hints[field.name] for field in attrs.fields(schema)}
