"""Requests for storage commitment as their rows have them, for tests of what becomes of them."""

from relay.spool.transactions import _SELECT, Transaction, TransactionTable, _transaction


async def requests_of(table: TransactionTable) -> list[Transaction]:
    """All, in the order of their acceptance; also those that are over and not yet forgotten."""
    rows = await table._database.run(
        lambda connection: connection.execute(f"{_SELECT} ORDER BY number").fetchall()
    )
    return [_transaction(row) for row in rows]


async def open_of(table: TransactionTable) -> list[Transaction]:
    """Those that are open."""
    return [request for request in await requests_of(table) if request.ended is None]
