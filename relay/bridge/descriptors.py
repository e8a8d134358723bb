"""How many connections the Bridge may have: as configured, and as the system lets it.

A process begins with 1,024 open files on most systems and may raise that by itself, up to what the
administrator has set as the hard limit. Thousands of Routers need more than the first.
"""

import resource

import structlog

log = structlog.get_logger()

# Each Router has one connection, and more while it sends or fetches by the Bridge's own store. Two
# thousand and as many transfers; a connection that does nothing costs some 60 KiB.
DEFAULT_MAXIMUM_CONNECTIONS = 4096

# The socket, and the object that is put or got over it.
FILES_PER_CONNECTION = 2
# What is open beside connections: listening sockets, the database and its journals, logs, what the
# administrator asks for.
OTHER_FILES = 128


def connections(wanted: int) -> int:
    """Raise the limit of open files for `wanted` connections; how many there is room for.

    Where the hard limit is too low it is fewer, and the log says what to do.
    """
    files = FILES_PER_CONNECTION * wanted + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (OSError, ValueError) as error:  # macOS has a bound below what it calls no limit
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            log.info("limit of open files not raised", limit=soft, why=str(error))
    if soft == resource.RLIM_INFINITY or soft >= files:
        return wanted
    room = max(1, (soft - OTHER_FILES) // FILES_PER_CONNECTION)
    log.warning(
        "fewer connections than maximum_connections",
        connections=room,
        maximum_connections=wanted,
        open_files=soft,
        remedy=f"let the Bridge have {files} open files: LimitNOFILE={files} in its systemd unit,"
        f" `ulimit -Hn {files}` in a shell",
    )
    return room
