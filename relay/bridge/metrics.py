"""The Bridge's metrics as rows. Labels are kinds, reasons and names of object stores.

What one Router or hospital does is in that Router's own metrics; docs/metrics.md has every row.
"""

from relay.metrics import both_modes, process
from relay.metrics.described import Described, Type

_COUNTER, _GAUGE = Type.COUNTER, Type.GAUGE

# --- Routers and sessions -------------------------------------------------------------------------

ROUTERS = Described(
    "relay_bridge_routers",
    _GAUGE,
    "Routers: enrolled (and not revoked), connected of those, and revoked.",
    ("state",),
)
REFUSED = Described(
    "relay_bridge_connections_refused_total",
    _COUNTER,
    "Connections of those who are no Router of this network, or were revoked.",
)
STRANGERS = Described(
    "relay_bridge_connections_unauthenticated",
    _GAUGE,
    "Connections that have not said yet which Router they are of.",
)
SESSIONS = Described("relay_bridge_sessions_live", _GAUGE, "Sessions that are open now.")
BEGUN = Described("relay_bridge_sessions_begun_total", _COUNTER, "Sessions that were opened.")
ENDED = Described("relay_bridge_sessions_total", _COUNTER, "Sessions that are over.", ("reason",))
MESSAGES = Described(
    "relay_bridge_signalling_messages_total",
    _COUNTER,
    "Messages of Routers, by their kind.",
    ("kind",),
)
WAITING = Described(
    "relay_bridge_signalling_waiting_bytes",
    _GAUGE,
    "What waits to be written to Routers' sockets.",
    ("what",),
)
MOVED = Described(
    "relay_bridge_chunk_bytes_total",
    _COUNTER,
    "Bytes of sealed chunks that Routers announced or sent in line, as they say.",
)

# --- object stores --------------------------------------------------------------------------------

BLOBS = Described(
    "relay_bridge_blob_requests_total",
    _COUNTER,
    "Requests to the Bridge's own store that were carried out.",
    ("method",),
)
BLOB_BYTES = Described(
    "relay_bridge_blob_bytes_total",
    _COUNTER,
    "Bytes put to the Bridge's own store and got from it.",
    ("way",),
)
BLOB_ERRORS = Described(
    "relay_bridge_blob_errors_total",
    _COUNTER,
    "PUTs to the Bridge's own store that were not kept: refused for want of room, or failed.",
    ("kind",),
)
USED = Described("relay_bridge_store_used_bytes", _GAUGE, "What the Bridge's own store holds now.")
SPACE = Described(
    "relay_bridge_store_space_bytes", _GAUGE, "What the Bridge's own store may hold: blob_space."
)
PROVIDERS = Described(
    "relay_bridge_provider_up",
    _GAUGE,
    "1: the object store works, as far as is known; 0: it fails.",
    ("provider",),
)
PROVIDER_FAILURES = Described(
    "relay_bridge_provider_failures_total",
    _COUNTER,
    "Failures of an object store that the Bridge has met itself.",
    ("provider",),
)
SWEPT = Described(
    "relay_bridge_swept_objects_total", _COUNTER, "Objects that the sweeper had deleted."
)
SWEEP_FAILURES = Described(
    "relay_bridge_sweep_failures_total", _COUNTER, "Sweeps that a store failed at."
)
UNSWEPT = Described(
    "relay_bridge_unswept_sessions", _GAUGE, "Sessions that are over and not swept yet."
)

METRICS = (
    *process.METRICS,
    *(ROUTERS, REFUSED, STRANGERS, SESSIONS, BEGUN, ENDED, MESSAGES, WAITING, MOVED),
    *(BLOBS, BLOB_BYTES, BLOB_ERRORS, USED, SPACE, PROVIDERS, PROVIDER_FAILURES),
    *(SWEPT, SWEEP_FAILURES, UNSWEPT),
    *both_modes.METRICS,
)
