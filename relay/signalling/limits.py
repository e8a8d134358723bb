"""Every limit of signalling, with its reason; what a message may hold stands in `messages`."""

import attrs

# --- in-line credit (DESIGN §5) ------------------------------------------------------------------

# What a reader's Router may have granted and not yet taken: the hub holds this much for it, so that
# a writer with credit never overflows and never has to be stopped.
IN_LINE_CREDIT_SESSION = 256 * 1024
IN_LINE_CREDIT_SOCKET = 8 * 1024 * 1024

# --- what waits for one socket, or for one session's consumer -----------------------------------

# One session's in-line bytes. Twice the credit: the reader grants more before the hub has heard
# that it took the last, and a chunk's seal is counted by one side sooner than by the other.
MAXIMUM_WAITING_IN_LINE = 2 * IN_LINE_CREDIT_SESSION
# One session's messages: 256 KiB of credit in the smallest sealed chunks, and announcements.
MAXIMUM_WAITING_MESSAGES = 4096
# All sessions of one socket: the in-line credit, and as much for openings and announcements.
MAXIMUM_WAITING_SESSIONS = 2 * IN_LINE_CREDIT_SOCKET
# Sessions of one socket with something to say: four times what a Router may hold, since those that
# it does not hold are told so. Whoever makes more wait than it takes is closed.
MAXIMUM_WAITING_TURNS = 4096
# Control to one socket: a whole directory of thousands of Routers takes about half of it. Whoever
# does not take that much is closed, and gets a new snapshot when it comes back.
MAXIMUM_WAITING_CONTROL = 8 * 1024 * 1024
# Callbacks that wait for the Router's own code: openings and asks beyond it are turned away.
MAXIMUM_WAITING_CALLBACKS = 64

# --- what one Router may ask of the hub ----------------------------------------------------------

# Requests (Slots, Resign, Publish, ...) that a Router's client has unanswered at once.
MAXIMUM_REQUESTS = 64
# ... and what the hub bears before it closes the socket: it also counts those that the Router has
# given up but that are still being carried out.
TOLERATED_REQUESTS = 4 * MAXIMUM_REQUESTS
# A busy Router sends a few hundred messages a second; ten times that is not read faster, so that
# one Router cannot take all of the hub's processor time.
MESSAGES_PER_SECOND = 5000
MESSAGES_AT_ONCE = 10_000
# Requests that reach other Routers' sockets (publications, keys, asks), or that read the directory
# (seeks, looks): people cause them, not traffic. Beyond this they are refused.
NOTICES_PER_SECOND = 2
NOTICES_AT_ONCE = 120
# Connections that have not said who they are. The oldest gives way to the newest, so that idle
# ones cannot keep Routers out; as many as come at once where a Bridge of 2,000 Routers is started
# anew, who would push each other out for ever.
MAXIMUM_UNAUTHENTICATED = 2048
# A Router whose rows a person sought: each is told of from then on, for as long as the connection
# lasts. People seek a handful.
MAXIMUM_SOUGHT = 256
# One Directory message: leaves room in MAXIMUM_MESSAGE for one more row of two statements.
MAXIMUM_DIRECTORY_BYTES = 192 * 1024
# Sessions that a Router was told not to be known, so that it is told once.
REMEMBERED_UNKNOWN = 1024


@attrs.frozen(slots=True)
class Timeouts:
    """How long each wait on the other end may last, in seconds."""

    connect: float = 20  # TCP, proxy, TLS and WebSocket upgrade: a slow proxy takes several
    authenticate: float = 10  # each end's words are sent at once; only the network takes time
    held: float = 60  # from Welcome to Held: publishing takes three requests of `request` each
    request: float = 10  # an answer from the Bridge, which waits for its disk only
    backend: float = 10  # what the hub waits for its registry while a Router's messages queue up
    heartbeat: float = 5  # between pings: a dead line is known well before the resume window ends
    silence: float = 15  # three pings missed; the default resume window is 20 s
    write: float = 10  # one frame into the socket; below `silence`, so that the cause is named
    close: float = 2  # saying goodbye
    first_pause: float = 0.2  # before the first attempt to reconnect; doubles up to ...
    longest_pause: float = 2  # ... this: ten attempts fit into the default resume window of 20 s
    settled: float = 0.3  # a connection that lasted this long was good: pauses begin anew
