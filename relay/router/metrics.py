"""The Router's metrics as rows, but for the queue's (relay.router.queue.metrics).

Labels are names of hospitals, AE titles of devices that this Router knows, and words of Relay's
own; no figure is about a patient. docs/metrics.md has every row.
"""

from relay.metrics import both_modes, process
from relay.metrics.described import Described, Type
from relay.router.queue import metrics as queue

_COUNTER, _GAUGE, _HISTOGRAM = Type.COUNTER, Type.GAUGE, Type.HISTOGRAM

# --- associations ---------------------------------------------------------------------------------

_LINE = ("direction", "work", "hospital", "device")
LIVE = Described("relay_associations_live", _GAUGE, "Associations that run now.", _LINE)
MAXIMUM = Described(
    "relay_associations_maximum", _GAUGE, "How many associations may run at once: the limit."
)
ENDED = Described(
    "relay_associations_total",
    _COUNTER,
    "Associations that are over, and calls that were turned down.",
    (*_LINE, "outcome", "reason"),
)
CARRIED = Described(
    "relay_association_bytes_total",
    _COUNTER,
    "Bytes of commands and data sets that associations have carried.",
    (*_LINE, "way"),
)
MESSAGES = Described(
    "relay_dimse_messages_total", _COUNTER, "DIMSE messages, by command.", ("command",)
)
STORES = Described(
    "relay_cstore_duration_seconds",
    _HISTOGRAM,
    "From a C-STORE-RQ to its response: `near` as the device here that sent it saw it, `far` until"
    " the device here that it was for had answered.",
    ("end",),
)

# --- the tunnel -----------------------------------------------------------------------------------

SESSIONS = Described("relay_sessions_live", _GAUGE, "Sessions with other Routers that run now.")
SESSIONS_ENDED = Described(
    "relay_sessions_total", _COUNTER, "Sessions with other Routers that are over.", ("reason",)
)
CHUNKS = Described("relay_tunnel_chunks_total", _COUNTER, "Sealed chunks.", ("way",))
CHUNK_BYTES = Described("relay_tunnel_bytes_total", _COUNTER, "Bytes of sealed chunks.", ("way",))
IN_LINE = Described(
    "relay_tunnel_in_line_chunks_total",
    _COUNTER,
    "Of the chunks, those that went through the Bridge and not through an object store.",
    ("way",),
)
RETRIES = Described(
    "relay_tunnel_retries_total", _COUNTER, "Transfers and words that were repeated.", ("way",)
)
RESUMES = Described(
    "relay_tunnel_resumes_total",
    _COUNTER,
    "Sessions that went on after the connection to the Bridge was lost.",
)
UNACKNOWLEDGED = Described(
    "relay_tunnel_unacknowledged_bytes", _GAUGE, "Sealed bytes on their way to other hospitals now."
)

# --- the Bridge -----------------------------------------------------------------------------------

ENROLLED = Described("relay_enrolled", _GAUGE, "1: this Router is enrolled; 0: not yet.")
CONNECTED = Described(
    "relay_signalling_connected", _GAUGE, "1: connected to the Bridge; 0: not connected."
)
CONNECTIONS = Described(
    "relay_signalling_connections_total", _COUNTER, "Connections to the Bridge, the first included."
)
HEARD = Described(
    "relay_signalling_messages_total", _COUNTER, "Messages that came from the Bridge."
)
ROUND_TRIP = Described(
    "relay_signalling_round_trip_seconds",
    _GAUGE,
    "To the Bridge and back, the last time that it was measured.",
)
CLOCK = Described(
    "relay_signalling_clock_offset_seconds", _GAUGE, "The Bridge's clock less this machine's."
)

# --- object stores --------------------------------------------------------------------------------

REQUESTS = Described(
    "relay_store_requests_total",
    _COUNTER,
    "Requests to object stores that did what they were to do.",
    ("method",),
)
FAILURES = Described(
    "relay_store_failures_total", _COUNTER, "Requests to object stores that failed."
)
STORED = Described(
    "relay_store_bytes_total", _COUNTER, "Bytes put to object stores and got from them.", ("way",)
)
FAILING = Described(
    "relay_stores_failing", _GAUGE, "Object stores of which the last request failed."
)

# --- the federation and DICOMweb ------------------------------------------------------------------

QUERIES = Described(
    "relay_federation_queries_total", _COUNTER, "Queries to the federation.", ("outcome",)
)
QUERY_SECONDS = Described(
    "relay_federation_query_duration_seconds",
    _HISTOGRAM,
    "From a query to the last answer of all devices that were asked.",
)
SOURCES = Described(
    "relay_federation_source_failures_total",
    _COUNTER,
    "Devices that did not answer the federation as they should.",
    ("device", "outcome"),
)
DICOMWEB = Described(
    "relay_dicomweb_requests_total",
    _COUNTER,
    "DICOMweb requests; status 0: whoever asked left before the answer.",
    ("resource", "method", "status"),
)
DICOMWEB_SECONDS = Described(
    "relay_dicomweb_request_duration_seconds",
    _HISTOGRAM,
    "From a DICOMweb request to the end of its answer.",
    ("resource",),
)

METRICS = (
    *process.METRICS,
    *(LIVE, MAXIMUM, ENDED, CARRIED, MESSAGES, STORES),
    *(SESSIONS, SESSIONS_ENDED, CHUNKS, CHUNK_BYTES, IN_LINE, RETRIES, RESUMES, UNACKNOWLEDGED),
    *(ENROLLED, CONNECTED, CONNECTIONS, HEARD, ROUND_TRIP, CLOCK),
    *(REQUESTS, FAILURES, STORED, FAILING),
    *(QUERIES, QUERY_SECONDS, SOURCES, DICOMWEB, DICOMWEB_SECONDS),
    *both_modes.METRICS,
    *queue.METRICS,
)
