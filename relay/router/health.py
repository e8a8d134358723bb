"""Whether this Router is well, and whether it can do its work: the parts of /healthz and /readyz.

Ready means: a device that calls now is heard, what it sends can be kept, and there is a Bridge to
reach another hospital by.
"""

from relay.errors import SpoolError, SpoolFull
from relay.router.node import Node
from relay.router.queue.state import Queue
from relay.web.health import Part, health_operations
from relay.web.operations import Operation


def router_health(queue: Queue) -> list[Operation]:
    """GET /healthz and GET /readyz of a Router."""
    node = queue.node

    async def database() -> str:
        await node.database.run(lambda connection: connection.execute("SELECT 1").get)
        return ""

    async def spool() -> str:
        return _spool(queue)

    async def bridge() -> str:
        return _bridge(node)

    async def listening() -> str:
        return "" if node.listening else "listens for no device: see listen and tls_listen"

    return health_operations(
        [Part("database", database)],
        [Part("listening", listening), Part("spool", spool), Part("bridge", bridge)],
    )


def _spool(queue: Queue) -> str:
    try:
        queue.spool.objects.check()
    except SpoolFull:
        return "full: nothing more is accepted"
    except SpoolError:
        return "broken: nothing is accepted until the next start, and the log says why"
    return ""


def _bridge(node: Node) -> str:
    if node.network is None:
        return "not enrolled"
    return "" if node.network.client.connected else "not connected"
