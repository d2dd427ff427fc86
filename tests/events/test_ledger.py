"""The ledger is read in order, in pages and chunks of bounded size."""

from __future__ import annotations

import itertools
import uuid
from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.batch import BatchId
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.ledger import LedgerRow, chunks, find_range_end, read_ledger
from chancy_metrics.events.schema import Tables
from tests.factories import LogWriter, a_run, fetch, sequence_all


async def test_the_ledger_is_read_in_pages_up_to_a_position(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    ids = [await writer.append(runs=[a_run(values=[1.0] * n)]) for n in (1, 2, 3, 4)]
    await sequence_all(connection, tables)

    async with short_transaction(connection) as cursor:
        rows = await read_ledger(cursor, tables, after=1, limit=2)
        until = await read_ledger(cursor, tables, after=1, limit=9, until=2)

    assert [(row.position, row.batch_id, row.events) for row in rows] == [(2, ids[1], 2), (3, ids[2], 3)]
    assert [row.position for row in until] == [2]


async def test_a_range_ends_where_one_of_its_limits_is_reached(connection: Connection, tables: Tables) -> None:
    writer = LogWriter(connection, tables)
    for _ in range(5):
        await writer.append(runs=[a_run(values=[1.0] * 10)])
    await sequence_all(connection, tables)
    [row, *_] = await fetch(connection, "SELECT bytes FROM {ledger} WHERE position = 1", tables)

    async def end(after: int, until: int = 9, *, events: int = 99, size: int = 99_999, limit: int = 99) -> int | None:
        async with short_transaction(connection) as cursor:
            return await find_range_end(cursor, tables, after=after, until=until, events=events, size=size, limit=limit)

    assert [await end(0), await end(0, 4), await end(3, 4), await end(4, 4), await end(5)] == [5, 4, 4, None, None]
    assert [await end(0, events=10), await end(1, events=11), await end(1, events=20)] == [1, 3, 3]
    assert [await end(0, size=row[0]), await end(2, size=row[0] + 1)] == [1, 4]
    assert [await end(0, limit=1), await end(1, limit=2)] == [1, 3]


@given(
    sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8),
    events=st.integers(1, 9),
    size=st.integers(1, 9),
)
def test_chunks_are_as_large_as_their_bounds_let_them_be(sizes: list[tuple[int, int]], events: int, size: int) -> None:
    rows = [LedgerRow(n, BatchId(date(2026, 1, 1), uuid.UUID(int=1), n), *one) for n, one in enumerate(sizes, 1)]

    found = list(chunks(rows, events=events, size=size))

    def fits(chunk: list[LedgerRow]) -> bool:
        return sum(row.events for row in chunk) <= events and sum(row.size_bytes for row in chunk) <= size

    assert [row for chunk in found for row in chunk] == rows
    assert all(chunk and (len(chunk) == 1 or fits(chunk)) for chunk in found)
    assert not any(fits([*chunk, following[0]]) for chunk, following in itertools.pairwise(found))
