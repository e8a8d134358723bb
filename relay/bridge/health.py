"""Whether this Bridge is well, and whether it can do its work: the parts of /healthz and /readyz.

Ready means: Routers that come are let in, and there is an object store for a new session.
"""

from relay.bridge.stores import Stores
from relay.database import Database
from relay.web.health import Part, health_operations
from relay.web.operations import Operation


def bridge_health(database: Database, stores: Stores) -> list[Operation]:
    """GET /healthz and GET /readyz of a Bridge."""

    async def answers() -> str:
        await database.run(lambda connection: connection.execute("SELECT 1").get)
        return ""

    async def works() -> str:
        if not stores.in_use:
            return "none is in use"
        works = set(stores.in_use) - set(stores.failing())
        return "" if works else "none of those in use works"

    return health_operations([Part("database", answers)], [Part("object store", works)])
